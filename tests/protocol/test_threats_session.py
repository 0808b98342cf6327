# SPDX-License-Identifier: MIT
"""threats.md, "Socket": a front end's mistake ends that session and nothing else.

Each test is named after the line it stands for. After every one the process must hold no file and
no guest memory of the session, which the `spawn` fixture looks at, and serve a fresh guest.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from dataclasses import dataclass
from typing import Callable, Iterator, Optional

import pytest

from balloon import DEFLATE, INFLATE, MIB, PAGE, Guest, bits
from process import Device
from qmp import Client
from rings import SplitRing
from vhost_user import (ADDR, CONFIG, CONFIG_CHANGE, HEADER, NEED_REPLY, NO_FD, OFFERED_PROTOCOL,
                        REPLY, VERSION,
                        Closed, EventFd, FrontEnd, Refused, Region, Req, config, mem_table,
                        one_region, state, u64)


@pytest.fixture
def served(device: Device) -> Iterator[Device]:
    """A device that must still serve a guest after the test."""
    yield device
    device.close()
    device.good_session()


@pytest.fixture
def fe(served: Device) -> FrontEnd:
    """A front end that has negotiated all that is offered, and sent no memory."""
    guest = served.guest(start=False)
    guest.fe.tell(Req.SET_FEATURES, u64(guest.features))
    return guest.fe


@pytest.fixture
def spare() -> Iterator[Callable[[], int]]:
    """Files to be passed where they do not belong."""
    fds: list[int] = []

    def one() -> int:
        fds.append(os.eventfd(0))
        return fds[-1]

    yield one
    for fd in fds:
        os.close(fd)


WITHOUT_FDS = {
    Req.GET_FEATURES: b"", Req.SET_FEATURES: u64(bits(30, 32)), Req.SET_OWNER: b"",
    Req.RESET_OWNER: b"", Req.SET_VRING_NUM: state(0, 64), Req.SET_VRING_BASE: state(0, 0),
    Req.GET_VRING_BASE: state(0), Req.GET_PROTOCOL_FEATURES: b"",
    Req.SET_PROTOCOL_FEATURES: u64(OFFERED_PROTOCOL), Req.GET_QUEUE_NUM: b"",
    Req.SET_VRING_ENABLE: state(0, 0), Req.GET_CONFIG: config(0, bytes(8)),
    Req.SET_CONFIG: config(0, bytes(8)), Req.GET_MAX_MEM_SLOTS: b"",
    Req.SET_VRING_ADDR: ADDR.pack(0, 0, 0, 0, 0, 0),
}
WITH_FD = {
    Req.SET_VRING_KICK: u64(0), Req.SET_VRING_CALL: u64(0), Req.SET_VRING_ERR: u64(0),
    Req.SET_BACKEND_REQ_FD: b"",
    Req.ADD_MEM_REG: bytes(8) + struct.pack("=4Q", 0, PAGE, 0, 0),
    Req.SET_MEM_TABLE: struct.pack("=II4Q", 1, 0, 0, PAGE, 0, 0),
}
NOT_OFFERED = {Req.SET_LOG_BASE: u64(0), Req.SET_LOG_FD: b"", Req.GET_INFLIGHT_FD: bytes(20),
               Req.SET_INFLIGHT_FD: bytes(20), Req.RESET_DEVICE: b""}


VRING_FDS = (Req.SET_VRING_KICK, Req.SET_VRING_CALL, Req.SET_VRING_ERR)
VRING_STATES = (Req.SET_VRING_NUM, Req.SET_VRING_BASE, Req.GET_VRING_BASE, Req.SET_VRING_ENABLE)


@dataclass
class Mistake:
    """A message that no front end may send, after the negotiation."""

    req: int
    payload: bytes = b""
    fds: int = 0
    size: Optional[int] = None
    flags: int = VERSION | NEED_REPLY


def mistakes() -> Iterator[tuple[str, Mistake]]:
    for req, payload in WITHOUT_FDS.items():
        yield f"13-{req.name}-with-fds", Mistake(req, payload, 2)
    for req, payload in WITH_FD.items():
        for count in (0, 2, 64):
            yield f"13-{req.name}-with-{count}-fds", Mistake(req, payload, count)
    for req in VRING_FDS:
        yield f"13-{req.name}-says-none-has-one", Mistake(req, u64(NO_FD), 1)
    table = struct.pack("=II", 64, 0) + bytes(64 * 32)
    yield "13-most-fds-that-a-message-can-have", Mistake(Req.SET_MEM_TABLE, table, 253)
    for index in (6, 255, 256, 0xFFFFFFFF):
        for req in VRING_STATES:
            yield f"14-{req.name}-{index}", Mistake(req, state(index, 1))
        for req in VRING_FDS:
            yield f"14-{req.name}-{index}", Mistake(req, u64(index), 1)
        yield f"14-SET_VRING_ADDR-{index}", Mistake(Req.SET_VRING_ADDR,
                                                    ADDR.pack(index, 0, 0, 0, 0, 0))
    for req, payload in {**WITHOUT_FDS, Req.REM_MEM_REG: bytes(40)}.items():
        yield f"15-{req.name}-long", Mistake(req, payload + b"\0")
        if payload:
            yield f"15-{req.name}-short", Mistake(req, payload[:-1])
    for size in (4096, 65536, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF):
        # The end comes at the header; nothing waits for what is announced.
        yield f"15-oversized-{size}", Mistake(Req.SET_CONFIG, size=size)
    for req in (Req.GET_CONFIG, Req.SET_CONFIG):
        for size in (7, 257, 1 << 16, 0xFFFFFFFF):
            yield f"15-{req.name}-{size}", Mistake(req, CONFIG.pack(0, size, 0) + bytes(8))
        yield f"15-{req.name}-wraps", Mistake(req, config(0xFFFFFFFC, bytes(8)))
    for flags in (0, 2, 3, VERSION | REPLY, 0xFFFFFFF0):
        yield f"15-flags-{flags:x}", Mistake(Req.GET_FEATURES, flags=flags)
    for number in (0, 19, 20, 22, 23, 26, 27, 28, 29, 30, 33, 35, 39, 40, 41, 1000, 0xFFFFFFFF):
        yield f"15-unknown-request-{number}", Mistake(number)
    for req, payload in NOT_OFFERED.items():
        yield f"15-{req.name}-was-not-offered", Mistake(req, payload)
    for bit in (2, 12, 14, 63):
        yield f"15-protocol-feature-{bit}", Mistake(Req.SET_PROTOCOL_FEATURES,
                                                    u64(OFFERED_PROTOCOL | 1 << bit))


MISTAKES = dict(mistakes())


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(fe: FrontEnd, spare: Callable[[], int], name: str) -> None:
    mistake = MISTAKES[name]
    assert fe.refused(mistake.req, mistake.payload, [spare() for _ in range(mistake.fds)],
                      mistake.size, mistake.flags)


@pytest.mark.parametrize("kind", ["eventfd", "socket", "pipe", "directory", "null", "read-only"])
def test_13_wrong_kind_of_memory(fe: FrontEnd, kind: str) -> None:
    opened = []
    if kind == "eventfd":
        opened = [os.eventfd(0)]
    elif kind == "socket":
        opened = [sock.detach() for sock in socket.socketpair()]
    elif kind == "pipe":
        opened = list(os.pipe())
    elif kind == "read-only":
        region = Region(0, MIB)
        opened = [os.open(f"/proc/self/fd/{region.fd}", os.O_RDONLY)]
        region.close()
    else:
        opened = [os.open("/" if kind == "directory" else "/dev/null", os.O_RDONLY)]
    try:
        payload = bytes(8) + struct.pack("=4Q", 0, PAGE, 0, 0)
        assert fe.refused(Req.ADD_MEM_REG, payload, opened[:1])
    finally:
        for fd in opened:
            os.close(fd)


@pytest.mark.parametrize("req", [Req.SET_VRING_KICK, Req.SET_VRING_CALL, Req.SET_BACKEND_REQ_FD],
                         ids=lambda r: r.name)
def test_13_wrong_kind_of_signal(served: Device, monitor: Client, req: Req) -> None:
    """A regular file, always readable, as kick, call or channel: refused or useless, not fatal,
    and the process does not spin on it."""
    guest = served.guest()
    with open(os.path.join(served.dir, "stderr"), "rb") as file:
        payload = b"" if req == Req.SET_BACKEND_REQ_FD else u64(0)
        try:
            guest.fe.tell(req, payload, [file.fileno()])
            guest.submit(INFLATE, bytes(4))
            monitor.cmd("balloon", {"value": 5 * MIB})
        except (Refused, Closed):
            assert guest.fe.ended()
        ticks = served.cpu_ticks()
        guest.queues[DEFLATE].call.wait(0.5)
        assert served.cpu_ticks() - ticks < 25, "spinning"


def test_13_signals_replaced_again_and_again(served: Device) -> None:
    guest = served.guest()
    before = served.fds()
    for _ in range(50):
        for req in VRING_FDS:
            signal = EventFd()
            guest.fe.vring_fd(req, 5, signal.fd)
            signal.close()
    for req in VRING_FDS:
        guest.fe.vring_fd(req, 5, None)
    after = served.fds()
    assert after["anon_inode"] <= before["anon_inode"], f"{before} -> {after}"
    guest.inflate(guest.some_pages(3))


def test_13_removal_with_an_fd(served: Device) -> None:
    """The back end MAY accept one, and MUST close it without using it."""
    guest = served.guest()
    before = served.fds()
    region = Region(512 * MIB, MIB)
    guest.fe.tell(Req.ADD_MEM_REG, one_region(region), [region.fd])
    try:
        guest.fe.tell(Req.REM_MEM_REG, one_region(region), [region.fd])
        assert served.fds() == before
    except Refused:
        assert guest.fe.ended()
    region.close()


BAD_REGIONS = {
    "size-0": (0, 0, 0, 0),
    "larger-than-its-file": (0, 2 * MIB, 0, 0),
    "offset-behind-the-file": (0, PAGE, 0, 2 * MIB),
    "offset-plus-size-over-the-file": (0, MIB, 0, PAGE),
    "size-2^64": (0, 2**64 - PAGE, 0, 0),
    "gpa-wraps": (2**64 - PAGE, MIB, 0, 0),
    "uaddr-wraps": (0, MIB, 2**64 - PAGE, 0),
    "offset-wraps": (0, MIB, 0, 2**64 - PAGE),
    "gpa-overlaps": (16 * MIB + PAGE, MIB, 0, 0),
    "gpa-encloses": (15 * MIB + 4 * PAGE, MIB, 0, 0),
    "uaddr-overlaps": (0, MIB, 16 * MIB + 0x7F00_0000_0000 + PAGE, 0),
}


@pytest.mark.parametrize("table", [False, True], ids=["ADD_MEM_REG", "SET_MEM_TABLE"])
@pytest.mark.parametrize("name", BAD_REGIONS)
def test_14_bad_region(served: Device, name: str, table: bool) -> None:
    guest = served.guest()
    region = Region(0, MIB)
    bad = struct.pack("=4Q", *BAD_REGIONS[name])
    try:
        if table:
            regions = guest.mem.regions
            payload = struct.pack("=II", 3, 0) + mem_table(regions)[8:] + bad
            fds = [r.fd for r in regions] + [region.fd]
            assert guest.fe.refused(Req.SET_MEM_TABLE, payload, fds)
        else:
            assert guest.fe.refused(Req.ADD_MEM_REG, bytes(8) + bad, [region.fd])
    finally:
        region.close()


@pytest.mark.parametrize("count", [65, 0xFFFFFFFF])
def test_14_too_many_regions(fe: FrontEnd, count: int) -> None:
    region = Region(0, MIB)
    table = struct.pack("=II", count, 0) + b"".join(
        struct.pack("=4Q", i * MIB, PAGE, i * MIB, 0) for i in range(65))
    assert fe.refused(Req.SET_MEM_TABLE, table, [region.fd] * 65)
    region.close()


def test_14_count_over_the_payload(fe: FrontEnd) -> None:
    regions = [Region(i * MIB, PAGE) for i in range(3)]
    assert fe.refused(Req.SET_MEM_TABLE, mem_table(regions)[:-1], [r.fd for r in regions])
    for region in regions:
        region.close()


def test_14_removal_of_what_is_not_there(served: Device) -> None:
    for change in ((1, 0, 0), (0, PAGE, 0), (0, 0, 1)):
        guest = served.guest()
        region = guest.mem.regions[1]
        payload = bytes(8) + struct.pack("=4Q", region.gpa + change[0], region.size + change[1],
                                         region.uaddr + change[2], 0)
        assert guest.fe.refused(Req.REM_MEM_REG, payload)
        served.close(guest)


@pytest.mark.parametrize("packed", [False, True])
def test_14_file_truncated_later(served: Device, monitor: Client, packed: bool) -> None:
    """SIGBUS is the front end's doing, and must not be our end."""
    guest = served.guest(packed=packed)
    pages = guest.some_pages(10)
    guest.inflate(pages)
    guest.submit(DEFLATE, struct.pack("<I", pages[0]))
    os.ftruncate(guest.mem.regions[1].fd, 0)
    page = guest.mem.regions[1].gpa // PAGE
    guest.submit(INFLATE, struct.pack("<4I", page, page + 1, page + 700, page + 3))
    os.ftruncate(guest.mem.regions[0].fd, 0)
    for queue in guest.queues.values():
        queue.kick.signal()
    assert monitor.device() is not None
    try:
        guest.fe.ask(Req.GET_VRING_BASE, state(INFLATE))
    except Closed:
        pass
    assert not served.dead()


@pytest.mark.parametrize("num", [0, 3, 100, 32769, 65536, 0x80000000, 0xFFFFFFFF])
def test_6_queue_size(served: Device, num: int) -> None:
    guest = served.guest(start=False)
    guest.fe.tell(Req.SET_FEATURES, u64(guest.features))
    guest.send_memory()
    refused_at_start(guest, lambda: guest.fe.tell(Req.SET_VRING_NUM, state(0, num)), 64)


def refused_at_start(guest: Guest, mistake: Callable[[], None], size: int) -> None:
    """A ring that cannot be is refused when it is described or, at the latest, when it starts."""
    ring = SplitRing(guest.mem, guest.arena, size)
    queue_fds = [EventFd(), EventFd()]
    with pytest.raises((Refused, Closed)):
        guest.fe.tell(Req.SET_VRING_NUM, state(0, size))
        guest.fe.tell(Req.SET_VRING_BASE, state(0, 0))
        guest.set_addr(0, ring)
        mistake()
        guest.fe.vring_fd(Req.SET_VRING_CALL, 0, queue_fds[1].fd)
        guest.fe.vring_fd(Req.SET_VRING_KICK, 0, queue_fds[0].fd)
        guest.fe.tell(Req.SET_VRING_ENABLE, state(0, 1))
    assert guest.fe.ended()
    for signal in queue_fds:
        signal.close()


BAD_RINGS = {
    "descriptors-unaligned": (8, 0x2000, 0x1000),
    "used-unaligned": (0, 0x2002, 0x1000),
    "available-unaligned": (0, 0x2000, 0x1001),
    "descriptors-outside": (4 * MIB, 0x2000, 0x1000),
    "used-outside": (0, 4 * MIB, 0x1000),
    "available-outside": (0, 0x2000, 4 * MIB),
    "descriptors-reach-out": (4 * MIB - 16, 0x2000, 0x1000),
    "used-reaches-out": (0, 4 * MIB - 8, 0x1000),
    "available-reaches-out": (0, 0x2000, 4 * MIB - 2),
    "wraps": (2**64 - 0x7F00_0100_0000 - 16, 0x2000, 0x1000),
}


@pytest.mark.parametrize("name", BAD_RINGS)
def test_6_ring_address(served: Device, name: str) -> None:
    guest = served.guest(start=False)
    guest.fe.tell(Req.SET_FEATURES, u64(guest.features))
    guest.send_memory()
    base = guest.mem.regions[0].uaddr
    desc, used, avail = ((base + at) % 2**64 for at in BAD_RINGS[name])
    payload = ADDR.pack(0, 0, desc, used, avail, 0)
    refused_at_start(guest, lambda: guest.fe.tell(Req.SET_VRING_ADDR, payload), 128)


@pytest.mark.parametrize("how", ["REM_MEM_REG", "SET_MEM_TABLE"])
def test_14_memory_removed_under_a_ring(served: Device, monitor: Client, how: str) -> None:
    guest = served.guest()
    guest.inflate(guest.some_pages(3))
    rings, other = guest.mem.regions
    try:
        if how == "REM_MEM_REG":
            guest.fe.tell(Req.REM_MEM_REG, one_region(rings))
        else:
            guest.fe.tell(Req.SET_MEM_TABLE, mem_table([other]), [other.fd])
        for index in guest.queues:
            guest.submit(index, bytes(10))
            guest.queues[index].kick.signal()
        assert guest.queues[INFLATE].next_used(0.2) is None, "served through memory that is gone"
        assert monitor.device() is not None
        guest.stop()
    except (Refused, Closed):
        assert guest.fe.ended()


@pytest.mark.parametrize("split_at", [1, 4, 11, 12, 13])
def test_15_messages_in_pieces(served: Device, split_at: int) -> None:
    fe = served.front_end()
    message = HEADER.pack(Req.SET_PROTOCOL_FEATURES, VERSION, 8) + u64(0x8)
    message += HEADER.pack(Req.GET_FEATURES, VERSION, 0)
    for at in range(0, len(message), split_at):
        fe.send_raw(message[at:at + split_at])
        served.fds()  # some time for the device to see this piece alone
    assert len(fe.receive_reply(Req.GET_FEATURES)) == 8


def test_15_fds_come_with_the_first_byte(served: Device) -> None:
    guest = served.guest(start=False)
    guest.fe.tell(Req.SET_FEATURES, u64(guest.features))
    for region in guest.mem.regions:
        message = HEADER.pack(Req.ADD_MEM_REG, VERSION | NEED_REPLY, 40) + one_region(region)
        guest.fe.send_raw(message[:1], [region.fd])
        for at in range(1, len(message)):
            guest.fe.send_raw(message[at:at + 1])
        assert guest.fe.receive_reply(Req.ADD_MEM_REG) == u64(0)
    guest.memory_sent = True
    guest.start_queues()
    guest.inflate(guest.some_pages(5))
    assert guest.freed() == 5 * PAGE


def test_15_many_messages_at_once(served: Device) -> None:
    fe = served.front_end()
    fe.send_raw((HEADER.pack(Req.GET_FEATURES, VERSION, 0)
                 + HEADER.pack(Req.GET_PROTOCOL_FEATURES, VERSION, 0)) * 100)
    for _ in range(100):
        assert len(fe.receive_reply(Req.GET_FEATURES)) == 8
        assert fe.receive_reply(Req.GET_PROTOCOL_FEATURES) == u64(OFFERED_PROTOCOL)


@pytest.mark.parametrize("cut", [1, 11, 12, 15, 19])
def test_15_gone_in_the_middle(served: Device, cut: int) -> None:
    fe = served.front_end()
    message = HEADER.pack(Req.SET_FEATURES, VERSION, 8) + u64(0)
    fd = os.eventfd(0)
    fe.send_raw(message[:cut], [fd])
    os.close(fd)
    served.close(fe)


def random_payload(rng: random.Random, req: int) -> bytes:
    number = rng.choice([0, 1, 2, 5, 6, 64, 128, 256, OFFERED_PROTOCOL, 0xFFFFFFFF, bits(30, 32)])
    if req in (Req.SET_MEM_TABLE, Req.ADD_MEM_REG, Req.REM_MEM_REG):
        values = [rng.choice([0, PAGE, 16 * MIB, 2**64 - PAGE]) for _ in range(4)]
        head = struct.pack("=II", rng.choice([0, 1, 1, 1, 2]), 0)
        return head + struct.pack("=4Q", *values)
    if req == Req.SET_VRING_ADDR:
        return ADDR.pack(number & 3, 0, *(rng.choice([0, PAGE, 16 * MIB]) for _ in range(4)))
    if req in (Req.GET_CONFIG, Req.SET_CONFIG):
        return config(rng.choice([0, 4, 255]), bytes(rng.choice([0, 4, 8, 20])))
    shape = WITHOUT_FDS.get(req, WITH_FD.get(req, u64(0)))  # type: ignore[call-overload]
    return state(rng.randrange(7), number & 0xFFFFFFFF) if len(shape) == 8 else shape


@pytest.mark.parametrize("seed", range(4))
def test_15_any_order_in_any_state(served: Device, monitor: Client, seed: int) -> None:
    rng = random.Random(seed)
    region = Region(0, MIB)
    fds = [region.fd, os.eventfd(0), os.eventfd(1)]
    fe = served.front_end()
    for _ in range(500):
        req = rng.choice(list(Req) if rng.random() < 0.9 else [rng.randrange(64)])
        payload = random_payload(rng, req)
        needs = req in WITH_FD
        passed = [rng.choice(fds)] if rng.random() < (0.9 if needs else 0.05) else []
        if req in (Req.ADD_MEM_REG, Req.SET_MEM_TABLE) and rng.random() < 0.7:
            passed = [region.fd]
        try:
            fe.send(req, payload, passed, VERSION | rng.choice([0, NEED_REPLY]))
            if rng.random() < 0.3:
                fe.sock.setblocking(False)
                fe.sock.recv(65536)
        except BlockingIOError:
            pass
        except (Closed, ConnectionError):
            served.close(fe)
            fe = served.front_end()
        fe.sock.settimeout(5)
    assert monitor.cmd("query-status") is not None
    region.close()
    os.close(fds[1])
    os.close(fds[2])


def test_15_storm_of_need_reply(served: Device, monitor: Client) -> None:
    """Nobody reads the replies: the device neither blocks nor hoards memory without bound."""
    fe = served.front_end()
    fe.tell(Req.SET_PROTOCOL_FEATURES, u64(OFFERED_PROTOCOL))
    fe.sock.settimeout(0.5)
    message = (HEADER.pack(Req.GET_FEATURES, VERSION, 0)
               + HEADER.pack(Req.SET_OWNER, VERSION | NEED_REPLY, 0)) * 500
    sent = 0
    try:
        while sent < 64 * MIB:
            sent += fe.sock.send(message)
            if sent % (MIB // 4) < len(message):
                monitor.cmd("query-status", timeout=2)
    except (TimeoutError, ConnectionError):
        pass
    assert sent < 64 * MIB, "the device reads on although its replies are not taken"
    monitor.cmd("query-status", timeout=2)


def test_15_back_end_channel_that_nobody_reads(served: Device, monitor: Client) -> None:
    """The last change is told when there is room again, but not while the guest is stopped."""
    guest = served.guest()
    step, full_since, seen = 0, time.monotonic(), 0
    while time.monotonic() < full_since + 0.5:  # one change in 10 ms is told
        step += 1
        monitor.cmd("balloon", {"value": (4 + step % 2) * MIB}, timeout=3)
        if guest.back.queued() > seen:
            full_since, seen = time.monotonic(), guest.back.queued()
        assert seen < 3000, "the channel is never full"
    monitor.cmd("balloon", {"value": 5 * MIB}, timeout=3)
    guest.inflate(guest.some_pages(10))
    assert guest.num_pages() == 3 * 256
    bases = guest.stop()
    queued = guest.back.queued()
    assert queued == seen > 0
    assert guest.back.drain() == queued and guest.back.next(0.2) is None, "told while stopped"
    guest.cont(bases)
    assert guest.back.next() == CONFIG_CHANGE


def test_15_back_end_channel_closed(served: Device, monitor: Client) -> None:
    guest = served.guest()
    guest.back.sock.close()
    for step in range(10):
        monitor.cmd("balloon", {"value": (4 + step % 2) * MIB})
    guest.inflate(guest.some_pages(10))


def test_15_back_end_channel_talks_rubbish(served: Device, monitor: Client) -> None:
    guest = served.guest()
    guest.back.sock.sendall(os.urandom(4096))
    monitor.cmd("balloon", {"value": 4 * MIB})
    try:
        guest.inflate(guest.some_pages(10))
    except AssertionError:
        assert guest.fe.ended()


def test_second_front_end_waits_or_is_turned_away(served: Device) -> None:
    guest = served.guest()
    second = served.front_end()
    guest.inflate(guest.some_pages(5))
    served.close(guest)
    try:
        assert second.alive()
    except TimeoutError as error:
        raise AssertionError("neither served nor turned away") from error
