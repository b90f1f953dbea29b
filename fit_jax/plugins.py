"""Tasks, model families and methods from packages of the user's own, found by their entry points.

A package names a module of its own in the group `fit_jax.tasks`, `fit_jax.families` or `fit_jax.methods`; the module
holds what one of this package holds (docs/plugins.md). Names of this package come first.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from fit_jax.errors import InputError
from fit_jax.foreign import shown

Kind = Literal["tasks", "families", "methods"]


def plugin_names(kind: Kind) -> tuple[str, ...]:
    """Names that installed packages offer, in alphabetical order; nothing of them is imported."""
    return tuple(sorted(entry_points(group=f"fit_jax.{kind}").names))


def load_plugin(kind: Kind, name: str, *anyof: str) -> Any:
    """The module that an installed package offers under a name.

    Args:
        kind: The registry.
        name: One of `plugin_names(kind)`.
        anyof: The module must hold at least one of these.

    Raises:
        InputError: It cannot be imported, holds none of what it should, or two packages offer the name.
    """
    found = list(entry_points(group=f"fit_jax.{kind}", name=name))
    if len(found) > 1:
        owners = ", ".join(sorted(_owner(entry) for entry in found))
        raise InputError(f"{name}: several packages offer it in fit_jax.{kind} ({owners}); uninstall all but one")
    (entry,) = found
    where = f"package {_owner(entry)}: {entry.value}, its {name} in fit_jax.{kind},"
    try:
        module = entry.load()
    except Exception as error:  # the user's module does what it likes
        reason = shown(" ".join(f"{type(error).__name__}: {error}".split()))
        raise InputError(f"{where} cannot be imported ({reason}); fix or uninstall the package") from error
    if not any(hasattr(module, attribute) for attribute in anyof):
        raise InputError(f"{where} has no {' or '.join(anyof)}; fix or uninstall the package")
    return module


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "(unknown)"
