# SPDX-License-Identifier: MIT
"""threats.md 17: what goes wrong for a while, not once: no memory, no descriptors, a failing disk,
a clock that jumps, a process that is stopped. When it is over all is as if it had not been.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from balloon import FREE_PAGE_HINT, INFLATE, MIB, PAGE, STATS, STATS_PUSH, Guest, stat
from faults import HELPER, PARENT, WORKER, Faults
from process import Device
from qmp import Client
from rings import Seg
from vhost_user import CONFIG_CHANGE, TIMEOUT, FrontEnd, Req, state, wait_for

Spawn = Callable[..., Device]
CONFIG_BYTES = 20
YEAR_S = 365 * 24 * 3600


class Untimed(Client):
    """Of the server's time nothing is expected."""

    def check_shape(self, message: dict[str, Any]) -> None:
        if "timestamp" in message:
            message["timestamp"] = {"seconds": int(time.time()), "microseconds": 0}
        super().check_shape(message)


def goes_on(guest: Guest, monitor: Client, held: int) -> None:
    """The balloon is what it was, and the guest is served."""
    assert monitor.device()["held"] == held * PAGE
    pages = guest.some_pages(20)
    guest.inflate(pages)
    guest.deflate(pages)
    assert monitor.device()["held"] == held * PAGE
    guest.check()


@pytest.mark.parametrize("seconds", [YEAR_S, -50 * YEAR_S])
def test_17_wall_clock_jumps(spawn: Spawn, faults: Faults, seconds: int) -> None:
    """Health, ages and intervals go by a clock that does not jump."""
    device = spawn("--features=stats-push", "--stats-push-interval=300",
                   environment=faults.environment)
    guest = device.guest(extra=[STATS_PUSH])
    monitor = Untimed(device.mon)
    device.open.append(monitor)

    def push(value: int) -> None:
        assert guest.returned(STATS, guest.submit(STATS, stat(4, value)))

    push(1)
    assert monitor.cmd("query-guest-health")["status"] == "healthy"
    faults.move_wall_clock(seconds)
    assert monitor.cmd("query-guest-health")["status"] == "healthy"
    assert monitor.get("guest-stats")["age-ms"] < 10_000
    push(2)
    figures = monitor.get("guest-stats")
    assert figures["stats"] == {"stat-free-memory": 2} and figures["age-ms"] < 10_000
    assert abs(figures["last-update"] - (time.time() + seconds)) < 60
    assert monitor.cmd("query-guest-health")["status"] == "healthy"
    monitor.event("GUEST_HEALTH_CHANGE", 5, lambda data: data["status"] == "unresponsive")
    push(3)
    assert monitor.cmd("query-guest-health")["status"] == "healthy"


def test_17_disk_that_fails(spawn: Spawn, faults: Faults, tmp_path: Path) -> None:
    """The old state stays whole, the operator is told, and the next change is kept again."""
    device = spawn(f"--state-dir={tmp_path}", environment=faults.environment)
    file = tmp_path / "vhost-user-balloon.state"
    guest, monitor = device.guest(), device.monitor()

    def set_target(pages: int) -> None:
        monitor.cmd("balloon", {"value": guest.mem.size() - pages * PAGE})

    def is_kept(pages: int) -> bool:
        return file.exists() and f"target={pages * PAGE}\n" in file.read_text()

    set_target(256)
    wait_for(lambda: is_kept(256), "the state on disk")
    before = file.read_bytes()
    faults.arm(HELPER, "fsync", "EIO", lasting=True)
    set_target(512)
    wait_for(lambda: "cannot write" in device.stderr(), "a line in the log")
    assert file.read_bytes() == before and os.listdir(tmp_path) == [file.name]
    assert guest.num_pages() == 512, "served all the same"
    faults.disarm()
    set_target(768)
    wait_for(lambda: is_kept(768), "the state on disk again")
    wait_for(lambda: "is written again" in device.stderr(), "a line in the log")


def test_17_no_memory_for_a_while(spawn: Spawn, faults: Faults) -> None:
    """Also for workers that follow upon a worker: what the balloon holds outlives all of them."""
    device = spawn(environment=faults.environment)
    device.may_die = True
    guest = device.guest()
    pages = guest.some_pages(200)
    guest.inflate(pages)
    faults.arm(WORKER, "malloc", "ENOMEM", lasting=True)
    os.kill(device.worker(), signal.SIGKILL)
    wait_for(lambda: device.stderr().count("before it was ready") > 3, "workers that cannot begin")
    ident = guest.write_to(INFLATE, [Seg(guest.buffer(bytes(4)), 4)])
    assert not device.dead()
    faults.disarm()
    assert guest.returned(INFLATE, ident), "the kick was lost"
    goes_on(guest, device.monitor(), 200)


def test_17_no_descriptors_for_a_while(spawn: Spawn, faults: Faults) -> None:
    """Who waits in the backlog is served in the end, and until then nothing spins."""
    device = spawn(environment=faults.environment)
    faults.arm(PARENT, "accept4", "EMFILE", lasting=True)
    late = FrontEnd(device.sock)
    device.open.append(late)
    wait_for(faults.hits, "a failure")
    time.sleep(0.5)
    assert faults.hits() < 10, "spinning"
    faults.disarm()
    assert late.alive()


@pytest.mark.parametrize("function,error", [("write", "EINTR"), ("poll", "ENOMEM")])
def test_17_a_call_that_fails_is_made_again(spawn: Spawn, faults: Faults, function: str,
                                            error: str) -> None:
    """The ring runs because it is started, and only then the kick is seen, which is not a sign
    that the driver is awake."""
    device = spawn(environment=faults.environment)
    guest = device.guest()
    queue = guest.queue(INFLATE)
    for _ in range(10):
        guest.fe.tell(Req.SET_VRING_ENABLE, state(guest.ring_of[INFLATE], 0))
        ident = queue.ring.add([Seg(guest.buffer(bytes(4)), 4)])
        queue.notify(always=True)
        queue.call.wait(0)
        faults.arm(WORKER, function, error)
        guest.fe.tell(Req.SET_VRING_ENABLE, state(guest.ring_of[INFLATE], 1))
        wait_for(faults.hits, "the failure")
        assert queue.call.wait(5), "the driver sleeps on"
        assert queue.ring.used() == (ident, 0)


def test_17_memory_that_cannot_be_given_back(spawn: Spawn, faults: Faults) -> None:
    """Pages go into the balloon all the same; the failures are counted."""
    device = spawn(environment=faults.environment)
    guest, monitor = device.guest(), device.monitor()
    faults.arm(WORKER, "fallocate", "ENOSPC", lasting=True)
    pages = guest.some_pages(100)
    guest.inflate(pages)
    seen = monitor.device()
    assert guest.freed() == 0
    assert seen["held"] == 100 * PAGE and seen["freed"] == 0 and seen["discard-failures"] > 0
    faults.disarm()
    more = guest.some_pages(100)
    guest.inflate(more)
    assert guest.freed() == 100 * PAGE
    guest.deflate(pages)
    guest.check()


@pytest.mark.parametrize("which", ["parent", "worker", "both"])
def test_17_stopped_and_continued(spawn: Spawn, which: str) -> None:
    """SIGSTOP: everybody waits, and then nothing of what came meanwhile is lost."""
    device = spawn()
    guest, monitor = device.guest(), device.monitor()
    guest.inflate(guest.some_pages(50))
    stopped = {"parent": device.pids()[:1], "worker": device.pids()[1:],
               "both": device.pids()}[which]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        ident = guest.write_to(INFLATE, [Seg(guest.buffer(bytes(4)), 4)])
        monitor.send({"execute": "query-status", "id": "late"})
        second = FrontEnd(device.sock)
        device.open.append(second)
        if which != "parent":
            assert guest.queue(INFLATE).next_used(0.5) is None
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert guest.returned(INFLATE, ident)
    assert monitor.reply()["id"] == "late"
    assert monitor.cmd("query-balloon-device")["worker-restarts"] == 0
    goes_on(guest, monitor, 50)
    device.close(guest)
    assert second.alive()


@pytest.mark.parametrize("command, arguments", [
    ("balloon", {"value": MIB}),
    ("set-stats-push-interval", {"interval-ms": 250}),
    ("free-page-hint", {"action": "start"}),
])
def test_17_worker_dies_before_it_tells_of_a_change(spawn: Spawn, faults: Faults, command: str,
                                                    arguments: dict[str, Any]) -> None:
    """What is in force with its successor the guest has to hear of, and what is not is no news."""
    device = spawn("--features=stats-push", environment=faults.environment)
    guest, monitor = device.guest(extra=[FREE_PAGE_HINT, STATS_PUSH]), device.monitor()
    monitor.device()
    guest.back.drain()
    before = guest.fe.get_config(0, CONFIG_BYTES)
    faults.arm(WORKER, "send", "STOP")
    monitor.send({"execute": command, "arguments": arguments})
    wait_for(faults.hits, "the message that is not sent")
    faults.disarm()
    assert guest.back.next(0) is None
    device.kill_worker()
    goes_on(guest, device.monitor(), 0)
    changed = guest.fe.get_config(0, CONFIG_BYTES) != before
    assert changed or command != "free-page-hint", "nothing was changed, so nothing is tested"
    assert guest.back.next(TIMEOUT if changed else 0.2) == (CONFIG_CHANGE if changed else None)
    # Once: QEMU does not survive a message at the wrong moment.
    device.kill_worker()
    goes_on(guest, device.monitor(), 0)
    assert guest.back.next(0.2) is None


def test_17_worker_that_never_gets_ready(spawn: Spawn, faults: Faults) -> None:
    """It is killed after a time. Another one takes its place; but if there was none that served
    yet, the start has failed."""
    device = spawn(environment=faults.environment)
    device.may_die = True
    guest = device.guest()
    guest.inflate(guest.some_pages(30))
    faults.arm(WORKER, "malloc", "STOP")
    os.kill(device.worker(), signal.SIGKILL)
    with Faults() as others:
        others.arm(WORKER, "malloc", "STOP")
        late = Device(qmp=False, environment=others.environment)
        try:
            assert late.process.wait(20) == 1
            assert "get ready" in late.stderr()
        finally:
            late.kill()
    assert faults.hits() == 1
    wait_for(lambda: "get ready" in device.stderr(), "the end of the one that hangs")
    goes_on(guest, device.monitor(), 30)
