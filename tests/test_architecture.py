"""Imports go one way, each module has its test, nothing stands twice, and tests know what is public alone."""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fit_jax

ROOT = Path(fit_jax.__file__).parent

# The packages and top modules, from the lowest level up (docs/architecture.md). Those of one level are siblings, which
# do not import each other.
LEVELS = (
    {"errors", "signals", "units"},
    {"foreign"},
    {"terminal", "markdown", "html", "user_code"},
    {"tables"},
    {"files", "hub", "plugins", "sums"},
    {"options"},
    {"config_files"},
    {"cli"},
    {"parallel"},
    {"models", "focus", "train_config"},
    {"focus_config"},
    {"config"},
    {"data"},
    {"evaluation", "training"},
    {"methods"},
    {"runs"},
    {"planning", "conversion"},
    {"experiment"},
    {"focus_inputs", "focus_results"},
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


def imported(tree: ast.AST, relative: bool = False) -> Iterator[str]:
    """The modules that a module imports anywhere in it; a name imported from a package may be a module or not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert relative or node.level == 0, "imports are absolute"
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


# Modules without a test file of their name in the mirrored folder, by the file that tests them.
TESTED_IN = {
    "conversion/test_convert.py": "conversion.opened convert",
    "conversion/test_push.py": "push",
    "data/tasks/test_bbq.py": "data.tasks.bbq_source",
    "data/test_array_record.py": "data.builders data.dataset_cards data.lazy_examples",
    "data/test_balance.py": "data.summary",
    "data/test_describing.py": "data.column_names data.draft data.draft_features data.draft_label data.draft_text",
    "data/test_loader.py": "data.item_stream data.sampler",
    "data/test_own_data.py": "data.malformed data.own_table data.row_stores data.tasks.jsonl",
    "data/test_own_rows.py": "data.own_features",
    "data/test_rehearsal.py": "data.rehearsal_texts",
    "data/test_splits.py": "data.partition",
    "data/test_tasks.py": "data.task data.text data.tasks.annotated data.tasks.demo data.tasks.shans data.tasks.smnli",
    "evaluation/test_decoy_evaluation.py": "evaluation.asked_again focus.decoy_text",
    "evaluation/test_matching.py": "data.tasks.bbq_nlg",
    "evaluation/test_report.py": "evaluation.radar",
    "evaluation/test_result_tables.py": "evaluation.result_summary",
    "experiment/test_runner.py": "experiment.answers experiment.cells",
    "focus/test_bounded_templates.py": "focus.template_charges",
    "focus/test_instructions.py": "focus.far_paraphrases",
    "focus/test_prompts.py": "focus.example",
    "focus/test_real_tokenizers.py": "focus.raw_tokenizers",
    "focus/test_tokenizers.py": "focus.guarded_tokenizer",
    "methods/test_few_shot.py": "methods.training_free",
    "methods/test_group_dro.py": "methods.groups",
    "methods/test_steering.py": "methods.activation_addition methods.instruction_marks methods.pasta methods.spotlight",
    "methods/test_two_stages.py": "methods.dfr methods.jtt methods.plain",
    "models/test_adapters.py": "models.adapter_config models.lora_config",
    "models/test_decoder.py": "models.attention models.block models.config models.layers models.partition",
    "models/test_delta_rule.py": "models.token_paths",
    "models/test_families.py": "models.families.* models.export",
    "models/test_layer_kinds.py": "models.layer_inputs models.limits",
    "models/test_linear_attention.py": "models.linear_config",
    "models/test_prefix_attention.py": "models.prefix_attention_* models.prefix_blocks",
    "models/test_rope.py": "models.kv_cache models.rope_config",
    "models/test_weights.py": "models.model_folder models.quantize",
    "parallel/test_mesh.py": "parallel.config",
    "planning/test_paper_configs.py": "data.vocabulary methods.zero_shot",
    "planning/test_plan.py": "planning.compiled",
    "planning/test_tiles.py": "models.tile_table",
    "playground/test_in_browser.py": "playground.app playground.space",
    "playground/test_question.py": "playground.models playground.views",
    "runs/test_parts.py": "evaluation.mixture_card evaluation.run_report",
    "runs/test_methods_on_meshes.py": "methods.fit methods.group_balanced methods.method methods.sft_y*",
    "runs/test_remote_folder.py": "runs.remote_store",
    "runs/test_run_folder.py": "runs.run",
    "runs/test_trainer.py": "training.stream",
    "test_api.py": "focus_model focus_results",
    "test_cli.py": "errors",
    "test_commands.py": "evaluate train",
    "test_config.py": "focus_config train_config",
    "training/test_checkpoint.py": "training.checkpoint_sums training.state",
    "training/test_loop.py": "training.objective",
}  # fmt: skip
TESTS = Path(__file__).parent


def own_test(name: str) -> Path:
    """`tests/data/test_loader.py` for `fit_jax.data.loader`."""
    *folders, stem = name.split(".")[1:]
    return TESTS.joinpath(*folders, f"test_{stem}.py")


def by_name(name: str) -> set[str]:
    """What a module finds by its name when it is asked for: the API, the members of a registry, kernels."""
    if name == "fit_jax":
        return {"fit_jax.api"}
    if name == "fit_jax.models.prefix_attention":
        return {f"{name}_{platform}" for platform in ("gpu", "hopper", "tpu")}
    if name in ("fit_jax.data.tasks", "fit_jax.methods", "fit_jax.models.families"):
        return {other for other in MODULES if other.startswith(f"{name}.")}
    return set()


def reached(test: Path) -> set[str]:
    """The modules that a test file imports or names, and those that these import in turn.

    A family, a method, a task and a command go by the name of their module.
    """
    found: set[str] = set()
    text = test.read_text()
    ahead = set(imported(ast.parse(text), relative=True))
    ahead |= {name for name in ALONE if re.search(rf"\b{name.rpartition('.')[2]}\b", text)}
    while ahead:
        found |= ahead
        ahead = {other for name in ahead & MODULES.keys() for other in IMPORTS[name] | by_name(name)} - found
    return found


ALONE = {n for n, path in MODULES.items() if path.stem not in ("__init__", "__main__") and not own_test(n).exists()}
NAMED = {
    test: {name for one in names.split() for name in ALONE if fnmatch(name, f"fit_jax.{one}")}
    for test, names in TESTED_IN.items()
}


def test_every_module_has_a_test_file_of_its_name_or_is_named_with_the_one_that_tests_it():
    named = [name for names in NAMED.values() for name in names]
    assert sorted(named) == sorted(ALONE)
    patterns = [one for names in TESTED_IN.values() for one in names.split()]
    assert [one for one in patterns if not any(fnmatch(name, f"fit_jax.{one}") for name in ALONE)] == []


@pytest.mark.parametrize("test", sorted(TESTED_IN))
def test_a_file_named_for_a_module_reaches_it(test):
    assert sorted(NAMED[test] - reached(TESTS / test)) == []


SAME_LINES = 6  # so many in two places are one thing that stands twice


def counted_lines(text: str) -> list[str]:
    """The lines of a module that say something: no blanks, comments, imports, or closing brackets alone."""
    statements = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom))
    imports = {line for node in statements for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [line for n, line in numbered if n not in imports and not re.fullmatch(r"(#.*|[\])}]+[,:]?)?", line)]


def standing_twice(texts: dict[str, str]) -> list[str]:
    """Where lines of a module stand another time, here or in another one."""
    first: dict[tuple[str, ...], str] = {}
    found = []
    for name, text in texts.items():
        lines = counted_lines(text)
        for start in range(len(lines) - SAME_LINES + 1):
            piece = tuple(lines[start : start + SAME_LINES])
            if piece in first:
                found.append(f"{name} and {first[piece]}: {piece[0]}")
            first.setdefault(piece, name)
    return found


def test_nothing_stands_twice():
    assert standing_twice({name: path.read_text() for name, path in MODULES.items()}) == []


def test_what_stands_twice_is_seen():
    lines = [f"step{n}(a,\n)" for n in range(SAME_LINES)]
    body = "\n\n# as above\n".join(lines)
    moved = "if x:\n    from b import (\n        c,\n    )\n" + "\n".join(
        f"    step{n}(a,\n    )" for n in range(SAME_LINES)
    )
    assert standing_twice({"a": body, "b": moved}) == ["b and a: step0(a,"]
    assert standing_twice({"a": f"{body}\n{body}"}) == ["a and a: step0(a,"]
    assert standing_twice({"a": body, "b": moved.replace("step3", "other")}) == []


def patched_privates(text: str) -> list[str]:
    """What a test sets by its private name, but for that of a foreign package which it imports."""
    tree, found = ast.parse(text), []
    foreign = {name.partition(".")[0] for name in imported(tree, relative=True)} - {"fit_jax", "tests"}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        names = [a.value for a in call.args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if names and re.search(r"\b(setattr|patch(\.object)?)$", ast.unparse(call.func)):
            owner = ast.unparse(call.args[0]).strip("'").partition(".")[0]
            if owner not in foreign and re.search(r"(^|\.)_(?!_)", names[0]):
                found.append(f"line {call.lineno}: {names[0]}")
    return found


def test_tests_set_nothing_private():
    found = {path.name: patched_privates(path.read_text()) for path in sorted(TESTS.rglob("*.py"))}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ('monkeypatch.setattr(sums, "_SETTLED", -1)', ["line 3: _SETTLED"]),
        ('setattr(made, "_WINDOW", 7)', ["line 3: _WINDOW"]),
        ('mock.patch.object(sums.Digests, "_known")', ["line 3: _known"]),
        (
            'mock.patch("fit_jax.runs.trainer._train_stage", side_effect=x)',
            ["line 3: fit_jax.runs.trainer._train_stage"],
        ),
        ('mock.patch("fit_jax.playground.__main__.is_installed")', []),
        ('monkeypatch.setattr(os, "_exit", sys.exit)', []),
    ],
)
def test_what_tests_set_is_seen(line, seen):
    assert patched_privates(f"import os\nfrom fit_jax import sums\n{line}") == seen
