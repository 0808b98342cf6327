# SPDX-License-Identifier: MIT
"""The dirty log (vhost-user specification, "Migration"): what the device writes to guest memory is
marked there, page by page, and nothing else is."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from typing import Callable, Iterable, Optional

import pytest

from balloon import (DEFLATE, FREE_PAGE, FREE_PAGE_HINT, HINT_CMD, HINT_STOP, INFLATE, MESSAGE,
                     MESSAGE_VQ, MIB, PAGE, PAGE_REPORTING, REPORTING, STATS, Guest, stat)
from process import Device
from qmp import Client
from rings import USED, PackedRing, Ring, Seg, SplitRing
from vhost_user import (ADDR, LOG_ALL, LOG_PAGE, OFFERED_PROTOCOL, PF_LOG_SHMFD, VRING_LOG, Closed,
                        DirtyLog, EventFd, FrontEnd, Region, Req, u64, wait_for)

Spawn = Callable[..., Device]
KINDS = ["split", "split-event", "packed", "packed-event"]


def make_guest(device: Device, kind: str, **kwargs: object) -> Guest:
    """Rings are so large that what the device writes lies in several pages."""
    packed = kind.startswith("packed")
    return device.guest(packed=packed, event_idx=kind.endswith("event"),
                        size=1000 if packed else 1024, **kwargs)


def pages_of(spans: Iterable[tuple[int, int]]) -> set[int]:
    return {page for gpa, size in spans
            for page in range(gpa // LOG_PAGE, (gpa + size - 1) // LOG_PAGE + 1)}


def written(ring: Ring, used: Iterable[int], at: Optional[int] = None) -> set[int]:
    """The pages that the device writes when it returns buffers: for a split ring those with these
    numbers, for a packed one those at these slots. `at`: where the log has the used ring."""
    if isinstance(ring, PackedRing):
        return pages_of([(ring.desc + 16 * (slot % ring.size), 16) for slot in used]
                        + [(ring.device, 4)])
    base = ring.device if at is None else at
    spans = [(base + 4 + 8 * (number % ring.size), 8) for number in used]
    asks = (base + 4 + 8 * ring.size, 2) if ring.event_idx else (base, 2)
    return pages_of([*spans, (base + 2, 2), asks])


def position(ring: Ring) -> int:
    return ring.used_idx if isinstance(ring, SplitRing) else ring.used_at


def batch(guest: Guest, role: int, pfns: list[int], each: int = 1,
          meanwhile: Callable[[], object] = lambda: None) -> tuple[int, int]:
    """One buffer for each page, all at once, `each` a piece; from where to where returned."""
    queue = guest.queue(role)
    start = position(queue.ring)
    for pfn in pfns:
        at = guest.buffer(struct.pack("<I", pfn))
        queue.ring.add([Seg(at, 4)] * each)
    queue.notify()
    meanwhile()
    for _ in pfns:
        assert queue.next_used() is not None, "buffer not returned"
    if role == INFLATE:
        guest.ballooned.update(pfns)
    else:
        guest.reclaim(pfns)
    guest.num_pages()  # the turn in which the last one was returned is over
    return start, start + len(pfns) * (each if guest.packed else 1)


@pytest.mark.parametrize("offset", [0, 8, 3 * 4096 + 24])
@pytest.mark.parametrize("kind", KINDS)
def test_exactly_what_is_written(device: Device, kind: str, offset: int) -> None:
    """Each step is served with a log of its own; many of them cross into another page."""
    guest = make_guest(device, kind)
    pages = guest.some_pages(230)
    log = DirtyLog(4096, offset)
    guest.log_to(log)
    log.clear()
    for step in range(16):
        some = pages[:1 + 29 * (step % 8)]
        role = (INFLATE, DEFLATE)[step % 2]
        if role == DEFLATE:
            some = sorted(guest.ballooned)
        start, end = batch(guest, role, some)
        assert log.pages() == written(guest.queue(role).ring, range(start, end)), f"step {step}"
        log.clear()
    log.close()
    guest.check()


@pytest.mark.parametrize("kind", ["packed", "packed-event"])
def test_a_packed_chain_has_one_used_descriptor(device: Device, kind: str) -> None:
    """Only the first slot of a chain is written."""
    guest = make_guest(device, kind)
    log = DirtyLog()
    guest.log_to(log)
    log.clear()
    for pfn in guest.some_pages(9):
        start, end = batch(guest, INFLATE, [pfn], each=300)
        assert end - start == 300
        assert log.pages() == written(guest.queue(INFLATE).ring, [start])
        log.clear()
    log.close()


@pytest.mark.parametrize("at", [0, 0x800, 0xFF0, 100 * PAGE - 4, 0x40_0000_0000 // 8])
def test_a_used_ring_that_the_log_has_elsewhere(device: Device, at: int) -> None:
    """log_guest_addr need not be an address of guest memory."""
    guest = make_guest(device, "split-event")
    log = DirtyLog(at // LOG_PAGE // 8 + 4096)
    guest.log_to(log, {0: at, 1: at + 0x10000})
    log.clear()
    pages = guest.some_pages(200)
    for step in range(8):
        role = (INFLATE, DEFLATE)[step % 2]
        start, end = batch(guest, role, pages)
        assert log.pages() == written(guest.queue(role).ring, range(start, end),
                                      at + 0x10000 * (step % 2))
        log.clear()
    log.close()


class Touched:
    """What the device changes in the rings' memory, seen by its content; within the first lap."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.before = self.look()

    def look(self) -> dict[int, bytes]:
        """All that the device may write, by its address."""
        found = {}
        for queue in self.guest.queues.values():
            ring = queue.ring
            found[ring.device] = self.guest.mem.read(ring.device, ring.end - ring.device)
            if isinstance(ring, PackedRing):
                found[ring.desc] = self.guest.mem.read(ring.desc, 16 * ring.size)
        return found

    def changed(self) -> set[int]:
        """Descriptors are the device's if they have become used ones."""
        descs = {queue.ring.desc for queue in self.guest.queues.values()}
        return {(gpa + i) // LOG_PAGE for gpa, now in self.look().items()
                for i, (old, new) in enumerate(zip(self.before[gpa], now))
                if old != new and (gpa not in descs or i % 16 == 15 and new & ~old & USED >> 8)}

    def allowed(self) -> set[int]:
        return pages_of((gpa, len(data)) for gpa, data in self.before.items())


@pytest.mark.parametrize("kind", KINDS)
def test_every_queue(spawn: Spawn, kind: str) -> None:
    device = spawn("--features=message")
    monitor = device.monitor()
    guest = make_guest(device, kind, extra=[FREE_PAGE_HINT, PAGE_REPORTING, MESSAGE_VQ])
    free = guest.some_pages(60)
    monitor.cmd("free-page-hint", {"action": "start"})
    command = guest.config_field(HINT_CMD)
    log = DirtyLog()
    guest.log_to(log)

    def hints() -> None:
        guest.hint_id(command)
        guest.hint(guest.ranges(free[:20]))
        guest.hint_id(HINT_STOP)

    def polled() -> None:
        monitor.cmd("refresh-balloon-stats")
        assert guest.stats_wanted()

    steps: list[tuple[int, Callable[[], object]]] = [
        (STATS, lambda: guest.give_stats(stat(4, 1))), (STATS, polled),
        (FREE_PAGE, hints), (REPORTING, lambda: guest.report(guest.ranges(free[20:50]))),
        (MESSAGE, lambda: guest.message(1, 2)), (INFLATE, lambda: guest.inflate(free[50:])),
        (DEFLATE, lambda: guest.deflate(free[50:]))]
    for role, act in steps:
        guest.num_pages()
        log.clear()
        touched = Touched(guest)
        act()
        if guest.stats_buffer is not None:
            monitor.event("BALLOON")
            monitor.events.clear()
        guest.num_pages()
        assert touched.changed() <= log.pages() <= touched.allowed(), f"queue {role}"
        mine = guest.queue(role).ring
        assert log.pages() <= pages_of([(mine.desc, mine.end - mine.desc)]), f"queue {role}"
        assert log.pages() or role == STATS
    log.close()
    guest.reclaim(free)


@pytest.mark.parametrize("packed", [False, True])
def test_only_when_it_is_asked_for(device: Device, packed: bool) -> None:
    """It takes a log, the feature, and each ring's flag."""
    guest = device.guest(packed=packed)
    log = DirtyLog()
    pages = guest.some_pages(10)
    ring = guest.queue(INFLATE).ring

    def serves(expected: bool) -> None:
        log.clear()
        batch(guest, INFLATE, pages)
        assert bool(log.pages()) == expected
        batch(guest, DEFLATE, pages)

    serves(False)
    guest.fe.set_log(log)
    serves(False)
    guest.log_at = {0: ring.device, 1: guest.queue(DEFLATE).ring.device}
    for index, queue in guest.queues.items():
        guest.set_addr(index, queue.ring)
    serves(False)  # the flags alone
    guest.fe.tell(Req.SET_FEATURES, u64(guest.features | 1 << LOG_ALL))
    serves(True)
    guest.fe.tell(Req.SET_FEATURES, u64(guest.features))
    serves(False)
    guest.log_to(log)
    serves(True)
    del guest.log_at[0]
    guest.set_addr(0, ring)  # the other ring's flag stays
    log.clear()
    batch(guest, INFLATE, pages)
    assert log.pages() == set()
    batch(guest, DEFLATE, pages)
    assert log.pages() & pages_of([(guest.queue(DEFLATE).ring.desc, PAGE)])
    guest.log_to(None)
    serves(False)
    log.close()
    guest.check()


def test_the_flags_do_not_restart_the_device(device: Device, monitor: Client) -> None:
    """Logging comes and goes under a guest with a full balloon."""
    guest = device.guest()
    guest.inflate(guest.some_pages(100))
    log = DirtyLog()
    for _ in range(5):
        guest.log_to(log)
        guest.log_to(None)
    assert monitor.device()["held"] == 100 * PAGE
    assert [queue["broken"] for queue in monitor.device()["queues"]] == [False] * 3
    log.close()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_after_the_rings_have_stopped(device: Device, monitor: Client, kind: str) -> None:
    guest = make_guest(device, kind)
    log = DirtyLog()
    guest.log_to(log)
    guest.give_stats(stat(4, 1))
    bases = guest.stop()
    log.clear()
    touched = Touched(guest)
    ident = guest.submit(INFLATE, struct.pack("<I", guest.pages()[0]))
    guest.queue(INFLATE).kick.signal()
    monitor.cmd("query-status")
    time.sleep(0.05)
    assert log.pages() == touched.changed() == set()
    guest.cont(bases)
    assert guest.returned(INFLATE, ident)
    guest.num_pages()
    assert log.pages() >= written(guest.queue(INFLATE).ring, [0])
    log.close()


class Shadow:
    """The used ring as another host would see it that copies a page only if the log says so."""

    def __init__(self, guest: Guest, index: int) -> None:
        self.mem, self.ring = guest.mem, guest.queues[index].ring
        self.copy = bytearray(self.real())

    def real(self) -> bytes:
        """Without the flags in split rings, all that only the device writes."""
        return self.mem.read(self.ring.device, self.ring.end - self.ring.device)

    def take(self, pages: set[int]) -> None:
        real = self.real()
        for i, byte in enumerate(real):
            if (self.ring.device + i) // LOG_PAGE in pages:
                self.copy[i] = byte


@pytest.mark.parametrize("kind", ["split", "split-event"])
def test_replaced_while_running(device: Device, monitor: Client, kind: str) -> None:
    """As a migration does it: each pass has a log of its own, what it says is copied, and at the
    end nothing is missing. Workers die meanwhile."""
    guest = make_guest(device, kind)
    log = DirtyLog(offset=64)
    guest.log_to(log)
    shadows = [Shadow(guest, index) for index in (0, 1)]
    pages = guest.some_pages(400)
    for turn in range(24):
        some = pages[turn * 16:turn * 16 + 16]
        batch(guest, INFLATE, some)
        if turn % 4 == 3:
            device.kill_worker()
        batch(guest, DEFLATE, some[:5])
        old, log = log, DirtyLog(offset=4096 * (turn % 3))
        guest.fe.set_log(log)
        said = old.pages()
        assert said
        for shadow in shadows:
            shadow.take(said)
        batch(guest, DEFLATE, some[5:10])
        assert old.pages() == said, "the old log is still written to"
        old.close()
    guest.stop()
    for shadow in shadows:
        shadow.take(log.pages())
        assert shadow.copy == shadow.real()
    assert monitor.device()["held"] == len(guest.ballooned) * PAGE
    log.close()
    guest.check()


@pytest.mark.parametrize("kind", KINDS)
def test_16_killed_while_it_logs(device: Device, kind: str) -> None:
    """All that one worker or the next has written is marked, at whatever moment one dies."""
    guest = make_guest(device, kind)
    log = DirtyLog()
    guest.log_to(log)
    pages = guest.some_pages(200)
    ours = pages_of((q.ring.desc, q.ring.end - q.ring.desc) for q in guest.queues.values())
    for turn in range(8):
        log.clear()
        role = (INFLATE, DEFLATE)[turn % 2]
        start, end = batch(guest, role, pages, meanwhile=device.kill_worker)
        assert written(guest.queue(role).ring, range(start, end)) <= log.pages() <= ours
    log.close()
    guest.check()


# Logs that are none


def start_log(fe: FrontEnd, fd: int, size: int, offset: int) -> bool:
    """True if the log is taken; False if the session ends."""
    try:
        fe.ask(Req.SET_LOG_BASE, struct.pack("=QQ", size, offset), [fd])
        return True
    except Closed:
        return False


@pytest.mark.parametrize("size,offset", [
    (4097, 0), (4096, 1), (1, 4096), (4096, 2**64 - 4096), (2**64 - 1, 1), (2**64 - 1, 2**64 - 1),
    (2**63, 2**63), (2**63 - 1, 0), (0, 0), (0, 2**64 - 1), (1, 2**63)])
def test_13_log_that_is_not_in_its_file(device: Device, monitor: Client, size: int,
                                        offset: int) -> None:
    """threats.md 13: offset and size that wrap, or reach past the end."""
    guest = device.guest()
    log = DirtyLog(4096)
    assert not start_log(guest.fe, log.fd, size, offset)
    assert "log" in monitor.event("VMM_DISCONNECTED")["reason"]
    log.close()
    device.close(guest)
    device.good_session()


def odd_files() -> dict[str, Callable[[], int]]:
    def sealed() -> int:
        fd = os.memfd_create("sealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, 4096)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        return fd

    def read_only() -> int:
        fd = os.memfd_create("log", os.MFD_CLOEXEC)
        os.ftruncate(fd, 4096)
        copy = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        os.close(fd)
        return copy

    def pipe() -> int:
        fds = os.pipe()
        os.close(fds[0])
        return fds[1]

    return {"eventfd": lambda: os.eventfd(0), "sealed": sealed, "read-only": read_only,
            "pipe": pipe, "directory": lambda: os.open("/", os.O_RDONLY),
            "device": lambda: os.open("/dev/zero", os.O_RDWR),
            "path": lambda: os.open("/dev/null", os.O_PATH)}


@pytest.mark.parametrize("kind", list(odd_files()))
def test_13_log_in_a_file_of_the_wrong_kind(device: Device, kind: str) -> None:
    guest = device.guest()
    fd = odd_files()[kind]()
    assert not start_log(guest.fe, fd, 4096, 0)
    os.close(fd)
    device.close(guest)
    device.good_session()


def test_13_wrong_number_of_descriptors(device: Device) -> None:
    log = DirtyLog()
    for fds in ([], [log.fd, log.fd]):
        guest = device.guest()
        with pytest.raises(Closed):
            guest.fe.ask(Req.SET_LOG_BASE, log.describe(), fds)
        device.close(guest)
    log.close()
    device.good_session()


def test_13_log_without_its_feature(device: Device) -> None:
    fe, log = device.front_end(), DirtyLog()
    fe.tell(Req.SET_PROTOCOL_FEATURES, u64(OFFERED_PROTOCOL & ~(1 << PF_LOG_SHMFD)))
    assert not start_log(fe, log.fd, log.size, 0)
    log.close()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("how", ["addr", "features", "log"])
def test_13_log_too_short_for_a_ring(device: Device, packed: bool, how: str) -> None:
    """Whatever comes last: what could not be logged would be missing on the other host."""
    guest = device.guest(packed=packed)
    ring = guest.queue(INFLATE).ring
    end = ring.device + 4 if packed else ring.device + 6 + 8 * ring.size
    short, good = DirtyLog((end - 1) // LOG_PAGE // 8), DirtyLog()
    guest.features |= 1 << LOG_ALL
    flagged = ADDR.pack(0, VRING_LOG, guest.mem.uaddr(ring.desc), guest.mem.uaddr(ring.device),
                        guest.mem.uaddr(ring.driver), ring.device)
    if how == "log":
        guest.log_to(good)
        assert not start_log(guest.fe, short.fd, short.size, 0)
    elif how == "addr":
        guest.fe.set_log(short)
        guest.fe.tell(Req.SET_FEATURES, u64(guest.features))
        assert guest.fe.refused(Req.SET_VRING_ADDR, flagged)
    else:
        guest.fe.set_log(short)
        guest.fe.tell(Req.SET_VRING_ADDR, flagged)
        assert guest.fe.refused(Req.SET_FEATURES, u64(guest.features))
    device.close(guest)
    short.close()
    good.close()
    device.good_session()


@pytest.mark.parametrize("at", [2**64 - 1, 2**64 - 1032, 2**63, 1 << 40])
def test_13_ring_address_for_the_log_that_wraps(device: Device, at: int) -> None:
    guest = device.guest()
    log = DirtyLog()
    guest.fe.set_log(log)
    guest.fe.tell(Req.SET_FEATURES, u64(guest.features | 1 << LOG_ALL))
    ring = guest.queue(INFLATE).ring
    assert guest.fe.refused(Req.SET_VRING_ADDR, ADDR.pack(
        0, VRING_LOG, guest.mem.uaddr(ring.desc), guest.mem.uaddr(ring.device),
        guest.mem.uaddr(ring.driver), at))
    log.close()
    device.close(guest)
    device.good_session()


@pytest.mark.parametrize("packed", [False, True])
def test_14_log_that_is_truncated_later(device: Device, monitor: Client, packed: bool) -> None:
    """Writing to it is a SIGBUS then: the session ends, the device serves the next one."""
    guest = device.guest(packed=packed)
    log = DirtyLog()
    guest.log_to(log)
    guest.inflate(guest.some_pages(5))
    worker = device.worker()
    os.ftruncate(log.fd, 0)
    guest.submit(INFLATE, struct.pack("<I", guest.some_pages(1)[0]))
    assert guest.fe.ended()
    assert "truncated" in monitor.event("VMM_DISCONNECTED")["reason"]
    assert device.worker() == worker, "the worker died"
    log.close()
    device.close(guest)
    device.good_session()


def test_14_log_truncated_while_the_worker_is_away(device: Device, monitor: Client) -> None:
    """The successor finds the log too short: it cannot go on with the session, and says so."""
    guest = device.guest()
    log = DirtyLog()
    guest.log_to(log)
    os.ftruncate(log.fd, 100)
    device.kill_worker()
    assert guest.fe.ended()
    assert monitor.event("VMM_DISCONNECTED")["reason"]
    log.close()
    device.close(guest)
    device.good_session()


def test_13_log_in_guest_memory(device: Device) -> None:
    """What it spoils is the guest's own."""
    guest = device.guest(regions=[Region(0, 4 * MIB)])
    fd = guest.mem.regions[0].fd
    assert start_log(guest.fe, fd, 4096, 3 * MIB)
    guest.log_at = {index: queue.ring.device for index, queue in guest.queues.items()}
    guest.fe.tell(Req.SET_FEATURES, u64(guest.features | 1 << LOG_ALL))
    for index, queue in guest.queues.items():
        guest.set_addr(index, queue.ring)
    guest.inflate([3 * MIB // PAGE + n for n in range(8)])
    guest.inflate(guest.some_pages(20))


def test_signals_for_the_log_are_taken(device: Device) -> None:
    """SET_LOG_FD is optional; no descriptor may be lost over it."""
    guest = device.guest()
    for _ in range(20):
        event = EventFd()
        guest.fe.tell(Req.SET_LOG_FD, b"", [event.fd])
        event.close()
    guest.inflate(guest.some_pages(5))


def test_many_logs_are_not_kept(device: Device) -> None:
    guest = device.guest()
    before = device.fds()
    for n in range(100):
        log = DirtyLog(4096 + n)
        guest.fe.set_log(log)
        log.close()
    wait_for(lambda: sum(device.fds().values()) <= sum(before.values()) + 2, "old logs closed")
