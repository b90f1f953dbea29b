"""Config trees from YAML and the command line, and back; works for any tree of dataclasses."""

import difflib
import inspect
import re
from collections.abc import Collection, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import draccus
import yaml

from fit_jax.errors import InputError

ConfigType = TypeVar("ConfigType")


class _Loader(yaml.SafeLoader):
    """Refuses a value that holds itself, and a mapping that names a key twice, of which YAML would take the last."""

    def construct_document(self, node: yaml.Node) -> Any:
        self.deep_construct = True  # what holds itself is found only where values are finished before their parents
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
                names.add(key.value)
        return super().construct_mapping(node, deep)


def parse_config(cls: type[ConfigType], arguments: list[str], about: str = "") -> ConfigType:
    """A tree from `--config FILE` and `--section.field value`; `--help` prints every field and ends the program.

    The arguments are applied in order, so a later one wins. A YAML file may name another as `base:` (a path relative
    to itself), whose fields it overrides.

    Args:
        cls: The tree.
        arguments: The command line.
        about: What `--help` prints before the fields.

    Raises:
        InputError: Unknown field, wrong type or value, unreadable or malformed file; the message names the field.
    """
    if {"--help", "-h"} & set(arguments):
        print(about)
        print("--config FILE\n    YAML file of the fields below; `base:` in it names another that it overrides.")
        print("\n".join(_help(cls)))
        raise SystemExit(0)
    tree: dict[str, Any] = {}
    for name, text in _pairs(arguments):
        if name == "config":
            _merge(tree, read_yaml(Path(text)))
        else:
            _check_name(cls, name, f"--{name}")
            value = _from_yaml(text, f"--{name}: {text[:100]!r} is no YAML value")
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
        InputError: A file is unreadable, is no mapping, or is its own base, or a base is no file name.
    """
    if path.resolve() in above:
        raise InputError(f"--config {path}: its `base:` leads back to itself; name another file there")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}; name a readable YAML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--config {path}: no UTF-8 text ({error}); name a YAML file") from error
    tree = _from_yaml(text, f"--config {path}: no YAML") or {}
    if not isinstance(tree, dict):
        raise InputError(f"--config {path}: holds {type(tree).__name__}, not a mapping of sections to fields")
    return _on_base(tree, path, (*above, path.resolve()))


def _on_base(tree: dict[str, Any], path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A section of the file `path`, and those in it, over what their `base:` names."""
    tree = {key: _on_base(value, path, above) if isinstance(value, dict) else value for key, value in tree.items()}
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str) or "\0" in base:
        raise InputError(f"--config {path}: base: {base!r} is no file name; name a YAML file, relative to this one")
    merged = read_yaml(path.parent / base, above)
    _merge(merged, tree)
    return merged


def _from_yaml(text: str, complaint: str) -> Any:
    """The value that YAML text gives, or an InputError that begins with the complaint."""
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # PyYAML lets through what Python says of impossible dates, numbers and tags
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise InputError(f"{complaint} ({reason}); fix it, or quote it where it is text") from error


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
        if get_origin(f.type) is tuple and is_dataclass(element := get_args(f.type)[0]) and isinstance(value, list):
            for number, item in enumerate(value):
                if not isinstance(item, dict):
                    known = ", ".join(field.name for field in fields(element))
                    raise InputError(f"{name}.{number}: {item!r} is no mapping; give it fields: {known}")
                _check_values(element, item, f"{name}.{number}.")
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
        elif not origins & {tuple, dict} and isinstance(value, list | tuple | dict):
            problem = f"{value!r} is not {_expected(f.type)}"
        elif origins & {int, float} and bool not in origins and isinstance(value, bool):
            problem = f"{value} is no number"
        elif float in origins and str(value).lower().strip("+-. ") == "nan":
            problem = "not a number (nan); give one"
        elif int in origins and isinstance(value, int) and abs(value) >= 2**32:
            problem = f"{value} is too large"
        else:
            try:
                draccus.decode(f.type, value)
            except draccus.ParsingError:
                problem = f"{value!r} is not {_expected(f.type)}"
        if problem:
            raise InputError(f"{name}: {problem}")


def _expected(kind: Any) -> str:
    """What a value of the type is, in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):
        return " or ".join(map(_expected, inner))
    if origin is Literal:
        return f"one of {', '.join(inner)}"
    if origin is tuple:
        return f"a list of values, each {_expected(inner[0])}"
    if origin is dict:
        return f"a mapping to values, each {_expected(inner[1])}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}[kind]


def _check_sections(config: Any) -> None:
    """Asks each section that has a `check` whether its values are possible."""
    for f in fields(config):
        if is_dataclass(value := getattr(config, f.name)):
            _check_sections(value)
    if hasattr(config, "check"):
        config.check()
