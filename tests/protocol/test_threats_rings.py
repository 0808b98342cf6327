# SPDX-License-Identifier: MIT
"""threats.md, "Rings": a guest's mistake breaks that one queue, and nothing else.

Each test is named after the line it stands for.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from typing import Callable

import pytest

from balloon import (DEFLATE, FREE_PAGE_HINT, INFLATE, MESSAGE, MESSAGE_VQ, MIB, PAGE,
                     PAGE_REPORTING, REPORTING, STATS, Guest, Queue, bits)
from process import Device
from qmp import Client
from rings import INDIRECT, NEXT, WRITE, Seg, SplitRing
from vhost_user import Closed, EventFd, Refused, Region, Req, state, u64, wait_for

FORMATS = [False, True]
QUEUES = [INFLATE, DEFLATE, STATS]


def broken(monitor: Client, index: int) -> bool:
    return bool(next(q for q in monitor.device()["queues"] if q["index"] == index)["broken"])


def expect_broken(guest: Guest, monitor: Client, index: int = INFLATE) -> None:
    """The queue is broken and says so; the others, the monitor and the session go on."""
    guest.queues[index].notify(always=True)
    assert guest.broke(index), "the error fd was not signalled"
    wait_for(lambda: broken(monitor, index), "queue shown as broken")
    assert guest.fe.alive()
    other = DEFLATE if index == INFLATE else INFLATE
    assert not broken(monitor, other) and not guest.broke(other, 0)
    assert sum(monitor.device()["driver-errors"].values()) > 0
    if other == INFLATE:
        guest.inflate(guest.some_pages(1))
    else:
        guest._transfer(DEFLATE, guest.some_pages(1))
    # A broken queue stays so until it is set up anew.
    guest.queues[index].kick.signal()
    assert broken(monitor, index)
    guest.reset()
    guest.inflate(guest.some_pages(2, seed=5))
    assert not broken(monitor, index)
    guest.check()


@pytest.fixture(params=FORMATS, ids=["split", "packed"])
def guest(request: pytest.FixtureRequest, device: Device, monitor: Client) -> Guest:
    """A guest that has negotiated indirect descriptors."""
    guest: Guest = device.guest(packed=request.param, indirect=True)
    return guest


@pytest.fixture
def split(device: Device) -> tuple[Guest, SplitRing]:
    guest = device.guest(indirect=True)
    ring = guest.queues[INFLATE].ring
    assert isinstance(ring, SplitRing)
    return guest, ring


def good(guest: Guest) -> Seg:
    """A harmless buffer: one page number that is no memory."""
    return Seg(guest.buffer(struct.pack("<I", 1)), 4)


def indirect(guest: Guest, segs: list[Seg], size: int = -1) -> Seg:
    """A descriptor of an indirect table with these entries, in the ring's own format."""
    table = guest.buffer(bytes(16 * max(len(segs), 1)))
    for at, seg in enumerate(segs):
        fields = (seg.link, seg.flags) if guest.packed else (seg.flags, seg.link)
        guest.mem.write(table + 16 * at, struct.pack("<QIHH", seg.gpa, seg.size, *fields))
    return Seg(table, 16 * len(segs) if size < 0 else size, INDIRECT)


def first(guest: Guest) -> int:
    return guest.mem.regions[0].gpa


def end(guest: Guest) -> int:
    return guest.mem.regions[0].gpa + guest.mem.regions[0].size


BAD_BUFFERS: dict[str, Callable[[Guest], list[Seg]]] = {
    "1-zero-length": lambda g: [Seg(g.buffer(b"\0" * 4), 0)],
    "1-zero-length-at-the-end": lambda g: [Seg(good(g).gpa, 4, NEXT, 1), Seg(first(g), 0)],
    "1-indirect-table-of-length-0": lambda g: [indirect(g, [good(g)], 0)],
    "1-zero-length-in-a-table": lambda g: [indirect(g, [Seg(first(g), 0)])],
    "4-table-length-misaligned": lambda g: [indirect(g, [good(g)] * 2, 17)],
    "4-table-length-under-16": lambda g: [indirect(g, [good(g)], 15)],
    "4-table-outside-memory": lambda g: [Seg(end(g), 16, INDIRECT)],
    "4-table-across-the-end": lambda g: [Seg(end(g) - 16, 32, INDIRECT)],
    "4-table-of-4-GiB": lambda g: [Seg(first(g), 0xFFFFFFF0, INDIRECT)],
    "5-wrong-direction": lambda g: [Seg(good(g).gpa, 4, WRITE)],
    "5-wrong-direction-second": lambda g: [Seg(good(g).gpa, 4, NEXT, 1),
                                           Seg(good(g).gpa, 4, WRITE)],
    "5-wrong-direction-in-a-table": lambda g: [indirect(g, [Seg(good(g).gpa, 4, WRITE)])],
    "5-below-memory": lambda g: [Seg(first(g) - 8, 8)],
    "5-across-the-start": lambda g: [Seg(first(g) - 4, 8)],
    "5-across-the-end": lambda g: [Seg(end(g) - 4, 8)],
    "5-between-regions": lambda g: [Seg(end(g), 4)],
    "5-from-region-to-region": lambda g: [Seg(end(g) - 4, g.mem.regions[1].gpa - end(g) + 8)],
    "5-wraps": lambda g: [Seg(2**64 - 4, 8)],
    "5-wraps-into-memory": lambda g: [Seg(2**64 - 16, 0xFFFFFFFF)],
    "5-far-out-in-a-table": lambda g: [indirect(g, [Seg(1 << 63, 4)])],
}


@pytest.mark.parametrize("name", BAD_BUFFERS)
def test_bad_buffer(guest: Guest, monitor: Client, name: str) -> None:
    guest.queues[INFLATE].ring.raw(BAD_BUFFERS[name](guest))
    expect_broken(guest, monitor)


@pytest.mark.parametrize("index", QUEUES)
def test_5_every_queue_breaks_alone(guest: Guest, monitor: Client, index: int) -> None:
    guest.queues[index].ring.raw([Seg(end(guest), 10)])
    expect_broken(guest, monitor, index)


def test_4_indirect_not_negotiated(device: Device, monitor: Client) -> None:
    for packed in FORMATS:
        guest = device.guest(packed=packed)
        guest.queues[INFLATE].ring.raw([indirect(guest, [good(guest)])])
        expect_broken(guest, monitor)
        device.close(guest)


def test_4_table_and_next_together(guest: Guest, monitor: Client) -> None:
    table = indirect(guest, [good(guest)])
    guest.queues[INFLATE].ring.raw([Seg(table.gpa, table.size, INDIRECT | NEXT, 1), good(guest)])
    expect_broken(guest, monitor)


def test_4_nested(guest: Guest, monitor: Client) -> None:
    """Packed rings: flags but WRITE are reserved in a table, and ignored; it is a plain buffer."""
    inner = indirect(guest, [good(guest)])
    table = indirect(guest, [inner])
    if not guest.packed:
        guest.queues[INFLATE].ring.raw([table])
        expect_broken(guest, monitor)
        return
    guest.queues[INFLATE].ring.add([table])
    guest.queues[INFLATE].notify()
    assert guest.queues[INFLATE].next_used() is not None and not broken(monitor, INFLATE)


def test_4_table_changes_between_two_reads(guest: Guest, monitor: Client) -> None:
    """Another virtual CPU rewrites an entry all the time: good, far out, good, nonsense."""
    table = indirect(guest, [good(guest)] * 8)
    entry = guest.mem.read(table.gpa, 16)
    variants = [struct.pack("<Q", 1 << 62) + entry[8:], entry, entry[:8] + b"\xff" * 8, entry]
    other_cpu = os.fork()
    if not other_cpu:
        while True:
            for variant in variants:
                guest.mem.write(table.gpa + 48, variant)
    try:
        for _ in range(60):
            if broken(monitor, INFLATE):
                guest.reset()
            queue = guest.queues[INFLATE]
            queue.ring.add([table])
            queue.kick.signal()
            wait_for(lambda q=queue: q.ring.used() or broken(monitor, INFLATE), "used or broken")
    finally:
        os.kill(other_cpu, signal.SIGKILL)
        os.waitpid(other_cpu, 0)
    guest.reset()
    guest.inflate(guest.some_pages(1))
    guest.check()


SPLIT_LOOPS = {
    "1-zero-length-loop": [Seg(0, 0, NEXT, 1), Seg(0, 0, NEXT, 0)],
    "3-next-is-itself": [Seg(0, 4, NEXT, 0)],
    "3-cycle-of-two": [Seg(0, 4, NEXT, 1), Seg(0, 4, NEXT, 0)],
    "3-cycle-after-a-start": [Seg(0, 4, NEXT, 1), Seg(0, 4, NEXT, 2), Seg(0, 4, NEXT, 1)],
    "3-next-past-the-table": [Seg(0, 4, NEXT, 128)],
    "3-next-65535": [Seg(0, 4, NEXT, 65535)],
}


@pytest.mark.parametrize("in_table", [False, True])
@pytest.mark.parametrize("name", SPLIT_LOOPS)
def test_loop(split: tuple[Guest, SplitRing], monitor: Client, name: str, in_table: bool) -> None:
    guest, ring = split
    segs = [Seg(good(guest).gpa, s.size, s.flags, s.link) for s in SPLIT_LOOPS[name]]
    ring.raw([indirect(guest, segs)] if in_table else segs)
    expect_broken(guest, monitor)


def test_3_packed_chain_without_end(device: Device, monitor: Client) -> None:
    guest = device.guest(packed=True, size=8)
    seg = good(guest)
    guest.queues[INFLATE].ring.raw([Seg(seg.gpa, 4, NEXT)] * 8)
    expect_broken(guest, monitor)


@pytest.mark.parametrize("head", [128, 32768, 65535])
def test_3_head_past_the_table(split: tuple[Guest, SplitRing], monitor: Client,
                               head: int) -> None:
    guest, ring = split
    ring.publish(head)
    expect_broken(guest, monitor)


@pytest.mark.parametrize("jump", [129, 1000, 32768, 65535])
def test_2_avail_idx_jumps(split: tuple[Guest, SplitRing], monitor: Client, jump: int) -> None:
    guest, ring = split
    ring.set_desc(0, good(guest))
    ring.set_avail_idx(jump)
    expect_broken(guest, monitor)


def test_2_descriptor_used_twice(split: tuple[Guest, SplitRing], monitor: Client) -> None:
    guest, ring = split
    ring.set_desc(0, good(guest))
    ring.chains[0] = [0]
    for _ in range(3):
        ring.publish(0)
    guest.queues[INFLATE].kick.signal()
    guest._transfer(DEFLATE, guest.some_pages(1))
    assert monitor.cmd("query-status") is not None


@pytest.mark.parametrize("name", ["chain", "table"])
def test_2_longer_than_4_gib(device: Device, monitor: Client, name: str) -> None:
    big = Region(1 << 32, 256 * MIB)
    try:
        for packed in FORMATS:
            guest = device.guest(packed=packed, indirect=True)
            guest.fe.tell(Req.ADD_MEM_REG, bytes(8) + big.describe(), [big.fd])
            segs = [Seg(big.gpa, big.size, NEXT, i + 1) for i in range(16)]
            segs.append(Seg(big.gpa, 4))
            if name == "table":
                plain = [Seg(s.gpa, s.size) for s in segs]
                segs = [indirect(guest, plain if packed else segs)]
            guest.queues[INFLATE].ring.raw(segs)
            expect_broken(guest, monitor)
            device.close(guest)
    finally:
        big.close()


def test_6_queue_resized_after_set_up(device: Device) -> None:
    """The ring ends with the memory; a greater size would reach beyond it."""
    guest = device.guest()
    region = guest.mem.regions[0]
    ring = SplitRing(guest.mem, region.gpa + region.size - 4096, 64)
    guest.queues[INFLATE].close()
    guest.queues[INFLATE] = Queue(ring)
    guest.start_queue(INFLATE, 0)
    guest.enable(INFLATE)
    try:
        guest.fe.tell(Req.SET_VRING_NUM, state(INFLATE, 32768))
    except (Refused, Closed):
        pass  # just as good
    ring.set_desc(0, good(guest))
    ring.set_avail_idx(20000)
    guest.queues[INFLATE].kick.signal()
    device.close(guest)
    device.good_session()


@pytest.mark.parametrize("offered", [6, 7, 27, 33, 50, 51, 63])
def test_7_feature_never_offered(device: Device, offered: int) -> None:
    guest = device.guest(start=False)
    assert not guest.offered >> offered & 1
    assert guest.fe.refused(Req.SET_FEATURES, u64(guest.features | bits(offered)))
    device.good_session()


def test_7_kick_before_the_driver_is_ready(device: Device, monitor: Client) -> None:
    guest = device.guest(start=False)
    kicks = [EventFd() for _ in range(6)]
    for index, kick in enumerate(kicks):
        kick.signal()
        try:
            guest.fe.vring_fd(Req.SET_VRING_KICK, index, kick.fd)
            guest.fe.tell(Req.SET_VRING_ENABLE, state(index, 1))
            kick.signal()
        except (Refused, Closed):
            break  # ends the session; the process stays
    for kick in kicks:
        kick.close()
    assert monitor.cmd("query-status") is not None
    device.close(guest)
    device.good_session()


def test_7_set_up_again_after_a_failed_reset(device: Device, monitor: Client) -> None:
    """Rings whose stop was never asked for are set up anew, elsewhere."""
    guest = device.guest()
    guest.inflate(guest.some_pages(10))
    guest.queues[INFLATE].ring.raw([Seg(end(guest), 4)])
    guest.queues[INFLATE].kick.signal()
    assert guest.broke(INFLATE)
    guest.stop()
    guest.stop()
    guest.reclaim(guest.ballooned)
    guest.start_queues()
    guest.inflate(guest.some_pages(10))
    guest.check()
    assert monitor.device()["held"] == 10 * PAGE


@pytest.mark.parametrize("packed", FORMATS)
@pytest.mark.parametrize("shape", ["many-buffers", "huge-buffers"])
def test_8_work_is_bounded_a_turn(device: Device, monitor: Client, packed: bool,
                                  shape: str) -> None:
    """A ring full of the largest buffers would keep the device busy for minutes; the monitor and
    the other queues are served meanwhile, and the end of the session ends the work."""
    big = Region(1 << 32, 64 * MIB)
    try:
        guest = device.guest(packed=packed)
        guest.fe.tell(Req.ADD_MEM_REG, bytes(8) + big.describe(), [big.fd])
        guest.mem.regions.append(big)
        count = 4096 if shape == "many-buffers" else 16
        size = MIB // 4 if shape == "many-buffers" else 64 * MIB
        guest.stop()
        ring = guest.make_ring(big.gpa + 32 * MIB, count)
        guest.queues[INFLATE].ring = ring
        guest.cont({index: guest.queues[index].ring.base() for index in QUEUES})
        for _ in range(count):
            ring.add([Seg(big.gpa, size)])
        guest.queues[INFLATE].kick.signal()
        for _ in range(8):
            start = time.monotonic()
            monitor.cmd("query-balloon-device")
            assert time.monotonic() - start < 2, "the monitor had to wait"
        assert sum(1 for _ in iter(ring.used, None)) < count, "done already: that proves nothing"
        guest._transfer(DEFLATE, guest.some_pages(1))
        assert guest.fe.alive()
        guest.mem.regions.pop()
        device.close(guest)
        device.good_session()
    finally:
        big.close()


@pytest.mark.parametrize("packed", FORMATS)
@pytest.mark.parametrize("event_idx", [False, True])
def test_8_no_lost_kick(device: Device, packed: bool, event_idx: bool) -> None:
    """Buffers that arrive just as the device goes to sleep: without a further kick, all come
    back. The guest kicks only when the device asked for it."""
    guest = device.guest(packed=packed, event_idx=event_idx)
    queue = guest.queues[DEFLATE]
    data = guest.buffer(struct.pack("<I", 1))
    for burst in range(300):
        for _ in range(burst % 3 + 1):
            queue.ring.add([Seg(data, 4)])
            queue.notify()
        for _ in range(burst % 3 + 1):
            assert queue.next_used() is not None, f"burst {burst} is stuck"


@pytest.mark.parametrize("in_table", [False, True])
def test_4_next_without_its_flag(guest: Guest, in_table: bool) -> None:
    """Where no chain goes on the field is anything, and is not looked at."""
    queue = guest.queues[INFLATE]
    pages = guest.some_pages(3)
    data = [Seg(guest.buffer(struct.pack("<I", pfn)), 4) for pfn in pages]
    for at, link in enumerate((0, 127, 0xFFFF)):
        seg = Seg(data[at].gpa, 4, 0, link)
        ring = queue.ring
        if guest.packed and not in_table:
            ring.add([seg])  # it is the buffer's id there
        else:
            ident = ring.add([indirect(guest, [seg]) if in_table else seg])
            if isinstance(ring, SplitRing) and not in_table:
                ring.set_desc(ident, seg)
        queue.notify()
        assert queue.next_used() is not None
    guest.ballooned.update(pages)
    assert guest.freed() == 3 * PAGE
    guest.check()


# What the device only reads, or only writes; hints may be either.
DIRECTIONS = {INFLATE: 0, DEFLATE: 0, STATS: 0, REPORTING: WRITE, MESSAGE: 0}


@pytest.mark.parametrize("packed", FORMATS)
@pytest.mark.parametrize("queue", DIRECTIONS)
def test_5_wrong_direction_on_every_queue(spawn: Callable[..., Device], queue: int,
                                          packed: bool) -> None:
    """It breaks alone: all others go on."""
    device = spawn("--features=message", "--message-limit=0")
    guest = device.guest(packed=packed, extra=[FREE_PAGE_HINT, PAGE_REPORTING, MESSAGE_VQ])
    guest.write_to(queue, [Seg(guest.buffer(bytes(16)), 16, WRITE - DIRECTIONS[queue])])
    assert guest.broke(guest.ring_of[queue])
    queues = device.monitor().device()["queues"]
    assert [q["index"] for q in queues if q["broken"]] == [queue]
    assert next(q["error"] for q in queues if q["broken"]) == "buffer-direction"
    pages = guest.some_pages(4)
    if queue != INFLATE:
        guest.inflate(pages)
    if queue != MESSAGE:
        guest.message(1)
    if queue != REPORTING:
        guest.report(guest.ranges(guest.some_pages(1, 3)))
    guest.hint_id(0)
    assert guest.fe.alive()


@pytest.mark.parametrize("packed", FORMATS)
def test_8_ring_that_refills_as_fast_as_it_drains(device: Device, monitor: Client,
                                                  packed: bool) -> None:
    """Another virtual CPU has the next buffer ready whenever one comes back; nobody else waits."""
    guest = device.guest(packed=packed)
    queue = guest.queues[DEFLATE]
    data = guest.buffer(struct.pack("<I", 1))
    other_cpu = os.fork()
    if not other_cpu:
        for _ in range(64):
            queue.ring.add([Seg(data, 4)])
        while True:
            queue.kick.signal()
            for _ in iter(queue.ring.used, None):
                queue.ring.add([Seg(data, 4)])
    try:
        for seed in range(1000):
            start = time.monotonic()
            guest.inflate(guest.some_pages(1, seed))
            assert monitor.cmd("query-status")["running"] and guest.fe.alive()
            assert time.monotonic() - start < 5
            served = next(q["buffers"] for q in monitor.device()["queues"]
                          if q["index"] == DEFLATE)
            if seed > 20 and served > 1000:
                break
        assert served > 1000, "it was not refilled: that proves nothing"
    finally:
        os.kill(other_cpu, signal.SIGKILL)
        os.waitpid(other_cpu, 0)
    guest.check()
