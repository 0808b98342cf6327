# SPDX-License-Identifier: MIT
"""Streams that are no device state: each is refused as a whole, and the device is as it was."""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from typing import Callable

import pytest

from balloon import MIB, PAGE, stat
from process import Device
from qmp import Client
from state_stream import (ALL_SET, COUNTERS, DEVICE, END, HELD, HINT, LITERAL, OPTIONAL, PRESSURE,
                          QUEUES, REGIONS, STATS as FIGURES, Stream, decode)
from transfer import load, save
from vhost_user import LOAD, FrontEnd, Region, Req, u64

Spawn = Callable[..., Device]
M64 = 2**64 - 1


@pytest.fixture(name="good")
def good_stream(device: Device) -> bytes:
    """A state with something of everything in it."""
    guest = device.guest(regions=[Region(16 * MIB, 8 * MIB), Region(64 * MIB, 5 * PAGE)])
    pages = guest.pages()
    guest.inflate(pages[100:1500] + pages[1510:1600:3] + pages[-5:])
    guest.give_stats(stat(4, 1) + stat(5, 2))
    guest.stop()
    data = save(guest)
    held = guest.ballooned.copy()
    device.close(guest)
    assert decode(data).held() == held
    forms = {struct.unpack_from("<II", b)[1] for k, b in decode(data).sections if k == HELD}
    assert forms == {ALL_SET, LITERAL}, "the sample shall have both"
    return data


@pytest.fixture(name="fe")
def front_end(device: Device, good: bytes) -> FrontEnd:
    """A front end in whose session every stream of a test is loaded."""
    assert good
    fe = device.front_end()
    fe.tell(Req.SET_PROTOCOL_FEATURES, u64(fe.ask_u64(Req.GET_PROTOCOL_FEATURES)))
    return fe


def test_the_format_is_as_documented(fe: FrontEnd, good: bytes) -> None:
    """What we make of it anew is the same, and is taken."""
    assert decode(good).build() == good
    assert load(fe, good)


def test_cut_anywhere(fe: FrontEnd, good: bytes) -> None:
    for size in range(len(good)):
        if size < 64 or size % 3 == 0 or size > len(good) - 16:
            assert not load(fe, good[:size]), f"taken after {size} of {len(good)} bytes"
    assert load(fe, good)


def test_damaged_anywhere(fe: FrontEnd, good: bytes) -> None:
    dice = random.Random(1)
    for at in range(len(good)):
        if at < 64 or at % 3 == 0 or at > len(good) - 16:
            bad = bytearray(good)
            bad[at] ^= 1 << dice.randrange(8)
            assert not load(fe, bytes(bad)), f"taken with byte {at} of {len(good)} damaged"
    assert load(fe, good)


def test_no_stream_at_all(fe: FrontEnd, good: bytes) -> None:
    dice = random.Random(2)
    for bad in (b"", b"\0", b"\0" * 5000, b"AEROSTAT", b"QEVM" + good, good + b"\0", good + good,
                good[1:], dice.randbytes(60000), good[:16] + dice.randbytes(60000)):
        assert not load(fe, bad)
    assert load(fe, good)


Change = Callable[[Stream], Stream]


def version(number: int, reserved: int = 0) -> Change:
    def change(stream: Stream) -> Stream:
        stream.version, stream.reserved = number, reserved
        return stream
    return change


def swapped(first: int) -> Change:
    """A section and its neighbour have changed places."""
    def change(stream: Stream) -> Stream:
        at = next(i for i, (kind, _) in enumerate(stream.sections) if kind == first)
        stream.sections[at:at + 2] = reversed(stream.sections[at:at + 2])
        return stream
    return change


def longer(kind: int, data: bytes = b"\0") -> Change:
    return lambda stream: stream.put(kind, stream.body(kind) + data)


def regions(*spans: tuple[int, int], count: int | None = None) -> Change:
    """A table of these, of which nothing is held."""
    body = struct.pack("<II", len(spans) if count is None else count, 0)
    body += b"".join(struct.pack("<QQ", *span) for span in spans)
    return lambda stream: stream.without(HELD).put(REGIONS, body).put(END, bytes(12))


def bitmap(*sections: bytes, held: int = 0) -> Change:
    """One region of 100 pages from page 4096 on, and these sections of its bitmap."""
    def change(stream: Stream) -> Stream:
        stream = regions((4096, 100))(stream).patch(END, 0, "Q", held)
        for body in sections:
            stream = stream.insert(COUNTERS, HELD, body)
        return stream
    return change


def held_part(index: int, form: int, word: int, n: int, *words: int) -> bytes:
    return struct.pack(f"<IIQQ{len(words)}Q", index, form, word, n, *words)


BAD: dict[str, Change] = {
    "version-0": version(0), "version-2": version(2), "version-max": version(2**32 - 1),
    "reserved": version(1, 1),
    **{f"without-{kind:#x}": lambda s, kind=kind: s.without(kind)
       for kind in (DEVICE, QUEUES, FIGURES, HINT, PRESSURE, REGIONS, END)},
    **{f"twice-{kind:#x}": lambda s, kind=kind: s.insert(kind, kind, s.body(kind))
       for kind in (DEVICE, QUEUES, FIGURES, HINT, PRESSURE, REGIONS, COUNTERS)},
    **{f"swapped-{kind:#x}": swapped(kind) for kind in (DEVICE, QUEUES, FIGURES, HINT, REGIONS)},
    **{f"longer-{kind:#x}": longer(kind) for kind in (DEVICE, QUEUES, FIGURES, HINT, PRESSURE,
                                                      REGIONS, COUNTERS, END)},
    "longer-than-any": longer(HINT, bytes(60000)),
    **{f"empty-{kind:#x}": lambda s, kind=kind: s.put(kind, b"")
       for kind in (DEVICE, QUEUES, FIGURES, HINT, PRESSURE, REGIONS, COUNTERS)},
    "unknown-section": lambda s: s.insert(END, 9, bytes(8)),
    "unknown-section-max": lambda s: s.insert(END, 0x7FFFFFFE, b""),
    "features-all": lambda s: s.patch(DEVICE, 0, "Q", M64),
    "features-one-too-many": lambda s: s.patch(DEVICE, 0, "Q", 1 << 63),
    "push-too-short": lambda s: s.patch(DEVICE, 32, "I", 9),
    "poll-huge": lambda s: s.patch(DEVICE, 40, "Q", M64),
    "poll-due-huge": lambda s: s.patch(DEVICE, 48, "Q", M64),
    "queues-7": lambda s: s.patch(QUEUES, 4, "I", 7),
    "queues-max": lambda s: s.patch(QUEUES, 4, "I", 2**32 - 1),
    "queues-fresh": lambda s: s.patch(QUEUES, 0, "I", 1 << 6),
    "queues-ring-6": lambda s: s.patch(QUEUES, 8 + 5 * 16, "I", 6),
    "queues-ring-twice": lambda s: s.patch(QUEUES, 8 + 16, "I", 0),
    "queues-no-inflate": lambda s: s.patch(QUEUES, 8, "I", 2**32 - 1),
    "queues-done-huge": lambda s: s.patch(QUEUES, 16, "Q", M64),
    "figures-65": lambda s: s.patch(FIGURES, 4, "I", 65),
    "figures-max": lambda s: s.patch(FIGURES, 4, "I", 2**32 - 1),
    "figures-flags": lambda s: s.patch(FIGURES, 0, "I", 8),
    "figures-set": lambda s: s.patch(FIGURES, 24, "Q", 1 << 16),
    "hint-state": lambda s: s.patch(HINT, 0, "I", 5),
    "hint-state-max": lambda s: s.patch(HINT, 0, "I", 2**32 - 1),
    "pressure-flags": lambda s: s.patch(PRESSURE, 0, "I", 2),
    "pressure-type": lambda s: s.patch(PRESSURE, 0, "II", 1, 3),
    "pressure-level": lambda s: s.patch(PRESSURE, 8, "I", 4),
    "pressure-level-max": lambda s: s.patch(PRESSURE, 8, "I", 2**32 - 1),
    "pressure-wait": lambda s: s.patch(PRESSURE, 32, "Q", M64),
    "counters-65": lambda s: s.patch(COUNTERS, 0, "I", 65),
    "counters-max": lambda s: s.patch(COUNTERS, 8, "I", 2**32 - 1),
    "regions-65": regions(*[(n * 10, 5) for n in range(65)]),
    "regions-max": regions(count=2**32 - 1), "regions-fewer": regions((0, 1), count=0),
    "regions-more": regions((0, 1), count=2), "regions-empty": regions((5, 0)),
    "regions-overlap": regions((0, 100), (99, 5)), "regions-order": regions((100, 5), (0, 5)),
    "regions-wrap": regions((M64, 2)), "regions-wrap-2": regions((5, M64)),
    "regions-huge": regions((0, 2**32 + 1)), "regions-too-high": regions((2**32, 1)),
    "held-index": bitmap(held_part(1, LITERAL, 0, 1, 1), held=1),
    "held-index-max": bitmap(held_part(2**32 - 1, LITERAL, 0, 1, 1), held=1),
    "held-none": bitmap(held_part(0, LITERAL, 0, 0)),
    "held-none-set": bitmap(held_part(0, ALL_SET, 0, 0)),
    "held-form": bitmap(held_part(0, 2, 0, 1, 1), held=1),
    "held-too-few": bitmap(held_part(0, LITERAL, 0, 2, 1), held=1),
    "held-too-many": bitmap(held_part(0, LITERAL, 0, 1, 1, 1), held=1),
    "held-literal-max": bitmap(held_part(0, LITERAL, 0, M64 // 8, 1), held=1),
    "held-wraps": bitmap(held_part(0, LITERAL, 0, 2**61 + 1, 1), held=1),
    "held-set-max": bitmap(held_part(0, ALL_SET, 0, M64), held=64),
    "held-set-wraps": bitmap(held_part(0, ALL_SET, 2, M64), held=64),
    "held-word": bitmap(held_part(0, LITERAL, 2, 1, 1), held=1),
    "held-word-max": bitmap(held_part(0, LITERAL, M64, 1, 1), held=1),
    "held-beyond": bitmap(held_part(0, LITERAL, 1, 1, 1 << 36), held=1),
    "held-set-beyond": bitmap(held_part(0, ALL_SET, 0, 2), held=128),
    "held-twice": bitmap(held_part(0, LITERAL, 0, 1, 1), held_part(0, LITERAL, 0, 1, 1), held=2),
    "held-order": bitmap(held_part(0, LITERAL, 1, 1, 1), held_part(0, LITERAL, 0, 1, 1), held=2),
    "held-more": bitmap(held_part(0, LITERAL, 0, 1, 7), held=2),
    "held-fewer": bitmap(held_part(0, LITERAL, 0, 1, 7), held=4),
    "held-set-and-data": bitmap(held_part(0, ALL_SET, 0, 1, 1), held=64),
}


def test_forged(fe: FrontEnd, good: bytes, monitor: Client) -> None:
    """The checksum is right, and what it says makes no sense."""
    for name, change in BAD.items():
        assert not load(fe, change(decode(good)).build()), name
    assert monitor.device()["held"] == 0 and monitor.device()["features-negotiated"] == []
    assert load(fe, good)


GOOD: dict[str, Change] = {
    "no-counters": lambda s: s.without(COUNTERS),
    "later-section": lambda s: s.insert(END, OPTIONAL | 9, b"later"),
    "later-section-empty": lambda s: s.insert(END, OPTIONAL | 0x7FFFFFF, b""),
    "later-section-first": lambda s: s.insert(DEVICE, OPTIONAL | 77, bytes(3)),
    "later-section-long": lambda s: s.insert(QUEUES, OPTIONAL | 77, bytes(30000)),
    "later-figures": lambda s: s.patch(FIGURES, 4, "I", 18).put(
        FIGURES, s.patch(FIGURES, 4, "I", 18).body(FIGURES) + bytes(16)),
    "fewer-figures": lambda s: s.patch(FIGURES, 4, "I", 6).put(
        FIGURES, s.patch(FIGURES, 4, "I", 6).body(FIGURES)[:32 + 48]),
    "nothing-held": regions(), "another-region": regions((0, 2**32)),
    "two-words": bitmap(held_part(0, ALL_SET, 0, 1), held_part(0, LITERAL, 1, 1, 5), held=66),
}


def test_of_a_later_or_earlier_version(fe: FrontEnd, good: bytes) -> None:
    """What may differ from what we write ourselves."""
    for name, change in GOOD.items():
        assert load(fe, change(decode(good)).build()), name


def test_mutated(device: Device, good: bytes) -> None:
    """Any values with a good checksum: whatever comes of it, the device survives, and serves."""
    dice = random.Random(4)
    for turn in range(12):
        guest = device.guest(start=False)
        for _ in range(25):
            stream = decode(good)
            for _ in range(dice.randrange(1, 4)):
                index = dice.randrange(len(stream.sections))
                kind, body = stream.sections[index]
                raw = bytearray(body)
                for _ in range(dice.randrange(1, 5)):
                    if len(raw) >= 8:
                        at = dice.randrange(0, len(raw) - 7, 4)
                        raw[at:at + 8] = struct.pack("<Q", dice.choice(
                            [0, 1, 2, 255, 4096, 2**31, 2**32 - 1, 2**63, M64,
                             dice.getrandbits(64)]))
                stream.sections[index] = (kind, bytes(raw))
            if load(guest.fe, stream.build()):
                break
        if turn % 2:
            guest.start()
            for pfn in guest.some_pages(5, seed=turn):
                guest.submit(0, struct.pack("<I", pfn))
            guest.submit(2, stat(4, 5))
            guest.num_pages()
        device.close(guest)
    device.good_session()


def endless(ours: int, head: bytes, body: bytes) -> threading.Thread:
    """Writes for as long as somebody reads."""
    def write() -> None:
        try:
            os.write(ours, head)
            while True:
                os.write(ours, body)
        except BrokenPipeError:
            os.close(ours)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize("how", ["one-section", "many-sections", "garbage"])
def test_never_ending(device: Device, fe: FrontEnd, good: bytes, monitor: Client,
                      how: str) -> None:
    """The monitor is served meanwhile, no memory is used up, and the check ends it."""
    body = {"one-section": bytes(65536), "garbage": b"\xa5" * 65536,
            "many-sections": struct.pack("<II", OPTIONAL | 9, 0) * 8192}[how]
    head = good[:16] + (struct.pack("<II", OPTIONAL | 9, 2**32 - 1) if how == "one-section"
                        else b"")
    before = device.anonymous_memory()
    theirs, ours = os.pipe()
    assert fe.device_state(LOAD, theirs)
    os.close(theirs)
    thread = endless(ours, head, body)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        assert monitor.cmd("query-status", timeout=2)
        time.sleep(0.005)  # a sanitizer keeps what each command has freed
    assert device.anonymous_memory() < before + 16 * MIB
    assert not fe.check_state()
    thread.join(10)
    assert not thread.is_alive(), "it is still read"
    assert load(fe, good)


def test_drip(fe: FrontEnd, good: bytes, monitor: Client) -> None:
    """Byte by byte, with other things in between."""
    theirs, ours = os.pipe()
    assert fe.device_state(LOAD, theirs)
    os.close(theirs)
    for at in range(len(good)):
        os.write(ours, good[at:at + 1])
        if at % 200 == 0:
            assert monitor.cmd("query-status") and fe.alive()
    os.close(ours)
    assert fe.check_state()


def test_the_last_one_counts(fe: FrontEnd, good: bytes, monitor: Client) -> None:
    """A state after a state; and one that was taken is not lost over one that is bad."""
    other = decode(good).patch(DEVICE, 20, "I", 77).build()
    assert load(fe, good) and load(fe, other)
    assert monitor.device()["actual"] == 77 * PAGE
    assert not load(fe, good[:-1])
    assert monitor.device()["actual"] == 77 * PAGE


def test_more_pages_than_any_guest_has(device: Device, fe: FrontEnd, good: bytes) -> None:
    """16 TiB in the balloon are said in some bytes; what that takes up is given back."""
    stream = regions((0, 2**32))(decode(good)).patch(END, 0, "Q", 2**32)
    stream = stream.insert(COUNTERS, HELD, held_part(0, ALL_SET, 0, 2**26))
    before = device.anonymous_memory()
    taken = load(fe, stream.build())
    assert load(fe, good)
    assert device.anonymous_memory() < before + 64 * MIB, f"kept after it was taken: {taken}"


def test_a_guest_with_the_loaded_state(device: Device, good: bytes) -> None:
    """The sample is one that a guest can go on with."""
    guest = device.guest(start=False, regions=[Region(16 * MIB, 8 * MIB),
                                               Region(64 * MIB, 5 * PAGE)])
    assert load(guest.fe, good)
    guest.start_queues()
    guest.ballooned = decode(good).held()
    assert device.monitor().device()["held"] == len(guest.ballooned) * PAGE
    guest.deflate(sorted(guest.ballooned))
    guest.check()
    assert device.monitor().device()["driver-errors"]["deflated-not-held"] == 0
