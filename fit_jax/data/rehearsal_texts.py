"""Texts and conversations of files, for rehearsal and to measure: checked at once, read again when they are wanted."""

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fit_jax.data.malformed import NO_TEXT, Malformed
from fit_jax.data.row_readers import Located, raw_lines
from fit_jax.data.row_stores import JsonlStore, RowStore, open_regular
from fit_jax.errors import InputError
from fit_jax.focus.conversations import EncodedText, TextEncoder
from fit_jax.foreign import is_text, named

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Characters after which a passage of a plain text ends, at the end of a line.
_PASSAGE = 1 << 14


class PassageStore:
    """A plain text as rows with `text`: passages of whole lines; only the place of each is kept."""

    def __init__(self, path: Path) -> None:
        """Reads nothing yet."""
        self._path = path
        self._file = -1
        self._begin = array("q")
        self._end = array("q")

    def scan(self, bad: Malformed) -> Iterator[Located]:
        """The passages in order."""
        self._file = open_regular(self._path)
        length, where = 0, ""
        for here, begin, raw, line in raw_lines(self._path, bad):
            if not length:
                where = here
                self._begin.append(begin)
                self._end.append(begin)
            self._end[-1] = begin + len(raw)
            length += len(line)
            if length >= _PASSAGE:
                yield where, self.row(len(self._begin) - 1)
                length = 0
        if length:
            yield where, self.row(len(self._begin) - 1)

    def row(self, number: int) -> dict[str, str]:
        """Reads a passage from the file again."""
        begin, end = self._begin[number], self._end[number]
        return {"text": os.pread(self._file, end - begin, begin).decode("utf-8-sig", "replace")}


class RehearsalTexts:
    """The texts and conversations of some files, as tokens to learn; none of them is kept in memory.

    A row of JSON Lines is a conversation (`messages`, each with `role` and `content`) or one text (`text`). A plain
    text is cut into passages of whole lines.
    """

    def __init__(self, files: Sequence[str], tokenizer: "PreTrainedTokenizerBase", template: str, field: str) -> None:
        """Reads every row once and checks it.

        Args:
            files: Their paths.
            tokenizer: Of the model.
            template: As in `TokenizerConfig`.
            field: The field of the config that names the files, for messages.

        Raises:
            InputError: A file is missing or empty, or has malformed rows.
        """
        self._encoder = TextEncoder(tokenizer, template)
        self._stores: list[RowStore] = []
        self._first = [0]  # number of the first text of each file, and how many there are in all
        for name in files:
            path, bad, count = Path(name).expanduser(), Malformed("error"), 0
            store = JsonlStore([path]) if path.suffix.lower() == ".jsonl" else PassageStore(path)
            try:
                for where, row in store.scan(bad):
                    if problem := self._problem(row):
                        bad.add(where, problem)
                    count += 1
            except InputError as error:
                raise InputError(f"{field}: {error}") from error
            if bad.count:
                raise InputError(f"{field}: {bad}; fix them or leave them out")
            if not count:
                raise InputError(f"{field}: {named(path)} is empty; name a file with texts or conversations")
            self._stores.append(store)
            self._first.append(self._first[-1] + count)

    def __len__(self) -> int:
        return self._first[-1]

    def encoded(self, numbers: Sequence[int]) -> list[EncodedText]:
        """The texts of some numbers, in their order."""
        rows = [self._row(number) for number in numbers]
        plain = iter(self._encoder.texts([row["text"].strip() for row in rows if not _is_conversation(row)]))
        return [self._encoder.conversation(row["messages"]) if _is_conversation(row) else next(plain) for row in rows]

    def _row(self, number: int) -> Mapping[str, Any]:
        file = bisect_right(self._first, number) - 1
        return self._stores[file].row(number - self._first[file])

    def _problem(self, row: Mapping[str, Any]) -> str | None:
        if _is_conversation(row):
            return self._encoder.problem(row["messages"])
        text = row.get("text")
        if not isinstance(text, str):
            return "no messages and no text"
        if not text.strip():
            return "empty text"
        return None if is_text(text) else f"text holds {NO_TEXT}"


def _is_conversation(row: Mapping[str, Any]) -> bool:
    return row.get("messages") is not None
