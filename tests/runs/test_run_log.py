"""The log of a run."""

import logging
import sys

import pytest

from fit_jax.config import Config
from fit_jax.runs.run_folder import claimed


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(run_dir=str(tmp_path / "run"))


def test_what_libraries_say_goes_into_the_log(config, tmp_path, capsys):
    def work():
        logging.getLogger("absl").error("a remark")
        print("another", file=sys.stderr)
        raise ZeroDivisionError("the cause")

    with pytest.raises(ZeroDivisionError), claimed(config):
        work()
    print("told to the user", file=sys.stderr)
    assert capsys.readouterr().err == "told to the user\n"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert all(words in log for words in ("ERROR absl: a remark\n", "another\n", "Traceback", "the cause"))
