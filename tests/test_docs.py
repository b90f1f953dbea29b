"""What README and docs tell people to type is taken by the commands, and what they link to is there."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

import fit_jax
from fit_jax.config import load_config
from fit_jax.errors import InputError
from fit_jax.experiment.config import parse_experiment
from fit_jax.options import Parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "tpu_scripts").glob("*.md")),
)
# A line of a block, or what stands between backticks within a line.
PLACES = re.compile(
    r"^(?: {4}|\$ )?(?:\S+=\S+ )*(?:\S*bin/)?(python -m [^`\n]*)$|`(?:\S+=\S+ )*(python -m [^`]*)`", re.MULTILINE
)
# What a reader puts a name of their own in place of (RUN, C, NAME.yaml), a choice (a|b) or a part that may be left out.
PLACEHOLDER = re.compile(r"^[A-Z][A-Z_]*$|NAME|[|\[\]…]|\.\.\.")


def commands(page: Path) -> set[tuple[str, tuple[str, ...]]]:
    """Module and arguments of every command of a page that stands there in full."""
    found = set()
    for line in PLACES.findall(page.read_text().replace("\\\n", " ")):
        words = shlex.split("".join(line), comments=True)[2:]
        if words[0].split(".")[0] in ("fit_jax", "benchmarks", "tests") and not any(map(PLACEHOLDER.search, words)):
            found.add((words[0], tuple(words[1:])))
    return found


COMMANDS = sorted({command for page in PAGES for command in commands(page)})


def test_the_pages_hold_commands():
    assert len(COMMANDS) > 30
    assert ("fit_jax.train", ("--config", "configs/ss_small.yaml")) in COMMANDS
    assert {page.name for page in PAGES} >= {"README.md", "CONTRIBUTING.md", "own_data.md"}


@pytest.mark.parametrize(
    ("module", "arguments"), COMMANDS, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_command_is_taken(module, arguments, monkeypatch):
    """Its options exist and have fitting values, and the configs that it names hold what configs may hold."""
    monkeypatch.chdir(ROOT)
    if not module.startswith("fit_jax."):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()
        return
    if module in ("fit_jax.data", "fit_jax.experiment", "fit_jax.playground"):
        module += ".__main__"
    parser = Parser(prog="some")
    importlib.import_module(module).add_options(parser)
    if not arguments:  # the name of the command alone
        return
    given = parser.parse_args(list(arguments))
    if getattr(given, "config", None):
        (parse_experiment if "experiment" in module else load_config)(given.config)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, target


def test_the_examples_of_the_api_run(tmp_path, monkeypatch):
    """In the order in which they stand, the demo cut short."""
    monkeypatch.chdir(tmp_path)
    tiny = {
        "train.steps": 2,
        "train.batch_size": 8,
        "task.train_examples": 60,
        "model.layers": 1,
        "model.width": 32,
        "evaluation.examples": 4,
    }
    tune = fit_jax.tune
    monkeypatch.setattr(fit_jax, "tune", lambda *given, **more: _tuned(tune, tiny, *given, **more), raising=False)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), {})
    assert (tmp_path / "runs" / "orders" / "evaluations" / "splits-low" / "index.html").exists()


@pytest.mark.parametrize("commands", [3, pytest.param(5, marks=pytest.mark.slow)], ids=["up to inspect", "all"])
def test_the_walk_through_own_data_runs(commands, tmp_path, monkeypatch, capsys):
    """Its code and commands in their order, training cut short, print the rows of tables and notes that it shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    small = ["--tokenizer.vocab_size", "300", "--model.layers", "1", "--model.width", "32", "--train.steps", "1"]
    small += ["--train.batch_size", "8", "--train.sequence_length", "128", "--evaluation.batch_size", "8"]
    small += ["--evaluation.splits", "[low]", "--evaluation.examples", "2", "--evaluation.validation_examples", "2"]
    small += ["--evaluation.paraphrases", "[train]", "--evaluation.paraphrases_each", "1"]
    tiny = {"data": small[:2], "train": small}
    walk = (ROOT / "docs" / "own_data.md").read_text().partition("## A real table")[0]
    done, printed = [], ""
    for language, block in re.findall(r"```(\w*)\n(.*?)```", walk, re.DOTALL):
        if language == "python":
            exec(compile(block, "docs/own_data.md", "exec"), {})
        for line in re.findall(r"^python -m fit_jax\.(.*)", block, re.MULTILINE):
            module, *arguments = shlex.split(line)
            if len(done) == commands:
                break
            cut = tiny.get(module, []) if arguments[0] != "describe" else []
            importlib.import_module(f"fit_jax.{module}{'.__main__' * (module == 'data')}").main([*arguments, *cut])
            done.append(" ".join([module, *arguments[:1]]))
            printed += capsys.readouterr().out
    every = ["data describe", "data audit", "data inspect", "train --task.name", "steer runs/tickets"]
    assert done == every[:commands]
    assert "<svg" in (tmp_path / "audit.html").read_text()
    assert (tmp_path / "runs" / "tickets" / "report" / "index.html").exists() == (commands == 5)
    rows = [_cells(line) for line in printed.splitlines() if line.startswith("│")]
    for line in walk.splitlines():
        if line.startswith("│") and "..." not in line:
            assert any(_alike(_cells(line), row) for row in rows), line
        if line.startswith("note: "):
            assert line in " ".join(printed.split()), line
    with pytest.raises(InputError) as error:
        importlib.import_module("fit_jax.data.__main__").main(
            ["inspect", "--task", "jsonl", "--task.file", str(_strict(tmp_path)), *tiny["data"]]
        )
    start, _, end = next(line for line in walk.splitlines() if line.startswith("error: ")).partition("...;")
    assert str(error.value).startswith(start.removeprefix("error: "))
    assert str(error.value).endswith(end.strip().replace("tickets.malformed", "strict.malformed"))


def _strict(folder):
    """The description that `describe` wrote, without the fields that forgive."""
    kept = [
        line for line in (folder / "tickets.yaml").read_text().splitlines() if not re.match("trim|ignore|malf", line)
    ]
    (folder / "strict.yaml").write_text("\n".join(kept))
    return Path("strict.yaml")


def _cells(line):
    return [cell.strip() for cell in line.strip("│").split("│")]


def _alike(shown, printed):
    """Whether two rows of a table are the same, except for the last digits of what shuffles measure."""
    if len(shown) != len(printed):
        return False
    measured = re.compile(r"0\.\d{4}")
    return all(
        abs(float(a) - float(b)) < 0.01 if measured.fullmatch(a) and measured.fullmatch(b) else a == b
        for a, b in zip(shown, printed)
    )


def _tuned(tune, tiny, run_dir, config=None, settings=None, **rows):
    return tune(run_dir, config, {**tiny, **(settings or {})}, **rows)


def test_every_page_is_on_the_site():
    named = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


def test_the_glossary_has_at_most_thirty_words():
    rows = re.findall(r"^\| (?!word \|)", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert 20 < len(rows) <= 30
