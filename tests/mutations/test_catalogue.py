"""Every mutation can still be applied: its piece of text stands once in its file, and its tests are there."""

import re

import pytest

from tests.mutations.catalogue import ROOT, catalogue

PACKAGES = (
    "focus",
    "data",
    "models",
    "training",
    "methods",
    "evaluation",
    "experiment",
    "runs",
    "planning",
    "conversion",
    "playground",
    "files",
    "docs",
)


@pytest.mark.parametrize("mutation", catalogue(), ids=lambda m: m.name)
def test_a_mutation_applies_once_and_names_tests_that_exist(mutation, tmp_path):
    copy = tmp_path / mutation.file
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text((ROOT / mutation.file).read_text())
    before = mutation.apply(tmp_path)
    assert copy.read_text() != before
    if copy.suffix == ".py":
        compile(copy.read_text(), str(copy), "exec")
    assert mutation.tests
    for test in mutation.tests:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text()
        assert not name or re.search(rf"^def {re.escape(name.partition('[')[0])}\(", text, flags=re.MULTILINE), test


def test_every_package_has_mutations_and_there_are_eighty():
    names = [mutation.name for mutation in catalogue()]
    assert len(set(names)) == len(names) >= 80
    assert {name.partition("/")[0] for name in names} == set(PACKAGES)
