# SPDX-License-Identifier: MIT
"""What a front end or guest can do on purpose, and once had an effect that it must not have."""

from __future__ import annotations

import fcntl
import os
import random
import select
import signal
import socket
import struct
import time
from typing import Callable, Iterator

import pytest

from balloon import (INFLATE, MESSAGE_VQ, MIB, PAGE, PRESSURE, STATS, STATS_PUSH, Guest, pattern,
                     stat)
from process import Device
from qmp import Client
from rings import NEXT, Seg
from vhost_user import (HEADER, VERSION, FrontEnd, Refused, Region, Req, one_region, state, u64,
                        wait_for)


@pytest.fixture
def served(device: Device) -> Iterator[Device]:
    """A device that must still serve a guest after the test."""
    yield device
    device.close()
    device.good_session()


def fill(sock: socket.socket) -> None:
    """Until nothing more goes in."""
    sock.setblocking(False)
    for size in (4096, 1):
        try:
            while True:
                sock.send(b"x" * size)
        except BlockingIOError:
            pass


def test_reset_within_the_first_chain(served: Device, monitor: Client) -> None:
    """The ring has returned nothing yet, and still the balloon holds pages of the old driver."""
    guest = served.guest()
    names = guest.pages()[:256]
    queue = guest.queues[INFLATE]
    data = guest.buffer(b"".join(struct.pack("<I", pfn) for pfn in names))
    for index in range(128):  # 32768 page numbers: several turns
        queue.ring.set_desc(index, Seg(data, 1024, NEXT if index < 127 else 0, index + 1))
    queue.ring.publish(0)
    queue.kick.signal()
    for index in guest.queues:  # without waiting for acknowledgements: in the middle of it
        guest.fe.send(Req.SET_VRING_ENABLE, state(index, 0))
    for index in guest.queues:
        guest.fe.ask(Req.GET_VRING_BASE, state(index))
    for pfn in names:
        guest.mem.write(pfn * PAGE, pattern(pfn))
    guest.start_queues()
    assert monitor.device()["held"] == 0
    pages = guest.pages()[1000:1256]
    guest.inflate(pages)
    assert monitor.device()["held"] == len(pages) * PAGE
    guest.check()


def test_epoll_set_as_kick(served: Device) -> None:
    """It may become unfit to be watched after it was taken."""
    guest = served.guest()
    with select.epoll() as epoll, pytest.raises(Refused):
        guest.fe.tell(Req.SET_VRING_KICK, u64(INFLATE), [epoll.fileno()])
    assert guest.fe.ended()


def test_channel_replaced_while_it_is_full(served: Device, monitor: Client) -> None:
    """A message makes the device wait for the channel, the next one in the same read closes it."""
    regions = [Region(16 * MIB, 4 * MIB), Region(64 * MIB, 4 * MIB)]
    guest = served.guest(start=False, regions=regions)
    pairs = [socket.socketpair() for _ in range(2)]
    try:
        guest.fe.tell(Req.SET_BACKEND_REQ_FD, b"", [pairs[0][0].fileno()])
        guest.start()
        monitor.cmd("balloon", {"value": MIB})
        for ours, _ in pairs:
            fill(ours)
        gone = one_region(regions[1])
        os.kill(served.process.pid, signal.SIGSTOP)
        try:
            guest.fe.send_raw(HEADER.pack(Req.REM_MEM_REG, VERSION, len(gone)) + gone)
            guest.fe.send_raw(HEADER.pack(Req.SET_BACKEND_REQ_FD, VERSION, 0),
                              [pairs[1][0].fileno()])
        finally:
            os.kill(served.process.pid, signal.SIGCONT)
        assert guest.fe.alive()
        assert not served.dead()
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


@pytest.mark.parametrize("kind", ["pipe", "eventfd"])
def test_call_descriptor_that_would_block(served: Device, monitor: Client, kind: str) -> None:
    """O_NONBLOCK belongs to the open file, and the front end may take it off again."""
    guest = served.guest()
    if kind == "pipe":
        other, call = os.pipe()
        os.set_blocking(call, False)
        try:
            while True:
                os.write(call, b"x" * 4096)
        except BlockingIOError:
            pass
    else:
        other = call = os.eventfd(0, 0)
        os.eventfd_write(call, 2 ** 64 - 2)
    try:
        guest.fe.vring_fd(Req.SET_VRING_CALL, INFLATE, call)
        guest.fe.ask_u64(Req.GET_FEATURES)
        os.set_blocking(call, True)
        guest.submit(INFLATE, struct.pack("<I", guest.pages()[0]))
        wait_for(lambda: monitor.device()["held"] == PAGE, "the page in the balloon")
        assert monitor.cmd("query-status")["running"]
        assert not fcntl.fcntl(call, fcntl.F_GETFL) & os.O_NONBLOCK
    finally:
        for fd in {other, call}:
            os.close(fd)


def test_statistics_nobody_asked_for(served: Device, monitor: Client) -> None:
    """Each is taken, and none but the first is worth an event."""
    guest = served.guest()
    data = guest.buffer(stat(4, 1))
    queue = guest.queues[STATS]
    before = monitor.device()["driver-errors"]["second-stats-buffer"]
    for _ in range(50):
        queue.ring.add([Seg(data, 10)], None)
        queue.kick.signal()
        # Two at the device at most: the older one comes back.
        queue.next_used(timeout=0.05)
    wait_for(lambda: monitor.device()["driver-errors"]["second-stats-buffer"] - before >= 49,
             "the buffers at the device")
    monitor.cmd("query-status")
    assert sum(event["event"] == "BALLOON" for event in monitor.events) <= 1


def test_wish_outlives_memory(served: Device, monitor: Client) -> None:
    """A region that goes and comes back changes nothing about what the operator wants."""
    regions = [Region(16 * MIB, 4 * MIB), Region(64 * MIB, 12 * MIB)]
    guest = served.guest(regions=regions)
    monitor.cmd("balloon", {"value": 4 * MIB})
    assert monitor.device()["target"] == 12 * MIB
    guest.fe.tell(Req.REM_MEM_REG, one_region(regions[1]))
    assert monitor.device()["target"] == 4 * MIB
    guest.fe.tell(Req.ADD_MEM_REG, one_region(regions[1]), [regions[1].fd])
    assert monitor.device()["target"] == 12 * MIB


@pytest.mark.parametrize("request_", [Req.SET_VRING_CALL, Req.SET_VRING_KICK,
                                      Req.SET_BACKEND_REQ_FD])
def test_own_connection_as_descriptor(served: Device, request_: Req) -> None:
    """Who holds the front end's end never sees it go."""
    guest: Guest = served.guest(start=False)
    fe: FrontEnd = guest.fe
    fe.tell(Req.SET_FEATURES, u64(guest.features))
    payload = b"" if request_ == Req.SET_BACKEND_REQ_FD else u64(0)
    with pytest.raises(Refused):
        fe.tell(request_, payload, [fe.sock.fileno()])
    start = time.monotonic()
    assert fe.ended()
    assert time.monotonic() - start < 5


def test_16_front_end_killed_at_any_point(served: Device, monitor: Client) -> None:
    """In the middle of a message, of its set-up, or of work; often, and quickly one after another.
    Nothing of it stays: the fixtures look for its descriptors and its memory."""
    dice = random.Random(16)
    for _ in range(40):
        child = os.fork()
        if not child:
            try:
                guest = Guest(served.sock, packed=dice.random() < 0.5)
                guest.start()
                while True:
                    pages = guest.some_pages(200)
                    guest.inflate(pages)
                    guest.deflate(pages)
            finally:
                os._exit(0)
        time.sleep(dice.choice((0, dice.uniform(0, 0.03), dice.uniform(0.03, 0.08))))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert monitor.cmd("query-status") is not None


def test_16_monitor_client_killed_at_any_point(served: Device) -> None:
    dice = random.Random(17)
    guest = served.guest()
    for _ in range(40):
        child = os.fork()
        if not child:
            try:
                client = Client(served.mon)
                while True:
                    client.send_raw(b'{"execute":"query-qmp-schema"}{"execute":"query-status"}'
                                    b'{"execute":"human-monitor-command","arguments":'
                                    b'{"command-line":"info balloon"}}')
                    client.receive()
            finally:
                os._exit(0)
        time.sleep(dice.choice((0, dice.uniform(0, 0.01), dice.uniform(0.01, 0.04))))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    guest.inflate(guest.some_pages(50))
    assert served.monitor().cmd("query-status")["running"]


def test_18_event_flood(spawn: Callable[..., Device]) -> None:
    """A guest that pushes, presses and reports as fast as it can does not set the pace of events,
    and a client that reads nothing costs little."""
    device = spawn("--features=stats-push,message", "--stats-push-interval=10",
                   "--message-limit=0")
    guest = device.guest(extra=[STATS_PUSH, MESSAGE_VQ])
    lazy = device.monitor()
    monitor = device.monitor()
    before = device.anonymous_memory()
    start = time.monotonic()
    for value in range(1, 2001):
        assert guest.returned(STATS, guest.submit(STATS, stat(4, value)))
        guest.message(PRESSURE, value % 4)
        guest.write_actual(value)
        if value % 100 == 0:
            assert monitor.cmd("query-status")["running"]
    elapsed = time.monotonic() - start
    events = [event["event"] for event in monitor.events]
    assert events.count("BALLOON") <= 40 + 200 * elapsed
    assert events.count("BALLOON_CHANGE") <= 2 + elapsed
    assert device.anonymous_memory() - before < 64 * MIB
    wait_for(lambda: monitor.get("guest-stats")["stats"] == {"stat-free-memory": 2000}, "figures")
    device.close(lazy)
    guest.check()
