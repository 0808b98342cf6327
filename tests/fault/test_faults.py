# SPDX-License-Identifier: MIT
"""threats.md 17: each call that can fail fails once, in the parent, in the worker, and in the
processes that the parent makes for a moment.

Each test lets the n-th call fail, n from 1 on, until the n-th is not reached any more. A start
either fails with a line that says why or leads to a program that serves; once it serves it goes on,
and never gives a page back that the guest uses.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import pytest

from balloon import (FREE_PAGE_HINT, HINT_CMD, HINT_STOP, MESSAGE_VQ, MIB, PAGE, PAGE_REPORTING,
                     PRESSURE, STATS_PUSH, Guest, stat)
from faults import HELPER, PARENT, WORKER, Faults
from process import REPORTS, Device
from qmp import Client, QMPError
from rings import WRITE, Seg
from vhost_user import TIMEOUT, Closed, Refused, Region, Req, one_region, wait_for

Spawn = Callable[..., Device]

FEATURES = [FREE_PAGE_HINT, PAGE_REPORTING, MESSAGE_VQ, STATS_PUSH]
# Without the sandbox the leak checker of a sanitizer build looks at the worker's end.
OPTIONS = ["--features=stats-push,message", "--message-limit=0", "--sandbox=off"]
GONE = (Refused, Closed, QMPError, EOFError, ConnectionError)


class Operator(Client):
    """One that may be told that there was no memory even to read what it sent."""

    def __init__(self, path: str) -> None:
        try:
            super().__init__(path)
        except BaseException:
            self.close()
            raise

    def reply(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        message = super().reply(timeout)
        if "error" in message and "id" not in message:
            raise QMPError(message["error"])
        return message


def steps(exhaustive: int) -> Iterator[int]:
    """1, 2, 3 and so on; from `exhaustive` on with gaps that grow."""
    nth = 1
    while True:
        yield nth
        nth += 1 if nth < exhaustive else nth // 6 + 1


def free_run(guest: Guest, count: int) -> int:
    """The first of so many pages in a row that are not in the balloon."""
    return next(pfn for pfn in guest.pages()
                if not guest.ballooned & set(range(pfn, pfn + count)))


def small_memory() -> list[Region]:
    return [Region(16 * MIB, MIB), Region(64 * MIB, MIB // 2, offset=MIB)]


def work(guest: Guest, monitor: Client) -> None:
    """What a guest and an operator do, all of it once."""
    pages = guest.some_pages(100)
    guest.inflate(pages)
    guest.deflate(pages[:40])
    guest.write_actual()
    monitor.cmd("balloon", {"value": guest.mem.size() - MIB})
    assert guest.num_pages() == 256
    guest.give_stats(stat(4, 1))
    wait_for(lambda: monitor.cmd("refresh-balloon-stats") == {} and guest.stats_wanted(0.1),
             "a request for statistics")
    guest.message(PRESSURE, 1)
    first = free_run(guest, 8)
    guest.report([Seg(first * PAGE, 8 * PAGE, WRITE)])
    guest.reclaim(range(first, first + 8))
    monitor.cmd("free-page-hint", {"action": "stop"})  # what another guest was asked, perhaps
    monitor.cmd("free-page-hint", {"action": "start"})
    guest.hint_id(guest.config_field(HINT_CMD))
    guest.hint(guest.ranges(pages[:3]))
    guest.hint_id(HINT_STOP)
    monitor.cmd("free-page-hint", {"action": "done"})
    more = Region(256 * MIB, MIB)
    try:
        guest.fe.tell(Req.ADD_MEM_REG, one_region(more), [more.fd])
        guest.fe.tell(Req.REM_MEM_REG, one_region(more))
    finally:
        more.close()
    monitor.cmd("balloon-inhibit", {"reason": "a test"})
    monitor.cmd("balloon-uninhibit", {"reason": "a test"})
    assert monitor.device()["held"] == 60 * PAGE
    guest.cont(guest.stop())


def attempt(device: Device, faults: Faults) -> None:
    """The same where something may fail. Then a session or a connection may end; nothing may hang,
    and no page that the guest uses may go."""
    guest = None
    try:
        monitor = Operator(device.mon)
        device.open.append(monitor)
        guest = device.guest(start=False, extra=FEATURES, regions=small_memory())
        work(guest.start(), monitor)
        guest.check()
    except GONE as error:
        assert faults.hits(), f"failed by itself: {error!r}"
        if guest is not None:
            guest.check()
    faults.disarm()
    device.close()
    assert not device.dead(), device.stderr()


def lift(device: Device) -> None:
    """An inhibitor that could not be lifted stands."""
    monitor = device.monitor()
    for reason in monitor.device()["inhibitors"]:
        monitor.cmd("balloon-uninhibit", {"reason": reason})
    device.close(monitor)


def serve(spawn: Spawn, faults: Faults, where: str) -> Device:
    """A device whose worker may end, since a library of ours ends it when it lacks memory."""
    device = spawn(*OPTIONS, f"--state-dir={where}", environment=faults.environment)
    device.may_die = True
    return device


SERVING = [
    (WORKER, "malloc", "ENOMEM", 1000), (WORKER, "mmap", "ENOMEM", 1000),
    (WORKER, "fallocate", "ENOSPC", 10), (WORKER, "fallocate", "EINTR", 10),
    (WORKER, "fallocate", "EPERM", 10), (WORKER, "write", "EINTR", 1000),
    (WORKER, "write", "EAGAIN", 1000), (WORKER, "write", "ENOSPC", 10),
    (WORKER, "epoll_ctl", "ENOSPC", 1000), (WORKER, "dup3", "EMFILE", 10),
    (WORKER, "sendmsg", "EAGAIN", 10), (WORKER, "recvmsg", "EINTR", 10),
    (WORKER, "send", "EAGAIN", 1000), (WORKER, "poll", "ENOMEM", 1000),
    (PARENT, "accept4", "EMFILE", 1000), (PARENT, "accept4", "ENOMEM", 1000),
    (PARENT, "accept4", "EINTR", 1000), (PARENT, "accept4", "ECONNABORTED", 1000),
    (PARENT, "accept4", "EAGAIN", 1000), (PARENT, "sendmsg", "EAGAIN", 10),
    (PARENT, "sendmsg", "ETOOMANYREFS", 10), (PARENT, "recvmsg", "EINTR", 10),
    (PARENT, "recvmsg", "EAGAIN", 10), (PARENT, "recvmsg", "ENOMEM", 10),
    (PARENT, "send", "EAGAIN", 10), (PARENT, "poll", "ENOMEM", 10), (PARENT, "poll", "EINTR", 10),
]


@pytest.mark.parametrize("side,function,error,exhaustive", SERVING)
def test_17_serving(spawn: Spawn, faults: Faults, tmp_path: Path, side: int, function: str,
                    error: str, exhaustive: int) -> None:
    device = serve(spawn, faults, str(tmp_path))
    for nth in steps(exhaustive):
        faults.arm(side, function, error, nth)
        attempt(device, faults)
        if not faults.hits():
            break
        lift(device)
    assert nth > 1, f"{function} is never called"
    device.good_session()


ON, OFF = "--sandbox=on", "--sandbox=off"
STARTING = [
    (PARENT, "malloc", "ENOMEM", ON), (WORKER, "malloc", "ENOMEM", OFF),
    (PARENT, "mmap", "ENOMEM", ON), (WORKER, "mmap", "ENOMEM", OFF),
    (PARENT, "memfd_create", "ENFILE", OFF), (PARENT, "ftruncate", "ENOSPC", OFF),
    (PARENT, "fcntl", "EMFILE", OFF), (WORKER, "fcntl", "EINVAL", OFF),
    (PARENT, "posix_spawn", "EAGAIN", OFF), (PARENT, "fork", "EAGAIN", ON),
    (PARENT, "socketpair", "EMFILE", OFF), (PARENT, "sendmsg", "ENOBUFS", OFF),
    (PARENT, "recvmsg", "ENOMEM", OFF), (WORKER, "recvmsg", "EINTR", OFF),
    (WORKER, "sendmsg", "ENOBUFS", OFF), (WORKER, "epoll_ctl", "ENOMEM", OFF),
    (HELPER, "write", "EINTR", ON),
]


class Start(Device):
    """A device that may end before it serves anybody, but then in order."""

    def __init__(self, faults: Faults, *options: str) -> None:
        self.left: list[str] = []
        self.said = ""
        where = tempfile.mkdtemp(prefix="balloon-test-")
        with suppress(AssertionError):  # it may be dead already
            super().__init__(*options, f"--qmp={where}/qmp.sock", qmp=False, directory=where,
                             environment=faults.environment)
        self.may_die = True

    def kill(self) -> None:
        self.left, self.said = os.listdir(self.dir), self.stderr()
        super().kill()

    def answers(self) -> bool:
        with suppress(Closed, ConnectionError, FileNotFoundError):
            return self.front_end().alive()
        return False

    def comes_up(self) -> bool:
        """Does it serve? If it ends instead then with status 1, a reason, and nothing left."""
        wait_for(lambda: self.dead() or self.answers(), "an answer, or the end")
        if not self.dead():
            self.close()
            return True
        if os.path.exists(self.dir):
            self.kill()
        assert self.process.returncode == 1 and self.said, (self.process.returncode, self.said)
        assert not [report for report in REPORTS if report in self.said], self.said
        assert self.left == ["stderr"]
        return False

    def open_files(self) -> dict[str, int]:
        """Those that it opens itself, when it has nobody to serve."""
        self.close(self.monitor())
        wait_for(lambda: self.fds()["socket"] <= 4, "connections closed")
        fds = self.fds()
        return {kind: fds[kind] for kind in ("socket", "pipe", "anon_inode", "/memfd")}


def start(faults: Faults, option: str) -> Optional[dict[str, int]]:
    """The files of a device that has come up and served; None if it has ended instead."""
    with tempfile.TemporaryDirectory(prefix="balloon-test-") as where:
        device = Start(faults, *OPTIONS[:2], option, f"--state-dir={where}")
        try:
            if not device.comes_up():
                return None
            faults.disarm()
            files = device.open_files()
            device.good_session()
            device.stop()
            return files
        finally:
            if os.path.exists(device.dir):
                device.kill()


@pytest.mark.parametrize("side,function,error,option", STARTING)
def test_17_starting(faults: Faults, side: int, function: str, error: str, option: str) -> None:
    usual = start(faults, option)
    outcomes = set()
    for nth in steps(80):
        faults.arm(side, function, error, nth)
        files = start(faults, option)
        if not faults.hits():
            break
        outcomes.add(files is not None)
        assert files in (None, usual)
    assert nth > 1, f"{function} is never called"
    print(function, error, nth, outcomes)
