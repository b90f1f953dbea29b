"""The page as a folder that Hugging Face Spaces run: its program, what it needs, and the models."""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import requires, version
from pathlib import Path

import fit_jax
from fit_jax.api import FocusModel
from fit_jax.errors import InputError, cannot_write
from fit_jax.files import make_folder, write_text
from fit_jax.foreign import exists, named

# Examples of each split that a Space holds: those that the page offers.
_EXAMPLES = 25

# The weights, which a Space takes through Git LFS alone.
_LARGE = "".join(f"{name} filter=lfs diff=lfs merge=lfs -text\n" for name in ("run*/**/d/*", "*.safetensors", "*.bin"))

_APP = '''"""Asks the models of this folder; made by `fit-jax playground --export`."""

import os
from pathlib import Path

os.chdir(Path(__file__).parent)  # from which the runs are named

import fit_jax  # noqa: E402  (the copy in this folder)
from fit_jax.playground.app import look, page  # noqa: E402

models = {{
{models}
}}

if __name__ == "__main__":
    page(models).launch(**look())
'''

_README = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
pinned: false
---

# {title}

A language model tuned to follow "focus on this, ignore that". `app.py` starts the page, `run*` are the run folders
that it asks, each with at most {examples} texts of every split of its data, and `fit_jax` is the source of the program
(Apache-2.0).

To try it here: `pip install -r requirements.txt gradio=={gradio}` and `python app.py`.
"""


def write_space(folder: Path, models: Sequence[tuple[str, FocusModel]]) -> None:
    """Writes the folder.

    Args:
        folder: The new folder.
        models: What each is called on the page, and the model.

    Raises:
        InputError: The folder is there already, or cannot be written.
    """
    tuned = {model.folder: model for _, model in models if model.step}
    if not tuned:
        raise InputError("--export: checkpoint 0 is the model before tuning; export one that was trained")
    if exists(folder):
        raise InputError(f"--export {named(folder)}: is there already; name a new folder")
    make_folder(folder)
    try:
        _fill(folder, models, {path: f"run{number}" for number, path in enumerate(tuned, start=1)})
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise cannot_write(folder, error) from error
        raise


def _fill(folder: Path, models: Sequence[tuple[str, FocusModel]], places: Mapping[Path, str]) -> None:
    for _, model in models:
        if model.step:
            model.copy_to(folder / places[model.folder], examples=_EXAMPLES)
    lines = "\n".join(
        f'    {name!r}: fit_jax.load("{places[model.folder]}"{"" if model.step else ", 0"}),' for name, model in models
    )
    readme = _README.format(
        title=re.sub(r"[^\w .-]", " ", " and ".join(name for name, _ in models)),
        gradio=version("gradio"),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        examples=_EXAMPLES,
    )
    needed = [line for line in requires("fit_jax") or () if "extra ==" not in line]
    write_text(folder / "app.py", _APP.format(models=lines))
    write_text(folder / "README.md", readme)
    write_text(folder / "requirements.txt", "".join(f"{line}\n" for line in needed))
    write_text(folder / ".gitattributes", _LARGE)
    source = Path(fit_jax.__file__).parent
    shutil.copytree(source, folder / "fit_jax", ignore=shutil.ignore_patterns("__pycache__"))
