"""Settings of all tests of this folder."""

import pytest


@pytest.fixture(autouse=True)
def _strict(no_silent_broadcasting):
    """Runs are computed as they are for users, except for silent broadcasting, which is an error."""
