"""What a compiled program says of itself: its collectives, loops counted as often as they run."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "f8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_WIDE = {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_ITEM = _BYTES | _WIDE

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
# An instruction: name, result type, opcode, rest of the line. An array's type: kind of number, sizes.
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?[\])}]) ([a-z][\w\-]*)\((.*)$")
ARRAY = re.compile(r"\b([a-z]+\d*)\w*\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|body|condition|to_apply)=%?([\w.\-]+)|\bbranch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count"?:\{"n":"(\d+)"')


class Collective(NamedTuple):
    """A collective operation of the program.

    Attributes:
        kind: One of `KINDS`.
        group: Ids, in the order of the program's devices, of the first group that takes part; empty means all.
        size: Devices of a group.
        bytes: Of the whole array on one device: gathered, to be reduced or scattered, or sent.
        times: How often a step runs it.
    """

    kind: str
    group: tuple[int, ...]
    size: int
    bytes: float
    times: int

    @property
    def wire(self) -> float:
        """Bytes a device receives in all runs, by a ring."""
        share = (self.size - 1) / max(self.size, 1)
        passes = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return passes * self.bytes * self.times


def collectives(text: str, devices: int) -> list[Collective]:
    """The collectives of a compiled program's text (`Compiled.as_text()`).

    Args:
        text: The optimised HLO.
        devices: Devices the program runs on.
    """
    found = []
    for times, result, opcode, rest in executed(text):
        kind = opcode.removesuffix("-start")
        if kind not in KINDS or not times:
            continue
        group, size = _group(rest, devices)
        if kind == "collective-permute":
            group, size = _pair(rest)
        if size < 2:
            continue
        sizes = [_nbytes(array) for array in ARRAY.finditer(result)]
        # An asynchronous start returns its operand beside its result, and flags; a scatter's operand is the whole.
        largest = max(sizes) if opcode.endswith("-start") else sum(sizes)
        whole = largest * size if kind == "reduce-scatter" and not opcode.endswith("-start") else largest
        found.append(Collective(kind, group, size, whole, times))
    return found


def executed(text: str) -> Iterator[tuple[int, str, str, str]]:
    """(times run, result type, opcode, rest of the line) of every instruction."""
    bodies: dict[str, list[tuple[str, str, str]]] = {}
    entry = current = None
    for line in text.splitlines():
        if start := _COMPUTATION.match(line):
            current = start[1]
            bodies[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif current is not None and (m := INSTRUCTION.match(line)):
            bodies[current].append((m[2], m[3], m[4]))
    times: dict[str, int] = defaultdict(int)

    def run(name: str, count: int) -> None:
        times[name] += count
        for _, opcode, rest in bodies[name]:
            trips = _trips(rest, bodies) if opcode == "while" else 1
            for called in _CALLED.finditer(rest):
                for callee in (called[1] or called[2]).replace("%", "").split(", "):
                    if callee in bodies:
                        run(callee, count * trips)

    if entry is not None:
        run(entry, 1)
    for name, instructions in bodies.items():
        for result, opcode, rest in instructions:
            yield times[name], result, opcode, rest


def _trips(rest: str, bodies: dict[str, list[tuple[str, str, str]]]) -> int:
    """How often a loop runs: as noted, or as the constant that its counter, from 0 up, is compared with."""
    if noted := _TRIPS.search(rest):
        return int(noted[1])
    condition = re.search(r"condition=%?([\w.\-]+)", rest)
    bounds = [
        int(value[1])
        for result, opcode, text in bodies.get(condition[1] if condition else "", ())
        if opcode == "constant" and result.startswith("s32[]") and (value := re.match(r"(\d+)\)", text))
    ]
    return bounds[0] if len(bounds) == 1 else 1


def _nbytes(array: re.Match[str]) -> float:
    return _ITEM.get(array[1], 4) * math.prod(int(d) for d in array[2].split(",") if d)


def _group(rest: str, devices: int) -> tuple[tuple[int, ...], int]:
    """The first replica group, and its size."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        group = tuple(int(d) for d in listed[1].split(","))
        return group, len(group)
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        # Groups along some axes of a grid of all devices.
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        along = re.findall(r"'(\w+)'", named[2])
        ids = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
        chosen = ids[tuple(slice(None) if axis in along else 0 for axis in sizes)]
        return tuple(chosen.reshape(-1).tolist()), chosen.size
    if tiled := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest):
        ids = np.arange(devices).reshape([int(d) for d in tiled[3].split(",")])
        if tiled[4]:
            ids = ids.transpose([int(d) for d in tiled[4].split(",")])
        group = tuple(ids.reshape(int(tiled[1]), int(tiled[2]))[0].tolist())
        return group, len(group)
    return (), devices


def _pair(rest: str) -> tuple[tuple[int, ...], int]:
    pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", rest)
    return ((int(pairs[1]), int(pairs[2])), 2) if pairs else ((), 0)
