"""Runs of structures of one size, as dumps of thousands of peers are made of.

What is the same in all structures of a run is compared byte column by byte column, and what differs is read in one go:
both are loops of the interpreter's own, which take a tenth of the time of one that is written in Python.
"""

import struct
from collections.abc import Iterator
from typing import Any

# Shorter runs are read faster one by one.
_SHORTEST = 8


class Layout:
    """How a structure looks.

    Args:
        parts: one after the other, constant bytes, codes of values as `struct` has them, or numbers of bytes that do
            not matter.
    """

    def __init__(self, *parts: bytes | str | int) -> None:
        codes: list[str] = []
        self._columns: list[tuple[int, bytes]] = []
        position = 0
        for part in parts:
            if isinstance(part, bytes):
                self._columns += [(position + number, bytes((byte,))) for number, byte in enumerate(part)]
                part = len(part)  # noqa: PLW2901  for the values, both are bytes to be passed over
            codes.append(part if isinstance(part, str) else f"{part}x")
            position += struct.calcsize(f"={codes[-1]}")
        self._values = struct.Struct("=" + "".join(codes))
        self.size = position

    def count(self, data: bytes, start: int) -> int:
        """Tell how many such structures there are from an offset on; 0 if they are few."""
        many = (len(data) - start) // self.size
        for position, byte in self._columns:
            if many < _SHORTEST:
                return 0
            column = data[start + position : start + many * self.size : self.size]
            many = len(column) - len(column.lstrip(byte))
        return many

    def read(self, data: bytes, start: int, count: int) -> Iterator[tuple[Any, ...]]:
        """Read the values of so many structures."""
        return self._values.iter_unpack(memoryview(data)[start : start + count * self.size])
