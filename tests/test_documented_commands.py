"""Every command that README, CONTRIBUTING and docs state runs, or stands among the exceptions with its reason."""

import importlib
import io
import subprocess
import tomllib
from contextlib import nullcontext

import pytest

from fit_jax.config import load_config
from fit_jax.experiment.config import parse_experiment
from fit_jax.options import Parser

from .conversion import hub as stand_in
from .documented import COMMANDS, PAGES, ROOT, Command, hidden_commands
from .documented_runs import MODULES, Place, way_of

# By the beginning of the command: why it cannot run in a test.
EXCEPTIONS = {
    "git clone": "REPOSITORY is for the reader to fill in",
    "source .venv": "changes the reader's shell alone",
    "pip install": "installs into the environment of these tests; tests/test_wheel.py installs the package elsewhere",
    "npm install": "installs from a registry",
    "pre-commit": "changes the clone, and needs pre-commit",
    "make test": "is the run of these tests",
    "make format": "rewrites the sources",
    "make demo ARGS='...'": "leaves the options open",
    "taskset": "another command on chosen cores",
    "time ": "another command with its time",
    "pytest": "runs tests that are tests themselves",
    ".venv/bin/python -m pytest": "runs tests that are tests themselves",
    "mkdocs build": "needs mkdocs; a job of CI runs it",
    "python -m benchmarks.": "measures for minutes to hours on idle cores",
    "python -m tests.": "looks for faults for minutes to hours; tests/faults and tests/mutations try a little of it",
    "tensorboard": "serves until it is interrupted",
    "python -m fit_jax.playground": "serves until it is interrupted, and needs Gradio; tests/playground does so",
    "python -m fit_jax.evaluate runs/demo --inside": "needs a model that follows instructions; see tests/runs",
    "python -m fit_jax.train --task.name weather": "needs the package of that page; tests/test_plugins.py installs it",
    "eval": "changes the reader's shell; tests/test_cli.py asks for completions",
    "python - <<": "needs the hub; tests/end_to_end/test_first_hour.py runs it with a stand-in",
    "docker": "needs Docker and a registry; tests/test_wheel.py checks the Dockerfile and what it copies",
    "kubectl": "needs a cluster",
    "sbatch": "needs SLURM",
    "ssh-add": "needs a key of Google's cloud",
    "hf auth login": "needs an account of the hub",
    "vllm": "needs vLLM, which the page says this project has not",
    "python convert_hf_to_gguf.py": "needs a clone of llama.cpp, which the page says this project has not",
    "llama-server": "needs llama.cpp, which the page says this project has not",
}


def exception(command: Command) -> str | None:
    """The beginning in the table that a command stands under."""
    return max((begin for begin in EXCEPTIONS if command.called.startswith(begin)), key=len, default=None)


RUN = [command for command in COMMANDS if not exception(command)]


def test_the_pages_hold_commands():
    texts = {command.text for command in RUN}
    assert len(texts) > 50
    assert {"make demo", "python -m fit_jax.train --config configs/ss_small.yaml", "tpu_scripts/create.sh"} <= texts
    assert {page.name for page in PAGES} >= {"README.md", "CONTRIBUTING.md", "own_data.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_stands_where_it_is_not_looked_for(page):
    assert hidden_commands(page.read_text(encoding="utf-8")) == []


def test_every_command_runs_or_is_excepted_and_every_exception_is_of_a_command():
    assert [command.text for command in RUN if not way_of(command)] == []
    assert set(EXCEPTIONS) == {exception(command) for command in COMMANDS} - {None}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.text)
def test_a_command_is_taken(command, monkeypatch):
    """Its options exist and have fitting values, and the configs, targets, tests and extras that it names are there."""
    monkeypatch.chdir(ROOT)
    words = command.words
    if words[0] == "make" and "..." not in words[-1]:
        subprocess.run(["make", "--dry-run", *words[1:]], check=True, capture_output=True)
    if words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert {word[2:-1] for word in words if word.startswith(".[")} <= set(extras)
    if "pytest" in words:
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
    if words[:2] != ["python", "-m"]:
        return
    module, arguments = words[2], words[3:]
    name = module.removeprefix("fit_jax.")
    if name == module:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()
    elif "weather" not in arguments:  # of a package that is not installed here
        parser = Parser(prog="some")
        importlib.import_module(MODULES.get(name, module)).add_options(parser)
        given = parser.parse_args(arguments)
        if getattr(given, "config", None):
            (parse_experiment if name == "experiment" else load_config)(given.config)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("clone"))


def marked(command: Command):
    way = way_of(command)
    return pytest.param(command, marks=pytest.mark.slow if way is None or way.slow else ())


@pytest.mark.parametrize("command", map(marked, RUN), ids=[command.text for command in RUN])
def test_a_command_runs(command, place, machine, request, monkeypatch):
    way = way_of(command)
    data = request.getfixturevalue("data_dir") if way and way.official else place.folder / "data"
    monkeypatch.setenv("FIT_JAX_DATA", str(data))
    monkeypatch.chdir(place.folder)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    pushes = command.called.startswith("python -m fit_jax.push")
    with stand_in.serving() if pushes else nullcontext() as hub:
        if hub:
            monkeypatch.setenv("HF_TOKEN", stand_in.TOKEN)
            stand_in.use(monkeypatch, hub.address)
        place.run(command)
    assert not hub or hub.commits
