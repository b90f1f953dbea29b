"""What README and docs tell people to type is taken by the commands, and what they link to is there."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

import fit_jax
from fit_jax.config import load_config
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
    if given.config:
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


def _tuned(tune, tiny, run_dir, config=None, settings=None, **rows):
    return tune(run_dir, config, {**tiny, **(settings or {})}, **rows)


def test_every_page_is_on_the_site():
    named = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))
