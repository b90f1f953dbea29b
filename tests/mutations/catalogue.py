"""The list of mutations: YAML files beside this one, one a package, and how one is applied."""

from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]


@dataclass(frozen=True)
class Mutation:
    """A fault.

    Attributes:
        name: `package/what-it-does`.
        file: What is changed, from the project's root.
        old: A piece of it that occurs once.
        new: What stands there instead.
        tests: pytest's ids of the tests of which one must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> str:
        """Puts the fault into the tree at `root`; returns what the file held before.

        Raises:
            ValueError: The piece to change is not there, or more than once, or would not change.
        """
        path = root / self.file
        before = path.read_text(encoding="utf-8")
        if before.count(self.old) != 1 or self.old == self.new:
            raise ValueError(f"{self.name}: {self.file} holds {before.count(self.old)} times {self.old!r}")
        path.write_text(before.replace(self.old, self.new), encoding="utf-8")
        return before


def catalogue() -> list[Mutation]:
    """All mutations, package by package."""
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        for name, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            entry = {**entry, "tests": tuple(entry["tests"])}
            found.append(Mutation(name=f"{path.stem}/{name}", **entry))
    return found
