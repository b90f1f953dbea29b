"""Config trees from YAML and the command line, and back; works for any tree of dataclasses."""

import difflib
import inspect
import re
from collections.abc import Collection, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import draccus
import yaml

from fit_jax.errors import InputError

ConfigType = TypeVar("ConfigType")


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that names a key twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
                names.add(key.value)
        return super().construct_mapping(node, deep)


def parse_config(cls: type[ConfigType], arguments: list[str]) -> ConfigType:
    """A tree from `--config FILE` and `--section.field value`; `--help` prints every field and ends the program.

    The arguments are applied in order, so a later one wins. A YAML file may name another as `base:` (a path relative
    to itself), whose fields it overrides.

    Raises:
        InputError: Unknown field, wrong type or value, unreadable or malformed file; the message names the field.
    """
    if {"--help", "-h"} & set(arguments):
        print("--config FILE\n    YAML file of the fields below; `base:` in it names another that it overrides.")
        print("\n".join(_help(cls)))
        raise SystemExit(0)
    tree: dict[str, Any] = {}
    for name, text in _pairs(arguments):
        if name == "config":
            _merge(tree, read_yaml(Path(text)))
        else:
            _check_name(cls, name, f"--{name}")
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise InputError(f"--{name}: {text!r} is no YAML value; quote it") from error
            for key in reversed(name.split(".")):
                value = {key: value}
            _merge(tree, value)
    return decode_config(cls, tree)


def decode_config(cls: type[ConfigType], tree: dict[str, Any]) -> ConfigType:
    """A dataclass tree from nested dicts, as YAML gives them; errors as `load_config`."""
    for name, value in _leaves(tree):
        _check_name(cls, name, name, section_allowed=value == {})
    _check_values(cls, tree)
    try:
        config = draccus.decode(cls, tree)
    except draccus.ParsingError as error:
        raise InputError("config: " + " ".join(str(error).split())) from error
    _check_sections(config)
    return config


def read_yaml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping a YAML file holds, it and its sections merged over the files that a `base:` in them names.

    Args:
        path: The file; a base is named relative to it.
        above: The files that name it as their base.

    Raises:
        InputError: A file is unreadable, is no mapping, or is its own base.
    """
    if path.resolve() in above:
        raise InputError(f"--config {path}: its `base:` leads back to itself; name another file there")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}; name a readable YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise InputError(f"--config {path}: holds {type(tree).__name__}, not a mapping of sections to fields")
    return _on_base(tree, path, (*above, path.resolve()))


def _on_base(tree: dict[str, Any], path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A section of the file `path`, and those in it, over what their `base:` names."""
    tree = {key: _on_base(value, path, above) if isinstance(value, dict) else value for key, value in tree.items()}
    base = tree.pop("base", None)
    if base is None:
        return tree
    merged = read_yaml(path.parent / str(base), above)
    _merge(merged, tree)
    return merged


def dump_config(config: Any) -> str:
    """The config as YAML that `parse_config` reads back to an equal tree."""
    return draccus.dump(config)


def config_differences(old: Any, new: Any, may_differ: Collection[str] = (), prefix: str = "") -> list[str]:
    """Dotted names of the fields in which two trees of one dataclass differ, with both values.

    Args:
        old: A tree.
        new: Another.
        may_differ: Dotted names of fields and of whole sections that are not compared.
        prefix: Stands before every name.
    """
    rows = []
    for f in fields(old):
        name, a, b = prefix + f.name, getattr(old, f.name), getattr(new, f.name)
        if name in may_differ:
            continue
        if is_dataclass(a):
            rows += config_differences(a, b, may_differ, f"{name}.")
        elif a != b:
            rows.append(f"{name}: {a!r} -> {b!r}")
    return rows


def _help(cls: type, prefix: str = "") -> Iterator[str]:
    """Every field with its type, default and the comment above it."""
    source = inspect.getsource(cls)
    for f in fields(cls):
        if is_dataclass(f.type):
            yield from _help(f.type, f"{prefix}{f.name}.")
            continue
        default = f.default if f.default_factory is MISSING else f.default_factory()
        above = re.search(rf"((?:^    # .*\n)*)^    {f.name}:", source, re.MULTILINE)
        comment = " ".join(re.findall(r"# (.*)", above[1])) if above else ""
        kind = f.type.__name__ if isinstance(f.type, type) else str(f.type).replace("typing.", "")
        yield f"--{prefix}{f.name}  {kind} = {default!r}" + (f"\n    {comment}" if comment else "")


def _pairs(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """(name, value) of each `--name value` or `--name=value`."""
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--") or len(argument) == 2:
            raise InputError(f"unexpected argument {argument!r}: options are --config FILE and --section.field VALUE")
        name, equals, value = argument[2:].partition("=")
        if not equals:
            following = next(rest, None)
            if following is None:
                raise InputError(f"--{name} needs a value: --{name} VALUE")
            value = following
        yield name, value


def _merge(tree: dict[str, Any], update: dict[str, Any]) -> None:
    """Writes `update` over `tree`, section by section; a mapping that is a field's value replaces it whole."""
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict) and key != "weights":
            _merge(tree[key], value)
        else:
            tree[key] = value


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value and key != "weights":
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_name(cls: type, name: str, shown: str, section_allowed: bool = False) -> None:
    """Raises unless the dotted `name` is a field of the tree `cls`."""
    at: Any = cls
    for i, key in enumerate(keys := name.split(".")):
        known = {f.name: f.type for f in fields(at)} if is_dataclass(at) else {}
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = (
                f"did you mean {'.'.join([*keys[:i], *near])!r}?"
                if near
                else f"known here: {', '.join(known) or 'no field'}"
            )
            raise InputError(f"{shown}: there is no such field; {hint}")
        at = known[key]
    if is_dataclass(at) and not section_allowed:
        raise InputError(f"{shown}: is a section; set one of its fields: {', '.join(f.name for f in fields(at))}")


def _check_values(cls: type, tree: dict[str, Any], prefix: str = "") -> None:
    """Raises where draccus would take a value for something else, or refuse it in words that do not help."""
    for f in fields(cls):
        value, name = tree.get(f.name), prefix + f.name
        if f.name not in tree:
            continue
        if is_dataclass(f.type):
            _check_values(f.type, value, f"{name}.")
            continue
        kinds = get_args(f.type) if get_origin(f.type) in (UnionType, Union) else (f.type,)
        origins = {get_origin(kind) or kind for kind in kinds}
        problem = None
        if value is None:
            problem = None if NoneType in origins else "null is no value for it; leave the field out for its default"
        elif tuple in origins and not isinstance(value, list | tuple):
            problem = f"{value!r} is no list; write [{value}]"
        elif dict in origins and not isinstance(value, dict):
            problem = f"{value!r} is no mapping; write {{name: value}}"
        elif origins & {int, float} and bool not in origins and isinstance(value, bool):
            problem = f"{value} is no number"
        elif float in origins and str(value).lower().strip("+-. ") == "nan":
            problem = "not a number (nan); give one"
        elif int in origins and isinstance(value, int) and abs(value) >= 2**32:
            problem = f"{value} is too large"
        if problem:
            raise InputError(f"{name}: {problem}")


def _check_sections(config: Any) -> None:
    """Asks each section that has a `check` whether its values are possible."""
    for f in fields(config):
        if is_dataclass(value := getattr(config, f.name)):
            _check_sections(value)
    if hasattr(config, "check"):
        config.check()
