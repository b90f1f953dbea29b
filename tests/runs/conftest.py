"""Settings of all tests of this folder, and the store of those of runs behind a URL."""

from pathlib import Path

import pytest

from .shelf import ROOT, register


@pytest.fixture(autouse=True)
def _strict(no_silent_broadcasting):
    """Runs are computed as they are for users, except for silent broadcasting, which is an error."""


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    """The folder of the store's objects."""
    register()
    root = tmp_path / "shelf"
    root.mkdir()
    monkeypatch.setenv(ROOT, str(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return root
