# SPDX-License-Identifier: MIT
"""Transfers of the device's state that fail, from either side's fault: each says so, the guest can
go on where it is, and the next transfer succeeds."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import threading
import time
from typing import Callable, Iterator

import pytest

from balloon import PAGE, Guest
from process import Device
from qmp import Client
from state_stream import decode
from transfer import ORDERS, full_pipe, load, read_end, save, set_up
from vhost_user import LOAD, OFFERED_PROTOCOL, PF_DEVICE_STATE, SAVE, Closed, Req, u64

Spawn = Callable[..., Device]


@pytest.fixture
def pair(spawn: Spawn) -> tuple[Device, Device]:
    return spawn(), spawn()


@pytest.fixture
def stopped(device: Device) -> Iterator[Guest]:
    """A guest with something in its balloon, its rings stopped; it must be able to go on."""
    guest = device.guest()
    guest.inflate(guest.some_pages(200))
    bases = guest.stop()
    yield guest
    guest.cont(bases)
    guest.deflate(sorted(guest.ballooned)[:100])
    assert device.monitor().device()["held"] == 100 * PAGE
    assert not any(device.monitor().device()["driver-errors"].values())
    guest.check()


def test_check_without_a_transfer(stopped: Guest) -> None:
    assert not stopped.fe.check_state()
    assert stopped.fe.alive()
    assert save(stopped)


@pytest.mark.parametrize("direction,phase", [(2, 0), (SAVE, 1), (LOAD, 1), (LOAD, 2**32 - 1),
                                             (2**32 - 1, 0)])
def test_wrong_direction_or_phase(stopped: Guest, direction: int, phase: int) -> None:
    ours, theirs = os.pipe()
    for fd in (ours, theirs):
        assert not stopped.fe.device_state(direction, fd, phase)
    assert not stopped.fe.check_state()
    os.close(theirs)
    assert read_end(ours) == b"", "a descriptor was kept"
    assert save(stopped)


def test_without_the_protocol_feature(device: Device) -> None:
    """A front end's mistake, which ends its session."""
    for request in (Req.SET_DEVICE_STATE_FD, Req.CHECK_DEVICE_STATE):
        fe = device.front_end()
        fe.tell(Req.SET_PROTOCOL_FEATURES, u64(OFFERED_PROTOCOL & ~(1 << PF_DEVICE_STATE)))
        ours, theirs = os.pipe()
        with pytest.raises(Closed):
            fe.ask(request, bytes(8 if request == Req.SET_DEVICE_STATE_FD else 0),
                   [theirs] if request == Req.SET_DEVICE_STATE_FD else [])
        os.close(theirs)
        assert read_end(ours) == b""
        device.close(fe)


def test_wrong_number_of_descriptors(device: Device) -> None:
    for count in (0, 2, 8):
        fe = device.front_end()
        fe.tell(Req.SET_PROTOCOL_FEATURES, u64(OFFERED_PROTOCOL))
        ours, theirs = os.pipe()
        with pytest.raises(Closed):
            fe.ask(Req.SET_DEVICE_STATE_FD, bytes(8), [theirs] * count)
        os.close(theirs)
        assert read_end(ours) == b""
        device.close(fe)


def test_many_transfers(stopped: Guest) -> None:
    """More than there are places for descriptors: refused, given up, done, and not asked after."""
    for turn in range(200):
        ours, theirs = os.pipe()
        assert stopped.fe.device_state(SAVE, theirs) and not stopped.fe.device_state(SAVE, ours, 9)
        os.close(theirs)
        os.close(ours)
        if turn % 3 == 0:
            stopped.fe.check_state()


def wrong_ends() -> dict[str, Callable[[], int]]:
    def end(which: int) -> int:
        ends = os.pipe()
        os.close(ends[1 - which])
        return ends[which]

    def listening() -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(b"\0balloon-test-%d" % os.getpid())
            sock.listen()
            return os.dup(sock.fileno())

    def epoll() -> int:
        with select.epoll() as poller:
            return os.dup(poller.fileno())

    return {"save-read-end": lambda: end(0), "load-write-end": lambda: end(1),
            "save-eventfd": lambda: os.eventfd(0), "load-eventfd": lambda: os.eventfd(0),
            "load-directory": lambda: os.open("/", os.O_RDONLY),
            "load-memfd": lambda: os.memfd_create("state"),
            "save-memfd": lambda: os.memfd_create("state"),
            "load-epoll": lambda: epoll(), "load-listening": listening,
            "save-listening": listening}


@pytest.mark.parametrize("kind", list(wrong_ends()))
def test_a_channel_that_is_none(stopped: Guest, kind: str) -> None:
    """Refused at once or at the check; the session goes on."""
    fd = wrong_ends()[kind]()
    try:
        if stopped.fe.device_state(SAVE if kind.startswith("save") else LOAD, fd):
            assert not stopped.fe.check_state()
    finally:
        os.close(fd)
    assert stopped.fe.alive()
    assert save(stopped)


def test_refused_while_rings_run(device: Device, monitor: Client) -> None:
    guest = device.guest()
    guest.inflate(guest.some_pages(10))
    ours, theirs = os.pipe()
    for direction, fd in ((SAVE, theirs), (LOAD, ours)):
        assert not guest.fe.device_state(direction, fd)
        assert not guest.fe.check_state()
    os.close(theirs)
    assert read_end(ours) == b""
    guest.inflate(guest.some_pages(10))
    assert monitor.device()["held"] == 20 * PAGE


def test_a_ring_that_starts_ends_the_transfer(device: Device) -> None:
    guest = device.guest()
    bases = guest.stop()
    ours, theirs = full_pipe()
    assert guest.fe.device_state(SAVE, theirs)
    os.close(theirs)
    guest.cont(bases)
    assert len(read_end(ours)) == 4096
    assert not guest.fe.check_state()
    guest.inflate(guest.some_pages(10))


def test_nobody_reads(stopped: Guest, monitor: Client) -> None:
    """The device waits for nobody: it serves the monitor, and says that it is not done."""
    ours, theirs = full_pipe()
    assert stopped.fe.device_state(SAVE, theirs)
    os.close(theirs)
    assert monitor.cmd("query-status") and stopped.fe.alive()
    assert not stopped.fe.check_state()
    assert len(read_end(ours)) == 4096
    assert save(stopped)


def test_nobody_writes(stopped: Guest, monitor: Client) -> None:
    theirs, ours = os.pipe()
    assert stopped.fe.device_state(LOAD, theirs)
    os.close(theirs)
    assert monitor.cmd("query-status") and stopped.fe.alive()
    assert not stopped.fe.check_state()
    with pytest.raises(BrokenPipeError):
        os.write(ours, b"late")
    os.close(ours)
    assert save(stopped)


def test_the_reader_goes_away(stopped: Guest) -> None:
    ours, theirs = full_pipe()
    assert stopped.fe.device_state(SAVE, theirs)
    os.close(theirs)
    os.close(ours)
    assert not stopped.fe.check_state()
    assert save(stopped)


def test_through_a_socket(stopped: Guest, monitor: Client) -> None:
    """Any channel that behaves like a pipe will do."""
    ours, theirs = socket.socketpair()
    assert stopped.fe.device_state(SAVE, theirs.fileno())
    theirs.close()
    data = read_end(ours.detach())
    assert stopped.fe.check_state() and decode(data).held() == stopped.ballooned
    ours, theirs = socket.socketpair()
    assert stopped.fe.device_state(LOAD, theirs.fileno())
    theirs.close()
    ours.sendall(data)
    ours.shutdown(socket.SHUT_WR)
    assert stopped.fe.check_state()
    ours.close()
    assert monitor.device()["held"] == 200 * PAGE


def test_one_transfer_takes_the_place_of_another(stopped: Guest) -> None:
    channels = [full_pipe() for _ in range(20)]
    for _, theirs in channels:
        assert stopped.fe.device_state(SAVE, theirs)
        os.close(theirs)
    for ours, _ in channels[:-1]:
        assert len(read_end(ours)) == 4096
    assert save(stopped)
    assert len(read_end(channels[-1][0])) == 4096


def test_the_front_end_goes_away(device: Device, monitor: Client) -> None:
    guest = device.guest()
    guest.stop()
    ours, theirs = full_pipe()
    assert guest.fe.device_state(SAVE, theirs)
    os.close(theirs)
    device.close(guest)
    monitor.event("VMM_DISCONNECTED")
    assert len(read_end(ours)) == 4096
    device.good_session()


# Workers that die


@pytest.mark.parametrize("direction", [SAVE, LOAD])
def test_killed_during_a_transfer(device: Device, stopped: Guest, direction: int) -> None:
    """The check says so, no descriptor stays behind, and the next one succeeds."""
    data = save(stopped)
    for _ in range(3):
        ends = full_pipe() if direction == SAVE else os.pipe()
        theirs, ours = (ends[1], ends[0]) if direction == SAVE else ends
        assert stopped.fe.device_state(direction, theirs)
        os.close(theirs)
        if direction == LOAD:
            os.write(ours, data[:100])
        device.kill_worker()
        if direction == SAVE:
            assert len(read_end(ours)) == 4096
        else:
            os.close(ours)
        assert not stopped.fe.check_state()
    assert save(stopped)


def test_killed_at_random_moments(pair: tuple[Device, Device]) -> None:
    """Whatever the check says is true."""
    source, target = pair
    guest = source.guest()
    pages = guest.some_pages(300)
    guest.inflate(pages)
    bases = guest.stop()
    good = save(guest)
    fe = target.front_end()
    fe.tell(Req.SET_PROTOCOL_FEATURES, u64(fe.ask_u64(Req.GET_PROTOCOL_FEATURES)))
    for device in pair:
        device.may_die = True
    stop, dice = threading.Event(), random.Random(3)
    turns = 0

    def killer() -> None:
        last = -1
        while not stop.wait(dice.uniform(0, 0.03)):
            if turns == last:
                continue  # on a busy machine no worker might ever get ready
            last = turns
            for device in pair:
                pid = device.find_worker()
                try:
                    os.kill(pid, signal.SIGKILL) if pid else None
                except ProcessLookupError:
                    pass

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        saved = loaded = 0
        end = time.monotonic() + 20
        while time.monotonic() < end and (turns < 100 or not saved or not loaded):
            turns += 1
            ours, theirs = os.pipe()
            if not guest.fe.device_state(SAVE, theirs):
                os.close(theirs)
                os.close(ours)
                continue
            os.close(theirs)
            data = read_end(ours)
            if guest.fe.check_state():
                assert decode(data).held() == guest.ballooned
                saved += 1
            loaded += load(fe, good)
    finally:
        stop.set()
        thread.join()
    assert saved and loaded
    guest.cont(bases)
    guest.deflate(pages[:100])
    assert source.monitor().device()["held"] == 200 * PAGE


@pytest.mark.parametrize("order", ORDERS)
def test_killed_after_the_check(pair: tuple[Device, Device], order: str) -> None:
    """The guest goes on under a successor. That knows what the balloon holds if the state had its
    memory already; if not, it holds nothing for it, which discards nothing."""
    source, target = pair
    guest = source.guest()
    guest.inflate(guest.some_pages(300))
    bases = guest.stop()
    data = save(guest)
    source.open.remove(guest)
    target.open.append(guest)
    guest.move(target.sock)
    target.may_die = True
    if order == "memory-first":
        guest.fe.tell(Req.SET_FEATURES, u64(guest.features))
        guest.send_memory()
    elif order == "rings-first":
        set_up(guest, bases)
    assert load(guest.fe, data)
    target.replaced(target.kill_worker())
    if order == "rings-first":
        guest.enable(*guest.queues)
    else:
        guest.cont(bases)
    there = target.monitor()
    assert there.device()["inflated"] == 300 * PAGE
    if order != "state-first" or there.device()["held"]:
        assert there.device()["held"] == 300 * PAGE
        guest.deflate(sorted(guest.ballooned)[:100])
        assert there.device()["held"] == 200 * PAGE
        assert not any(there.device()["driver-errors"].values())
    guest.deflate(sorted(guest.ballooned))
    assert there.device()["held"] == 0
    guest.inflate(guest.some_pages(50))
    guest.check()
    assert there.device()["held"] == 50 * PAGE
