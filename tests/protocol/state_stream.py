# SPDX-License-Identifier: MIT
"""The device's state as a stream of bytes, decoded and encoded as lib/balloon/snapshot.h says."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace

MAGIC = b"AEROSTAT"
VERSION = 1
OPTIONAL = 1 << 31
DEVICE, QUEUES, STATS, HINT, PRESSURE, REGIONS, HELD = range(1, 8)
COUNTERS, END = OPTIONAL | 8, 0x7FFFFFFF
ALL_SET, LITERAL = 0, 1

DEVICE_BODY = struct.Struct("<QQIIIIIIQQ")


@dataclass
class Stream:
    """A stream in its parts; build() makes a good one of them unless told otherwise."""

    sections: list[tuple[int, bytes]] = field(default_factory=list)
    magic: bytes = MAGIC
    version: int = VERSION
    reserved: int = 0

    def body(self, kind: int) -> bytes:
        found = [body for k, body in self.sections if k == kind]
        assert len(found) == 1, f"{len(found)} sections {kind:#x}"
        return found[0]

    def device(self) -> dict[str, int]:
        names = ("negotiated", "target", "num-pages", "actual", "actual-written", "poison", "push",
                 "zero", "poll", "poll-left")
        return dict(zip(names, DEVICE_BODY.unpack(self.body(DEVICE))))

    def held(self) -> set[int]:
        """The numbers of all pages that the balloon holds."""
        regions = self.body(REGIONS)
        count, _ = struct.unpack_from("<II", regions)
        assert len(regions) == 8 + 16 * count
        where = [struct.unpack_from("<QQ", regions, 8 + 16 * i) for i in range(count)]
        pages: set[int] = set()
        for kind, body in self.sections:
            if kind != HELD:
                continue
            index, form, word, n = struct.unpack_from("<IIQQ", body)
            words = ([2**64 - 1] * n if form == ALL_SET
                     else struct.unpack_from(f"<{n}Q", body, 24))
            first, size = where[index]
            for at, value in enumerate(words, word):
                pages.update(first + 64 * at + bit for bit in range(64) if value >> bit & 1)
            assert all(p < first + size for p in pages if p >= first)
        return pages

    def put(self, kind: int, body: bytes) -> "Stream":
        """The same with another body in the place of a section's."""
        return replace(self, sections=[(k, body if k == kind else b) for k, b in self.sections])

    def patch(self, kind: int, offset: int, form: str, *values: int) -> "Stream":
        """... with other values in it."""
        body = bytearray(self.body(kind))
        struct.pack_into("<" + form, body, offset, *values)
        return self.put(kind, bytes(body))

    def without(self, kind: int) -> "Stream":
        return replace(self, sections=[s for s in self.sections if s[0] != kind])

    def insert(self, before: int, kind: int, body: bytes) -> "Stream":
        at = next(i for i, (k, _) in enumerate(self.sections) if k == before)
        return replace(self, sections=[*self.sections[:at], (kind, body), *self.sections[at:]])

    def build(self) -> bytes:
        """The checksum is made anew."""
        out = self.magic + struct.pack("<II", self.version, self.reserved)
        for kind, body in self.sections:
            out += struct.pack("<II", kind, len(body))
            if kind == END:
                body = body[:8] + struct.pack("<I", zlib.crc32(out + body[:8])) + body[12:]
            out += body
        return out


def decode(data: bytes) -> Stream:
    """Takes a stream apart; it must be well-formed."""
    assert data[:8] == MAGIC
    version, reserved = struct.unpack_from("<II", data, 8)
    assert (version, reserved) == (VERSION, 0)
    stream, at = Stream(), 16
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert at + 8 + size <= len(data), "a section reaches past the end"
        stream.sections.append((kind, data[at + 8:at + 8 + size]))
        at += 8 + size
    order = [kind & ~OPTIONAL for kind, _ in stream.sections]
    assert order == sorted(order) and stream.sections[-1][0] == END
    held, checksum = struct.unpack("<QI", stream.body(END))
    assert checksum == zlib.crc32(data[:-4]), "checksum"
    assert held == len(stream.held())
    return stream
