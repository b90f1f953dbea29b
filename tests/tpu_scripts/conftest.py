from pathlib import Path

import pytest

from .stub_tools import Stubs


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs.install(tmp_path / "stubs")
