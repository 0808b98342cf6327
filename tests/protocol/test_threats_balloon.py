# SPDX-License-Identifier: MIT
"""threats.md, "Balloon": what a driver says may be wrong, and is then counted and harmless.

Each test is named after the line it stands for.
"""

from __future__ import annotations

import struct
import time
from contextlib import nullcontext
from typing import Callable, Iterator

import pytest

from balloon import (DEFLATE, FREE_PAGE, FREE_PAGE_HINT, HINT_CMD, INFLATE, MESSAGE, MESSAGE_VQ,
                     MIB, PAGE, PAGE_REPORTING, REPORTING, STATS, Guest, stat)
from process import Device
from qmp import Client
from rings import WRITE, Seg
from vhost_user import NEED_REPLY, VERSION, Region, Req, one_region, u64, wait_for

Spawn = Callable[..., Device]
FORMATS = [False, True]
TOTAL, FREE, AVAILABLE = "stat-total-memory", "stat-free-memory", "stat-available-memory"


def errors(monitor: Client) -> dict[str, int]:
    return dict(monitor.device()["driver-errors"])


def counted(monitor: Client, name: str, before: dict[str, int]) -> int:
    """How many errors of a kind have come since; there must be no others."""
    after = errors(monitor)
    assert {k: v for k, v in after.items() if k != name} == \
        {k: v for k, v in before.items() if k != name}
    return after[name] - before[name]


@pytest.mark.parametrize("packed", FORMATS)
def test_9_array_of_4_gib(device: Device, monitor: Client, packed: bool) -> None:
    """As long as a chain can be: the device works on it, and nobody has to wait for that."""
    big = Region(1 << 32, 64 * MIB)
    try:
        guest = device.guest(packed=packed)
        guest.fe.tell(Req.ADD_MEM_REG, one_region(big), [big.fd])
        ident = guest.queue(INFLATE).ring.add([Seg(big.gpa, 64 * MIB)] * 63
                                              + [Seg(big.gpa, 64 * MIB - 4)])
        guest.queue(INFLATE).notify()
        for _ in range(5):
            start = time.monotonic()
            guest._transfer(DEFLATE, [guest.pages()[0]])
            assert monitor.cmd("query-status")["running"]
            assert time.monotonic() - start < 2
        assert guest.queue(INFLATE).ring.used() is None, f"buffer {ident} is done already"
        guest.check()
        device.close(guest)
        device.good_session()
    finally:
        big.close()


LENGTHS = {INFLATE: (1, 2, 3, 5, 4095), DEFLATE: (1, 2, 3, 5, 4095), STATS: (1, 9, 11, 159),
           FREE_PAGE: (1, 2, 3), MESSAGE: (1, 2, 3)}


@pytest.mark.parametrize("packed", FORMATS)
@pytest.mark.parametrize("queue", LENGTHS)
def test_9_lengths_that_fit_nothing(spawn: Spawn, queue: int, packed: bool) -> None:
    """Whole entries are taken; a fragment, or what is shorter than its header, is counted."""
    device = spawn("--features=message", "--message-limit=0")
    monitor = device.monitor()
    guest = device.guest(extra=[FREE_PAGE_HINT, MESSAGE_VQ], packed=packed)
    name = "message-too-short" if queue == MESSAGE else "partial-entry"
    for size in LENGTHS[queue]:
        before = errors(monitor)
        entry = {STATS: stat(4, 1), MESSAGE: bytes(4), FREE_PAGE: bytes(4)}.get(
            queue, struct.pack("<I", 1))  # a page that is no memory
        data = (entry * (size // len(entry) + 1))[:size]
        ident = guest.write_to(queue, [Seg(guest.buffer(data), size)])
        if queue == STATS:
            wait_for(lambda: monitor.cmd("refresh-balloon-stats") == {}
                     and guest.returned(STATS, ident, 0.1), "the buffer")
        else:
            assert guest.returned(queue, ident)
        after = errors(monitor)
        assert after[name] == before[name] + 1, f"{size} bytes"
    assert monitor.device()["held"] == 0 and guest.freed() == 0
    guest.check()


def test_9_second_statistics_buffer(device: Device, monitor: Client) -> None:
    """Two are at the device: the older one comes back, and there is again one."""
    guest = device.guest()
    first = guest.submit(STATS, stat(4, 1))
    wait_for(lambda: monitor.get("guest-stats")["stats"] == {FREE: 1}, "the first")
    before = errors(monitor)
    second = guest.submit(STATS, stat(4, 2))
    assert guest.returned(STATS, first)
    assert counted(monitor, "second-stats-buffer", before) == 1
    assert monitor.get("guest-stats")["stats"] == {FREE: 2}
    assert monitor.cmd("refresh-balloon-stats") == {}
    assert guest.returned(STATS, second)


def edges(guest: Guest) -> Iterator[tuple[int, bool]]:
    """Page numbers about the ends of all regions, and whether they are memory."""
    known = {pfn for region in guest.mem.regions
             for pfn in range(region.gpa // PAGE, (region.gpa + region.size) // PAGE)}
    for region in guest.mem.regions:
        for pfn in (region.gpa // PAGE, (region.gpa + region.size) // PAGE - 1):
            yield from ((near, near in known) for near in (pfn - 1, pfn, pfn + 1))


@pytest.mark.parametrize("packed", FORMATS)
def test_10_bitmap_edges(device: Device, monitor: Client, packed: bool) -> None:
    """Regions whose sizes are no multiples of 64 pages, some side by side: each first and last
    page goes and comes back, and its neighbours do not."""
    sizes = [MIB, PAGE, 63 * PAGE, 65 * PAGE, 64 * PAGE, 129 * PAGE]
    regions, gpa = [], 16 * MIB
    for at, size in enumerate(sizes):
        regions.append(Region(gpa, size))
        gpa += size + (3 * PAGE if at % 2 else 0)
    guest = device.guest(regions=regions, packed=packed)
    usable = set(guest.pages())
    pfns = sorted({pfn for pfn, known in edges(guest) if known} & usable)
    strangers = sorted({pfn for pfn, known in edges(guest) if not known})
    assert len(pfns) > 10 and len(strangers) > 4
    before = errors(monitor)
    guest.inflate(pfns)
    guest.check()
    assert guest.freed() == monitor.device()["held"] == len(pfns) * PAGE
    guest._transfer(INFLATE, strangers)
    assert counted(monitor, "pfn-out-of-range", before) == len(strangers)
    assert guest.freed() == monitor.device()["held"] == len(pfns) * PAGE
    guest.deflate(pfns[::2])
    assert monitor.device()["held"] == (len(pfns) // 2) * PAGE
    guest.check()


def test_10_guest_with_64_kib_pages(device: Device, monitor: Client) -> None:
    """It names all 16 of each of its pages, and can reach every target."""
    guest = device.guest()
    for mib in (1, 3):
        monitor.cmd("balloon", {"value": guest.mem.size() - mib * MIB - 40 * 1024})
        assert guest.num_pages() % 16 == 0
    big = [pfn for pfn in guest.pages() if pfn % 16 == 0][10:30]
    for start in big:
        guest.inflate(range(start, start + 16))
    assert guest.freed() == monitor.device()["held"] == len(big) * 16 * PAGE
    for start in big[::2]:
        guest.deflate(range(start, start + 16))
    guest.check()
    assert monitor.device()["held"] == len(big) // 2 * 16 * PAGE


@pytest.mark.parametrize("packed", FORMATS)
def test_11_report_races_a_change_of_the_memory_table(device: Device, monitor: Client,
                                                      packed: bool) -> None:
    """Once the region is taken away nothing of it is discarded any more, however many reports
    of it were on their way."""
    regions = [Region(16 * MIB, MIB), Region(64 * MIB, MIB)]
    guest = device.guest(extra=[PAGE_REPORTING], regions=regions, packed=packed, size=512)
    other = regions[1]
    first = other.gpa // PAGE
    pages = range(first, first + other.size // PAGE)
    chains = 128
    done = []  # when the region went, of each round
    for round_ in range(40):
        ring = guest.queue(REPORTING).ring
        for at in range(chains):
            ring.add([Seg((first + (at * 8 + i) % 256) * PAGE, PAGE, WRITE)
                      for i in range(0, 8, 2)])
        # Who wins is up to the scheduler, but where the device finds both at once: it takes no more
        # reports in a turn than it has work for.
        with device.held_up() if round_ % 4 < 2 else nullcontext():
            if round_ % 4:
                guest.queue(REPORTING).notify(always=True)
                time.sleep(0.0003 * (round_ % 4 - 1))
            guest.fe.send(Req.REM_MEM_REG, one_region(other), [], VERSION | NEED_REPLY)
            guest.queue(REPORTING).notify(always=True)
        assert guest.fe.receive_reply(Req.REM_MEM_REG) == u64(0)
        done.append(sum(1 for _ in iter(ring.used, None)))
        for pfn in pages:
            guest.mem.write(pfn * PAGE, struct.pack("<Q", pfn))
        assert monitor.cmd("query-status") is not None
        time.sleep(0.002)
        for pfn in pages:
            assert guest.mem.read(pfn * PAGE, 8) == struct.pack("<Q", pfn), "discarded afterwards"
        guest.fe.tell(Req.ADD_MEM_REG, one_region(other), [other.fd])
        guest.reclaim(pages)
        guest.reset()
    assert any(0 < one < chains for one in done), f"never in the middle of them: {done}"
    guest.check()


def test_11_hints_for_memory_that_went(device: Device, monitor: Client) -> None:
    """What was hinted of a region is forgotten with it."""
    regions = [Region(16 * MIB, MIB), Region(64 * MIB, MIB)]
    guest = device.guest(extra=[FREE_PAGE_HINT], regions=regions)
    monitor.cmd("free-page-hint", {"action": "start"})
    guest.hint_id(guest.config_field(HINT_CMD))
    guest.hint(guest.ranges([regions[1].gpa // PAGE + 3], 8))
    assert monitor.cmd("query-free-page-hint")["hinted-bytes"] == 8 * PAGE
    guest.fe.tell(Req.REM_MEM_REG, one_region(regions[1]))
    assert monitor.cmd("query-free-page-hint")["hinted-bytes"] == 0
    guest.fe.tell(Req.ADD_MEM_REG, one_region(regions[1]), [regions[1].fd])
    assert monitor.cmd("query-free-page-hint")["hinted-bytes"] == 0
    guest.check()


@pytest.mark.parametrize("actual", [0, 1, 15, 2048, 2049, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_12_actual_lies(device: Device, monitor: Client, actual: int) -> None:
    """The claim is shown, and changes neither what the balloon holds nor what is discarded."""
    guest = device.guest()
    pages = guest.some_pages(16)
    guest.inflate(pages)
    guest.write_actual(actual)
    size = guest.mem.size()
    assert monitor.device()["held"] == guest.freed() == 16 * PAGE
    assert monitor.cmd("query-balloon")["actual"] == size - min(actual * PAGE, size)
    too_large = actual * PAGE > size
    assert errors(monitor)["actual-too-large"] == int(too_large)
    monitor.cmd("balloon", {"value": size - MIB})
    assert guest.num_pages() == 256
    guest.deflate(pages)
    guest.check()


STRANGE = [
    {4: 2**63, 5: MIB, 6: 2 * MIB},  # more free and available than there is
    {5: 0, 6: 1},
    {0: 1000, 2: 1000, 10: 3}, {0: 1, 2: 0, 10: 0},  # counters that run backwards
    {tag: 2**64 - 2 for tag in range(16)},
    {4: 2**64 - 1},  # says itself that it is unset
]


def test_12_figures_that_cannot_be(device: Device, monitor: Client) -> None:
    """They are the guest's word, and handed on as such; nothing is derived from them here."""
    guest = device.guest()
    for figures in STRANGE:
        guest.give_stats(b"".join(stat(tag, value) for tag, value in figures.items()))
        want = {value for value in figures.values() if value != 2**64 - 1}
        wait_for(lambda w=want: set(monitor.get("guest-stats")["stats"].values()) == w, "figures")
        text = monitor.cmd("query-balloon-device")
        assert text["held"] == 0
        wait_for(lambda: monitor.cmd("refresh-balloon-stats") == {} and guest.stats_wanted(0.1),
                 "a request")
    assert sum(errors(monitor).values()) == 0
