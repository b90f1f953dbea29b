"""docs/own_data_reference.md is what the code says, and says something of every field."""

import importlib.util
from pathlib import Path

import pytest

from fit_jax.config import TaskConfig
from fit_jax.data.own_data import FeatureConfig, OwnData
from fit_jax.options import field_texts

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_what_the_program_writes():
    spec = importlib.util.spec_from_file_location("own_data_reference", DOCS / "own_data_reference.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    assert program.PAGE == DOCS / "own_data_reference.md"
    assert program.PAGE.read_text(encoding="utf-8") == program.page(), "run python docs/own_data_reference.py"


@pytest.mark.parametrize("cls", [OwnData, FeatureConfig, TaskConfig])
def test_every_field_is_explained(cls):
    page = (DOCS / "own_data_reference.md").read_text(encoding="utf-8")
    for f in field_texts(cls):
        assert len(f.about.split()) >= 3, f.name
        assert f"| `{f.name}` |" in page
