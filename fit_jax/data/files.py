"""Finding the official files of a data set."""

import os
from pathlib import Path

from fit_jax.config import TaskConfig
from fit_jax.errors import InputError


def data_folder(config: TaskConfig, name: str) -> Path:
    """The folder `name` inside `config.data_dir`, or inside `FIT_JAX_DATA` where that is null.

    Raises:
        InputError: Neither is set, or the folder is not there.
    """
    root = config.data_dir or os.environ.get("FIT_JAX_DATA")
    if not root:
        raise InputError(
            f"task {config.name}: needs the folder {name}/ of official files; set FIT_JAX_DATA or --task.data_dir "
            "to the folder that holds it"
        )
    folder = Path(root).expanduser() / name
    if not folder.is_dir():
        raise InputError(
            f"task {config.name}: {folder} is no folder; set FIT_JAX_DATA or --task.data_dir to its parent"
        )
    return folder
