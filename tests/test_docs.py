"""What README and docs link to is there, their examples run, and what they count is right."""

import importlib
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import fit_jax
from fit_jax.errors import InputError

from .documented import PAGES, ROOT, commands

HOOK = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
site_pages = importlib.util.module_from_spec(HOOK)
HOOK.loader.exec_module(site_pages)
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    for target in LINK.findall(page.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, target


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_what_a_page_links_to_is_on_the_site(page):
    added = site_pages.added()
    texts = [site_pages.on_page_markdown(page.read_text())]
    for target in LINK.findall("".join(texts if page.stem != "index" else [*texts, added["contributing.md"]])):
        path = target.partition("#")[0]
        if path and "://" not in path:
            assert path in added or (page.parent / path).resolve().parent == page.parent, target


def test_the_examples_of_the_api_and_of_the_readme_run(tmp_path, monkeypatch):
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
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(block, "README.md", "exec"), space := {})
    assert str(space["model"].folder) == "runs/demo"


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


def _cells(line, edge="│"):
    return [cell.strip() for cell in line.strip(edge).split(edge)]


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
    assert sorted(named) == sorted(["contributing.md", *(page.name for page in (ROOT / "docs").glob("*.md"))])


def test_the_first_hour_has_as_many_commands_as_are_promised():
    page = (ROOT / "docs" / "first_hour.md").read_text()
    block = page[: page.index("```\n\n")] + "```\n"
    count = ("ten", "eleven", "twelve", "thirteen", "fourteen")[len(commands(block)) - 10]
    for text in (page, (ROOT / "docs" / "index.md").read_text(), (ROOT / "README.md").read_text()):
        assert re.findall(r"(\w+) commands\b", text.lower().replace("the fifth command", "")) == [count]


def test_every_single_run_tells_its_version_seeds_and_range():
    section = (ROOT / "docs" / "results.md").read_text().partition("## Single runs")[2].partition("\n## ")[0]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    titles, _, *rows = [_cells(line, "|") for line in section.splitlines() if line.startswith("|")]
    assert len(rows) == 7
    for row in (dict(zip(titles, row)) for row in rows):
        assert row["measured with"] == version or "not of today's code" in row["measured with"]
        assert int(row["seeds"]) == 1
        assert "focus types" in row["range over"]


def test_the_glossary_has_at_most_thirty_words():
    rows = re.findall(r"^\| (?!word \|)", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert 20 < len(rows) <= 30
