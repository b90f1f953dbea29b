"""Configs from YAML files and the command line, and back; works for any dataclass whose sections are dataclasses."""

import math
from collections.abc import Collection, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

import draccus
import yaml

from fit_jax.errors import InputError
from fit_jax.foreign import exists, is_text, listed, named, read_text, shown
from fit_jax.options import Parser, add_fields, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# The configs of the package.
_CONFIGS = Path(__file__).parent / "configs"
# Bytes of the longest config file.
_LONGEST = 1 << 24
_READABLE = "name a readable YAML file"
# Characters of a value that a message may write again as it should be.
_SHORT = 40
ConfigType = TypeVar("ConfigType", bound="DataclassInstance")


class _Loader(yaml.SafeLoader):
    """Refuses a value that holds itself, a mapping that names a key twice, of which YAML would take the last, and NUL.

    Half of a surrogate pair is refused too: neither stands in any text or name of a file.
    """

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and not is_text(value):
            raise yaml.constructor.ConstructorError(
                None, None, "a NUL or half of a character in a text", node.start_mark
            )
        return value

    def construct_document(self, node: yaml.Node) -> Any:
        self.deep_construct = True  # what holds itself is found only where values are finished before their parents
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} appears twice", key.start_mark)
                names.add(key.value)
        return super().construct_mapping(node, deep)


def parse_config(cls: type[ConfigType], arguments: list[str]) -> ConfigType:
    """A config from `--config FILE` and `--section.field VALUE`, where a later one wins.

    A YAML file, and each section in it, may name another as `base:` (a path relative to the file), whose fields it
    overrides. A file that is not there is looked for among the configs that come with the package.

    Args:
        cls: The config.
        arguments: The command line.

    Raises:
        InputError: Unknown field, wrong type or value, unreadable or malformed file; the message names the field.
    """
    return decode_config(cls, _asked(cls, arguments))


def read_config(cls: type[ConfigType], path: Path, complete: bool = False, later: Collection[str] = ()) -> ConfigType:
    """A config from a YAML file; errors as `parse_config`.

    Args:
        cls: The config.
        path: The file.
        complete: Whether every field and section must stand in it, as in one that a program wrote.
        later: Those that may be left out all the same, since earlier versions of the program did not know them.
    """
    mapping = _read(cls, path)
    missing = [f.name for f in fields(cls) if complete and f.name not in {*mapping, *later}]
    if missing:
        raise InputError(f"{named(path)}: lacks {listed(missing, 3)}; put the file back as it was written")
    return decode_config(cls, mapping, where=named(path))


def overlaid(config: ConfigType, arguments: Sequence[str]) -> ConfigType:
    """A config with the fields that options give, `--config FILE` among them; errors as `parse_config`."""
    cls = type(config)
    return decode_config(cls, _over(cls, _from_yaml(dump_config(config), "config"), _asked(cls, arguments)))


def decode_config(
    cls: type[ConfigType], mapping: dict[str, Any], prefix: str = "", where: str = "config"
) -> ConfigType:
    """A config from nested mappings, as YAML gives them; errors as `parse_config`.

    Args:
        cls: The config.
        mapping: Values by field, and mappings by section.
        prefix: Begins the names of fields in errors.
        where: What errors say is missing a field.
    """
    known = {f.name: f for f in fields(cls)}
    for key in mapping:
        if key not in known:
            raise InputError(f"{prefix}{shown(key)}: there is no such field; {nearest(shown(key), known)}")
    values = {key: _decode(known[key].type, value, f"{prefix}{key}", where) for key, value in mapping.items()}
    needed = {name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(needed - {*values}):
        raise InputError(f"{where}: lacks {listed(prefix + name for name in missing)}; add what is missing")
    config = cls(**values)
    if check := getattr(config, "check", None):
        check()
    return config


def dump_config(config: Any) -> str:
    """The config as YAML that `read_config` reads back to an equal one."""
    return str(draccus.dump(config))


def file_values(cls: type, path: Path) -> dict[str, Any]:
    """What a config file says, as it stands there, by dotted name; errors as `parse_config`."""

    def flat(mapping: dict[str, Any], prefix: str) -> dict[str, Any]:
        values = {}
        for key, value in mapping.items():
            values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return values

    return flat(_read(cls, path), "")


def config_differences(old: Any, new: Any, may_differ: Collection[str] = (), prefix: str = "") -> list[str]:
    """Dotted names of the fields in which two configs of one class differ, with both values.

    Args:
        old: A config.
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
        elif isinstance(a, tuple) and a and len(a) == len(b) and all(map(is_dataclass, a)):
            rows += [r for n, ab in enumerate(zip(a, b)) for r in config_differences(*ab, may_differ, f"{name}.{n}.")]
        elif a != b:
            rows.append(f"{name}: {a!r} -> {b!r}")
    return rows


def _asked(cls: type, arguments: Sequence[str]) -> dict[str, Any]:
    """What the options of a command line give, later ones over earlier ones."""
    parser = Parser(add_help=False)
    add_fields(parser, cls, shown=())
    mapping: dict[str, Any] = {}
    for option in parser.parse_args(arguments).config:
        name, _, text = option.removeprefix("--").partition("=")
        if name == "config":
            remedy = _READABLE if exists(path := _find(Path(text))) else f"{_READABLE}, or {_packaged()}"
            value = _read(cls, path, remedy=remedy)
        else:
            value = _from_yaml(text, f"--{name}: {shown(text)!r} is no YAML value")
            for key in reversed(name.split(".")):
                value = {key: value}
        mapping = _over(cls, mapping, value)
    return mapping


def _find(path: Path) -> Path:
    """The file itself, or else the one of that name among the configs of the package."""
    places = [path, _CONFIGS.parent / path, _CONFIGS / f"{path}.yaml"]
    return next((place for place in places if exists(place) and not place.is_dir()), path)


def _packaged() -> str:
    """Names the configs of the package, except for the parts that the paper's are put together from."""
    files = sorted(file for pattern in ("*.yaml", "experiments/*.yaml") for file in _CONFIGS.glob(pattern))
    names = (file.relative_to(_CONFIGS).with_suffix("").as_posix() for file in files)
    return f"one that comes with fit_jax: {', '.join(names)}"


def _read(cls: type, path: Path, above: tuple[Path, ...] = (), remedy: str = _READABLE) -> dict[str, Any]:
    """The mapping that a YAML file holds, it and its sections over the files that a `base:` in them names.

    Args:
        cls: The config or section that the file is of.
        path: The file.
        above: The files that name it as their base.
        remedy: What to do where it cannot be read.
    """
    try:
        text = read_text(path, remedy, _LONGEST)
    except InputError as error:
        raise InputError(f"config {error}") from error
    if path.resolve() in above:
        raise InputError(f"config {named(path)}: its `base:` leads back to itself; name another file there")
    mapping = _from_yaml(text, f"config {named(path)}: no YAML") or {}
    if not isinstance(mapping, dict):
        raise InputError(f"config {named(path)}: holds {type(mapping).__name__}, not a mapping of sections to fields")
    if check := getattr(cls, "check_file", None):
        check(mapping, path)
    return _on_base(cls, mapping, path, (*above, path.resolve()))


def _on_base(cls: type, mapping: dict[str, Any], path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A section of the file `path`, and those in it, over what their `base:` names."""
    mapping = dict(mapping)
    for key, section in _sections(cls).items():
        if isinstance(mapping.get(key), dict):
            mapping[key] = _on_base(section, mapping[key], path, above)
    base = mapping.pop("base", None)
    if base is None:
        return mapping
    if not isinstance(base, str):
        raise InputError(f"config {named(path)}: base: {base!r} is no file name; name a YAML file relative to this one")
    return _over(cls, _read(cls, path.parent / base, above), mapping)


def _over(cls: type, low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """`high` over `low`, section by section; a mapping that is a field's value replaces the other whole."""
    merged = low | high
    for key, section in _sections(cls).items():
        if isinstance(low.get(key), dict) and isinstance(high.get(key), dict):
            merged[key] = _over(section, low[key], high[key])
    return merged


def _sections(cls: type) -> dict[str, type]:
    return {f.name: f.type for f in fields(cls) if isinstance(f.type, type) and is_dataclass(f.type)}


def _from_yaml(text: str, complaint: str) -> Any:
    """The value that YAML text gives, or an InputError that begins with the complaint."""
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # PyYAML lets through what Python says of impossible dates, numbers and tags
        reason = "nested too deeply" if isinstance(error, RecursionError) else shown(str(error))
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
            mark = error.problem_mark
            reason = f"{shown(error.problem)} at line {mark.line + 1}, column {mark.column + 1}"
        raise InputError(f"{complaint} ({reason}); fix it, or quote it where it is text") from error


def _decode(kind: Any, value: Any, name: str, where: str) -> Any:
    """The value of a field or section; refuses what draccus would take for something else."""
    given = "null" if value is None else shown(repr(value))
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, dict):
            raise InputError(
                f"{name}: {given} is no mapping; give it fields: {', '.join(f.name for f in fields(kind))}"
            )
        return decode_config(kind, value, f"{name}.", where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple and is_dataclass(inner[0]) and isinstance(value, list):
        return tuple(_decode(inner[0], item, f"{name}.{number}", where) for number, item in enumerate(value))
    kinds = {get_origin(k) or k for k in (inner if origin in (UnionType, Union) else (kind,))}
    if value is None:
        fits, hint = NoneType in kinds, "; leave the field out for its default"
    elif isinstance(value, list | tuple | dict):
        fits, hint = (dict if isinstance(value, dict) else tuple) in kinds, ""
    else:
        fits = not kinds & {tuple, dict} and not (isinstance(value, bool) and kinds & {int, float})
        hint = f"; write [{shown(value)}]" if tuple in kinds and len(shown(value)) < _SHORT else ""
    try:
        decoded = draccus.decode(kind, value) if fits else math.nan
    except draccus.ParsingError:
        decoded = math.nan
    if isinstance(decoded, tuple) and None in decoded:  # which draccus takes for a text
        decoded = math.nan
    if isinstance(decoded, float) and math.isnan(decoded):
        raise InputError(f"{name}: {given} is not {_expected(kind)}{hint}")
    if int in kinds and isinstance(value, int) and abs(value) >= 2**32:
        raise InputError(f"{name}: {given} is too large")
    return decoded


def _expected(kind: object) -> str:
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
    if is_dataclass(kind):
        return "a mapping of fields"
    return {int: "an integer", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}[kind]
