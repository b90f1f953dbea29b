"""Tasks, model families and methods from packages of the user's own, found by their entry points.

A package names a module of its own in the group `fit_jax.tasks`, `fit_jax.families` or `fit_jax.methods`; the module
holds what one of this package holds (docs/plugins.md). Names of this package come first.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar

from fit_jax.errors import InputError
from fit_jax.foreign import shown
from fit_jax.user_code import guarded

Kind = Literal["tasks", "families", "methods"]
Built = TypeVar("Built")

_REMEDY = "fix or uninstall the package"


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
    where = _where(kind, entry)
    with guarded(f"{where} cannot be imported", _REMEDY):
        module = entry.load()
    if not any(hasattr(module, attribute) for attribute in anyof):
        raise InputError(f"{where} has no {' or '.join(anyof)}; {_REMEDY}")
    return module


def build_plugin(kind: Kind, name: str, expected: type[Built], *arguments: object) -> Built:
    """What the `build` of an installed package's module gives.

    Args:
        kind: The registry.
        name: One of `plugin_names(kind)`.
        expected: What it must be.
        arguments: What `build` is called with.

    Raises:
        InputError: As `load_plugin`, or `build` fails or gives something else.
    """
    module = load_plugin(kind, name, "build")
    (entry,) = entry_points(group=f"fit_jax.{kind}", name=name)
    with guarded(f"{_where(kind, entry)} cannot be built", _REMEDY):
        built = module.build(*arguments)
    if not isinstance(built, expected):
        raise InputError(f"{_where(kind, entry)} builds no {expected.__name__} but {shown(built)}; {_REMEDY}")
    return built


def _where(kind: Kind, entry: EntryPoint) -> str:
    return f"package {_owner(entry)}: {entry.value}, its {entry.name} in fit_jax.{kind},"


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "(unknown)"
