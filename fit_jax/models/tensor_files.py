"""Tensors in safetensors files: read slice by slice, written block by block, never all in memory."""

import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from fit_jax.errors import InputError, cannot_write
from fit_jax.foreign import check_regular, listed, named, read_object, shown

# Files that an index may name: none outside its folder, whatever the name says.
_FILE_NAME = re.compile(r"[^/\\\x00-\x1f\ud800-\udfff]+\.safetensors")
_LONGEST_NAME = 255

INDEX = "model.safetensors.index.json"
DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "I32": np.dtype(np.int32),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}
# Threads that write a file at once, each a tensor.
_WRITERS = 2

# Brings the entries of a tensor when called: blocks of its rows in order, each used before the next is asked for.
TensorBlocks = Callable[[], Iterable[np.ndarray]]

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# Dtypes whose numbers mean something with scales alone; safetensors hands them to no array of numpy.
CODES = (DTYPES["F8_E4M3"], DTYPES["F8_E8M0"])


class Tensor(NamedTuple):
    """What is known of a stored tensor without reading it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    file: Path


class TensorFiles:
    """The tensors of a folder with one or many safetensors files. Reads without holding more than what is asked for."""

    def __init__(self, folder: Path, renamed: Callable[[str], str | None] = lambda name: name) -> None:
        """Opens every file and reads the headers.

        Args:
            folder: Where the files lie.
            renamed: The name that a stored tensor goes by; None of one that is left out.

        Raises:
            InputError: There is no such file, one is truncated or corrupt, the index names files or tensors that are
                not there, or a tensor's dtype is no known one.
        """
        self.folder = folder
        self._readers: dict[Path, Any] = {}
        self._maps: dict[Path, tuple[np.ndarray, dict[str, Any]]] = {}
        self.tensors: dict[str, Tensor] = {}
        self._stored: dict[str, tuple[Path, str, np.dtype]] = {}  # the file, and the name there
        found = set()
        for file in _listed(folder):
            try:
                reader = safe_open(file, framework="numpy")
                for stored in reader.keys():  # noqa: SIM118  (a reader is no mapping)
                    found.add(stored)
                    if (name := renamed(stored)) is None:
                        continue
                    view = reader.get_slice(stored)
                    if view.get_dtype() not in DTYPES:
                        raise InputError(
                            f"{named(file)}: {shown(name)} has dtype {view.get_dtype()}; known: {', '.join(DTYPES)}"
                        )
                    self.tensors[name] = Tensor(tuple(view.get_shape()), DTYPES[view.get_dtype()], file)
                    self._stored[name] = file, stored, self.tensors[name].dtype
            except (SafetensorError, OSError) as error:
                raise InputError(
                    f"{named(file)}: corrupt or truncated ({shown(str(error))}); fetch the file again"
                ) from error
            self._readers[file] = reader
        missing = sorted(set(_indexed_names(folder)) - found)
        if missing:
            raise InputError(
                f"{named(folder / INDEX)}: names tensors that no file holds: {listed(map(shown, missing))}"
            )

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """The entries of a tensor in these slices (none: all of it), in the stored dtype: a view of the file's pages.

        Nothing is copied until the entries are used, since the first touch of new memory costs more than the copy.
        """
        file, stored, dtype = self._stored[name]
        found = self._mapped(file, stored)[index]
        return np.array(found) if dtype in CODES else found

    def _mapped(self, file: Path, name: str) -> np.ndarray:
        if file not in self._maps:
            content = np.memmap(file, np.uint8, "r")
            begin = 8 + int.from_bytes(content[:8].tobytes(), "little")  # the header, which safetensors has checked
            self._maps[file] = content[begin:], json.loads(content[8:begin].tobytes())
        content, header = self._maps[file]
        start, end = header[name]["data_offsets"]
        return content[start:end].view(DTYPES[header[name]["dtype"]]).reshape(header[name]["shape"])


def write_tensors(
    folder: Path,
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    values: Iterator[TensorBlocks],
    most_bytes: int,
) -> None:
    """Writes tensors into files of about `most_bytes`, with an index where there are several.

    Args:
        folder: Existing folder.
        tensors: Shape and dtype of every tensor, in the order of `values`.
        values: What brings the entries of each; called from several threads, a few tensors at a time.
        most_bytes: Size at which another file is begun.

    Raises:
        InputError: The disk is full, or the folder may not be written to.
    """
    try:
        _write_files(folder, tensors, values, most_bytes)
    except OSError as error:
        raise cannot_write(named(folder), error) from error


def _write_files(
    folder: Path,
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    values: Iterator[TensorBlocks],
    most_bytes: int,
) -> None:
    files = _divide(tensors, most_bytes)
    place = {}
    with ThreadPoolExecutor(_WRITERS) as writers:
        for number, names in enumerate(files, start=1):
            name = "model.safetensors" if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
            _write_file(folder / name, {n: tensors[n] for n in names}, values, writers)
            place |= dict.fromkeys(names, name)
    if len(files) > 1:
        index = {"metadata": {"total_size": sum(map(_size, tensors.values()))}, "weight_map": place}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_file(
    path: Path,
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    values: Iterator[TensorBlocks],
    writers: ThreadPoolExecutor,
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (shape, dtype) in tensors.items():
        end = offset + _size((shape, dtype))
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8 bytes
    with path.open("wb", buffering=0) as file:
        place = _write_at(file.fileno(), 0, memoryview(len(text).to_bytes(8, "little") + text))
        writing: deque[Future[None]] = deque()
        try:
            for tensor, value in zip(tensors.values(), values):
                # Values not yet written are held by the devices: a few are enough.
                if len(writing) > _WRITERS:
                    writing.popleft().result()
                writing.append(writers.submit(_write_tensor, file.fileno(), place, tensor, value))
                place += _size(tensor)
            for future in writing:
                future.result()
        finally:
            wait(writing)  # once the file is closed, its number may be another file's


def _write_tensor(file: int, place: int, tensor: tuple[tuple[int, ...], np.dtype], value: TensorBlocks) -> None:
    end = place + _size(tensor)
    for block in value():
        assert block.dtype == tensor[1], (block.dtype, tensor)
        assert block.shape[1:] == tensor[0][1:], (block.shape, tensor)
        place = _write_at(file, place, np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
    assert place == end, (place, end, tensor)


def _write_at(file: int, place: int, left: memoryview) -> int:
    """Writes all of it at a place in the file; returns the place behind it."""
    while left:
        written = os.pwrite(file, left, place)
        place, left = place + written, left[written:]
    return place


def _divide(tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]], most_bytes: int) -> list[list[str]]:
    files: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if files[-1] and filled + _size(tensor) > most_bytes:
            files.append([])
            filled = 0
        files[-1].append(name)
        filled += _size(tensor)
    return files


def _size(tensor: tuple[tuple[int, ...], np.dtype]) -> int:
    shape, dtype = tensor
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def _listed(folder: Path) -> list[Path]:
    """The files to read: those the index names, else every safetensors file."""
    names = set(_indexed_names(folder).values())
    files = sorted(folder / name for name in names) if names else sorted(folder.glob("*.safetensors"))
    if not files:
        other = "; it has PyTorch .bin files, which are not read: convert them" if any(folder.glob("*.bin")) else ""
        raise InputError(f"{named(folder)}: holds no safetensors file{other}")
    if missing := [file.name for file in files if not file.exists()]:
        raise InputError(f"{named(folder / INDEX)}: names files that are not there: {listed(map(shown, missing))}")
    for file in files:
        check_regular(file, "fetch the file again")
    return files


def _indexed_names(folder: Path) -> dict[str, str]:
    """Tensor name to file name, as the index says; empty without an index.

    Raises:
        InputError: The index is malformed, or names a file that is not directly in the folder.
    """
    if not (folder / INDEX).exists():
        return {}
    index = read_object(folder / INDEX)
    if (names := index.section("weight_map")) is None:
        return {}
    for tensor, name in names.values.items():
        if not isinstance(name, str) or not _FILE_NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
            raise names.error(shown(tensor)[:30], name, "not the name of a .safetensors file in this folder")
    return dict(names.values)
