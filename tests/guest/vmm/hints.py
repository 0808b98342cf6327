# SPDX-License-Identifier: MIT
"""Reads the file of free page hints as a migration or snapshot tool would, by docs/hint-file.md."""

from __future__ import annotations

import dataclasses
import mmap
import os
import struct

STATES = ("idle", "requested", "hinting", "finished", "done")

_HEAD = struct.Struct("<8sIIQIIIIQ")
_REGION = struct.Struct("<QQQ")
_GENERATION_AT = 16


@dataclasses.dataclass(frozen=True)
class Hints:
    """What the file says: `pages` are the hinted ones, `regions` all there are, as (first,
    count)."""

    state: str
    id: int
    regions: list[tuple[int, int]]
    pages: set[int]


def read_hints(path: str) -> Hints:
    fd = os.open(path, os.O_RDONLY)
    try:
        with mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ) as data:
            while True:
                hints = _read(data)
                if hints is not None:
                    return hints
    finally:
        os.close(fd)


def _read(data: mmap.mmap) -> Hints | None:
    """None: the header was being changed."""
    magic, version, table, generation, state, ident, shift, n, bitmap = _HEAD.unpack_from(data)
    if (magic, version, shift) != (b"AEROHINT", 1, 12):
        raise ValueError(f"not a file of hints: {magic!r}, version {version}, page shift {shift}")
    regions, pages = [], set()
    for index in range(n):
        first, count, bit = _REGION.unpack_from(data, table + _REGION.size * index)
        regions.append((first, count))
        raw = data[bitmap + bit // 8:bitmap + (bit + count + 7) // 8]
        bits = int.from_bytes(raw, "little") >> bit % 8 & (1 << count) - 1
        text = bin(bits)[:1:-1]
        at = text.find("1")
        while at >= 0:
            pages.add(first + at)
            at = text.find("1", at + 1)
    (after,) = struct.unpack_from("<Q", data, _GENERATION_AT)
    if generation % 2 or after != generation:
        return None
    return Hints(STATES[state], ident, regions, pages)
