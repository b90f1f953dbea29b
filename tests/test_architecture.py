"""Imports go one way: every package imports from lower levels alone, and no two modules import each other."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fit_jax

ROOT = Path(fit_jax.__file__).parent

# The packages and top modules, from the lowest level up (docs/architecture.md). Those of one level are siblings, which
# do not import each other.
LEVELS = (
    {"errors", "signals"},
    {"foreign"},
    {"terminal", "markdown", "html"},
    {"tables"},
    {"files", "hub", "plugins", "sums"},
    {"options"},
    {"config_files"},
    {"cli"},
    {"parallel"},
    {"models", "focus", "train_config"},
    {"config"},
    {"data"},
    {"evaluation", "training"},
    {"methods"},
    {"runs"},
    {"planning", "conversion"},
    {"experiment"},
    {"focus_results"},
    {"focus_model"},
    {"train", "evaluate", "steer", "convert", "push", "plan", "api", "data.__main__", "experiment.__main__"},
    {"playground"},
    {"playground.__main__"},
)
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}
LEVEL["fit_jax"] = -1  # its version, which all may read

# What a package does without, besides what stands above it.
WITHOUT = {"focus": {"jax", "flax", "fit_jax.parallel"}, "data": {"flax", "fit_jax.models", "fit_jax.parallel"}}


def module_name(path: Path) -> str:
    """`fit_jax.data.tasks` for `data/tasks/__init__.py`."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in ROOT.rglob("*.py")}


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a module imports anywhere in it; a name imported from a package may be a module or not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            whole = str(node.module)
            yield from (name if (name := f"{whole}.{a.name}") in MODULES else whole for a in node.names)


IMPORTS = {name: set(imported(ast.parse(path.read_text()))) for name, path in MODULES.items()}
IMPORTS["fit_jax"] = set()  # it names the API, and loads it when it is asked for


def package(name: str) -> str:
    """`data` for `fit_jax.data.tasks`; a command that stands in a package is one of its own."""
    if name.endswith(".__main__"):
        return name.removeprefix("fit_jax.")
    return name.split(".")[1] if "." in name else name


def test_every_package_has_a_level():
    assert {package(name) for name in MODULES} == LEVEL.keys()


@pytest.mark.parametrize("above", sorted(LEVEL))
def test_a_package_imports_from_lower_levels_alone(above):
    edges = ((name, other) for name in MODULES for other in IMPORTS[name] & MODULES.keys() if package(name) == above)
    wrong = [
        f"{name} imports {other}"
        for name, other in edges
        if package(other) != above and LEVEL[package(other)] >= LEVEL[above]
    ]
    assert wrong == []


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_a_package_does_without(name):
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        if package(module) == name
        for other in IMPORTS[module]
        if any(f"{other}.".startswith(f"{banned}.") for banned in WITHOUT[name])
    ]
    assert wrong == []


def test_the_playground_knows_the_api_alone():
    """Of all that computes; the frame of commands, what sets JAX up for them, errors and files serve every module."""
    known = {"fit_jax", "api", "playground", "cli", "options", "errors", "files", "foreign", "html", "parallel"}
    assert {
        package(o) for name in MODULES if package(name).startswith("playground") for o in IMPORTS[name] & MODULES.keys()
    } & {package(name) for name in MODULES} <= known


def test_no_modules_import_each_other():
    try:
        TopologicalSorter({name: IMPORTS[name] & MODULES.keys() for name in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle of imports: {' -> '.join(error.args[1])}")
