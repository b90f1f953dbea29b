"""The commands that README, CONTRIBUTING and docs state: every line of their `bash` blocks, and code within a line."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_ASSIGNMENTS = r"(?:[A-Z_]+=\S+ )*"
# Code within a line is a command where it begins with one of these and goes on: `gcloud` alone is a name.
_PROGRAM = re.compile(
    rf"{_ASSIGNMENTS}(python|\.venv/bin/python|fit-jax|make|pip|pytest|docker|kubectl|sbatch|taskset|mkdocs|npm|vllm|hf"
    r"|ssh-add|pre-commit|git|source|export|time|tensorboard|eval|awk|tpu_scripts/\w+\.sh) \S"
)
# That of a command, or of several, is none.
_NAME = re.compile(r"(python -m fit_jax\.\w+|python -m fit_jax\.(data|convert) [\w|-]+|fit-jax [\w|]+)$")
# What a reader puts something of their own in place of, and what these tests put there.
_PLACEHOLDERS = {
    "configs/NAME.yaml": "configs/demo.yaml",
    "/path/to/data": "data",
    "USER/NAME": "ann/demo",
    "RUN2": "runs/demo",
    "RUN": "runs/demo",
    "OURS": "ours",
    "PEFT": "peft",
    "HF": "base",
    "FOLDER": "base",
    "FILE": "text.txt",
    "TABLE": "tickets.csv",
    "DATA": "data",
    "C": "configs/demo.yaml",
    "E": "configs/experiments/demo.yaml",
}


class Command(NamedTuple):
    """A command as it is run, with what its placeholders stand for here.

    Attributes:
        text: The command, without a comment.
        exports: For a script, the lines of its block before it that set variables.
    """

    text: str
    exports: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """The command without the variables that are set before it, `fit-jax NAME` as `python -m fit_jax.NAME`."""
        return re.sub(r"^fit-jax (?=\w)", "python -m fit_jax.", re.sub(f"^{_ASSIGNMENTS}", "", self.text))

    @property
    def words(self) -> list[str]:
        """What it calls and its arguments."""
        return shlex.split(self.called)


def commands(page: str) -> list[Command]:
    """The commands of a page's text in their order."""
    found = []
    for language, block in _FENCE.findall(page):
        lines = _lines(block) if language == "bash" else re.findall(r"^\$ (.*)$", block, re.MULTILINE)
        exports: tuple[str, ...] = ()
        for line in lines:
            line = _filled(line)
            found.append(Command(line, exports if line.startswith("tpu_scripts/") else ()))
            if line.startswith("export "):
                exports += (line,)
    for span in _SPAN.findall(_FENCE.sub("", page)):
        line = " ".join(span.replace("\\|", "|").split())
        if _PROGRAM.match(line) and not _NAME.match(line):
            found.append(Command(_filled(line)))
    return found


def hidden_commands(page: str) -> list[str]:
    """Lines of other blocks, fenced or indented, that begin like commands, and so would not be run."""
    fenced = [line for language, block in _FENCE.findall(page) if language != "bash" for line in block.splitlines()]
    indented = re.findall(r"(?<=\n\n) {4}(.*)$", _FENCE.sub("", page), re.MULTILINE)
    return [line for line in (*fenced, *indented) if _PROGRAM.match(line)]


def _lines(block: str) -> list[str]:
    """The commands of a block, those of several lines whole."""
    block = block.replace("\\\n", " ")
    return [match[0] for match in re.finditer(r"^\S.*<<'(\w+)'\n(?:.*\n)*?\1$|^[^\s#].*$", block, re.MULTILINE)]


def _filled(line: str) -> str:
    """A command without its comment and with something in place of each placeholder; optional parts are taken."""
    if "\n" in line:
        return line
    line = re.sub(r"\s+# .*", "", line).strip()
    line = re.sub(r" {2,}", " ", line)
    line = re.sub(r" \[(-[^\]]*|[A-Z0-9]+)\]", r" \1", line)
    for name, here in _PLACEHOLDERS.items():
        line = re.sub(rf"(?<![\w./-]){re.escape(name)}(?![\w/.=-])", here, line)
    return re.sub(r"(\w+)\|\w+", r"\1", line)


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands(page.read_text(encoding="utf-8"))))
