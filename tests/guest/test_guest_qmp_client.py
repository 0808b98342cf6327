# SPDX-License-Identifier: MIT
"""lib/qmp's client on real monitors: QEMU's with its own balloon, and our device's.

The program is tests/guest/client/ask.c: requests in, what the client's callbacks were told out."""

from __future__ import annotations

import errno
import json
import pathlib
import select
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from conftest import Bed
from vmm import QemuGuest
from vmm.guest import MIB

UNKNOWN = 2**64 - 1  # what QEMU says of a statistic that it has not
BALLOON = "/machine/peripheral/balloon0"
PENDING_MAX = 16
QEMU_SCHEMA = (4 << 20, 500_000)  # bytes and tokens of query-qmp-schema are below that

pytestmark = pytest.mark.once(reason="it is about the client and monitors")
on_qemu = pytest.mark.vmm("qemu", reason="it is about QEMU")


class Asker:
    """The client's program, connected to a monitor. Use it as a context manager: it must end
    cleanly."""

    def __init__(self, bed: Bed, monitor: pathlib.Path, *limits: int) -> None:
        program = bed.binary.resolve().parents[2] / "tests" / "guest" / "client" / "qmp-ask"
        self.events: list[dict[str, Any]] = []
        self.asked = 0
        self._kept: list[dict[str, Any]] = []
        self._buffer = b""
        self._process = subprocess.Popen([program, monitor, "20000", *map(str, limits)],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            status = self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
        if kind is None:
            assert status == 0

    def send(self, command: str, arguments: dict[str, Any] | None = None,
             timeout: int = 20000) -> int:
        """Make a request, to be answered within so many milliseconds; its number."""
        self._write(f"ask {timeout} {command} {json.dumps(arguments) if arguments else ''}")
        self.asked += 1
        return self.asked

    def answer(self, number: int) -> dict[str, Any]:
        """What became of a request."""
        return self.said(lambda line: line.get("answer") == number)

    def ask(self, command: str, **arguments: Any) -> Any:
        """A request that must succeed, and what it returned. `_` in names stands for `-`."""
        answer = self.answer(self.send(command, {name.replace("_", "-"): value
                                                 for name, value in arguments.items()}))
        assert "return" in answer, answer
        return answer["return"]

    def count(self) -> dict[str, int]:
        """The numbers that the client keeps."""
        self._write("count")
        return self.said(lambda line: "pending" in line)

    def said(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first line that is `wanted` and has not been returned; events go to self.events."""
        for line in self._kept:
            if wanted(line):
                self._kept.remove(line)
                return line
        deadline = time.monotonic() + 60
        while True:
            line = self._line(deadline)
            if wanted(line):
                return line
            (self.events if "event" in line else self._kept).append(line)

    def event(self, name: str) -> dict[str, Any]:
        """The next event of that name; those before it are dropped."""
        while self.events:
            event = self.events.pop(0)
            if event["event"] == name:
                return event
        return self.said(lambda line: line.get("event") == name)

    def _write(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _line(self, deadline: float) -> dict[str, Any]:
        assert self._process.stdout
        while b"\n" not in self._buffer:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self._process.stdout], [], [], left)[0], "the client is silent"
            data = self._process.stdout.read1(1 << 16)
            assert data, f"the client ended with {self._process.wait(20)}"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return dict(json.loads(line))


def ready(line: dict[str, Any]) -> bool:
    return "ready" in line


def monitor_of(guest: QemuGuest) -> pathlib.Path:
    """The socket of QEMU's monitor, which serves one client at a time: guest.monitor is of no use
    from here on."""
    guest.monitor.close()
    words = pathlib.Path(f"/proc/{guest.pid}/cmdline").read_bytes().decode().split("\0")
    socket = words[words.index("-qmp") + 1]
    return pathlib.Path(socket.removeprefix("unix:").partition(",")[0])


def fresh_stats(asker: Asker) -> dict[str, int]:
    """guest-stats once they are newer than now; the first ones that there are, are those with which
    the driver has started."""
    asked, deadline = time.time(), time.monotonic() + 30
    while True:
        stats = asker.ask("qom-get", path=BALLOON, property="guest-stats")
        if stats["last-update"] > asked:
            return dict(stats["stats"])
        assert time.monotonic() < deadline, stats
        time.sleep(0.1)


def manage(asker: Asker, memory: int, total: Callable[[], int]) -> None:
    """What a manager does with a balloon, whoever made it: find out what there is, set a target,
    hear how it is followed, look at the statistics. `total`: MemTotal in the guest."""
    commands = {command["name"] for command in asker.ask("query-commands")}
    assert {"balloon", "query-balloon", "qom-get", "qom-set"} <= commands
    before = total()
    for size in (64 * MIB, 16 * MIB):
        asker.events.clear()
        asker.ask("balloon", value=memory - size)
        while asker.event("BALLOON_CHANGE")["data"]["actual"] != memory - size:
            pass
        assert asker.ask("query-balloon") == {"actual": memory - size}
        assert total() == before - size
    asker.ask("qom-set", path=BALLOON, property="guest-stats-polling-interval", value=1)
    assert asker.ask("qom-get", path=BALLOON, property="guest-stats-polling-interval") == 1
    stats = fresh_stats(asker)
    assert stats["stat-total-memory"] == total()
    assert 0 < stats["stat-free-memory"] < memory
    assert stats["stat-major-faults"] < 2**40


def refusals(asker: Asker) -> None:
    """Error classes, and that the connection goes on behind each."""
    for command, arguments, kind in (
            ("no-such-command", {}, "CommandNotFound"),
            ("balloon", {}, "GenericError"),
            ("balloon", {"value": "much"}, "GenericError"),
            ("balloon", {"value": 1, "more": 2}, "GenericError"),
            ("qom-get", {"path": "/machine/peripheral/nobody", "property": "x"}, "DeviceNotFound"),
            ("qom-get", {"path": BALLOON, "property": "nothing"}, "GenericError"),
            ("qom-set", {"path": BALLOON, "property": "guest-stats-polling-interval",
                         "value": -1}, "GenericError"),
            ("qmp_capabilities", {}, "CommandNotFound")):
        answer = asker.answer(asker.send(command, arguments))
        assert answer.get("class") == kind and answer["desc"], (command, arguments, answer)


def many_at_once(asker: Asker) -> None:
    """As many as may be, answered in order; one more is refused, and it is not sent."""
    numbers = [asker.send("query-version") for _ in range(PENDING_MAX)]
    answers = [asker.answer(number) for number in numbers]
    assert all(answer["return"]["qemu"] for answer in answers)
    assert asker.count() == {"pending": 0, "late": 0}


def hang(asker: Asker, pause: Callable[[], None], resume: Callable[[], None]) -> None:
    """A monitor that hangs: requests end in time, their late answers are nobody else's."""
    pause()
    started = time.monotonic()
    numbers = [asker.send("query-version", timeout=300) for _ in range(PENDING_MAX)]
    extra = asker.answer(asker.send("query-version"))
    assert extra["refused"] < 0, extra
    assert all(asker.answer(number).get("timeout") == 300 for number in numbers)
    assert 0.29 < time.monotonic() - started < 10  # its clock has milliseconds
    last = asker.send("query-balloon")
    resume()
    assert set(asker.answer(last)["return"]) == {"actual"}
    assert asker.count() == {"pending": 0, "late": PENDING_MAX}


@on_qemu
def test_a_balloon_of_qemu(bed: Bed) -> None:
    guest = bed.qemu_guest(own_balloon="")
    with Asker(bed, monitor_of(guest)) as asker:
        greeting = asker.said(ready)["ready"]
        assert greeting["version"]["qemu"]["major"] >= 11 and "oob" in greeting["capabilities"]
        stats = asker.ask("qom-get", path=BALLOON, property="guest-stats")
        assert stats["last-update"] == 0
        assert set(stats["stats"].values()) == {UNKNOWN}  # to the last bit
        guest.load_balloon()
        manage(asker, guest.memory, lambda: guest.meminfo()["MemTotal"])
        refusals(asker)
        many_at_once(asker)
        hang(asker, guest.pause, guest.resume)
        properties = {entry["name"] for entry in asker.ask("qom-list", path=BALLOON)}
        assert {"guest-stats", "deflate-on-oom", "free-page-reporting"} <= properties


@on_qemu
def test_no_balloon_at_all(bed: Bed) -> None:
    guest = bed.qemu_guest()
    with Asker(bed, monitor_of(guest)) as asker:
        asker.said(ready)
        for command, arguments, kind in (
                ("query-balloon", {}, "DeviceNotActive"),
                ("balloon", {"value": 64 * MIB}, "DeviceNotActive"),
                ("qom-get", {"path": BALLOON, "property": "guest-stats"}, "DeviceNotFound")):
            answer = asker.answer(asker.send(command, arguments))
            assert answer.get("class") == kind, (command, answer)


@on_qemu
def test_the_limits_of_one_message_and_the_next_client(bed: Bed) -> None:
    """What is too long ends the connection, not the monitor; limits are the user's to raise."""
    guest = bed.qemu_guest(own_balloon="")
    with Asker(bed, monitor_of(guest)) as asker:
        asker.said(ready)
        asked = asker.send("query-qmp-schema")
        assert asker.answer(asked)["lost"]
        lost = asker.said(lambda line: "lost" in line)
        assert "limit exceeded" in lost["why"], lost
        assert asker.answer(asker.send("query-version"))["refused"] < 0
    with Asker(bed, monitor_of(guest), *QEMU_SCHEMA) as asker:
        asker.said(ready)
        schema = asker.ask("query-qmp-schema")
        assert "balloon" in {entry["name"] for entry in schema}
        # A machine that is gone takes its monitor with it.
        guest.pause()
        waiting = asker.send("query-version")
        guest.kill()
        assert asker.answer(waiting)["lost"]
        assert asker.said(lambda line: "lost" in line)["lost"] == -errno.ECONNRESET


def test_a_balloon_of_ours(bed: Bed) -> None:
    """The same as with QEMU's own, which does not deflate for want of memory unless told to."""
    device = bed.device("--features=no-page-reporting,no-deflate-on-oom")
    guest = bed.guest(device)
    guest.load_balloon()
    memory = device.query()["actual"] + int(device.qmp.execute("query-balloon")["actual"])
    with Asker(bed, device.monitor) as asker:
        greeting = asker.said(ready)["ready"]
        assert greeting["version"]["package"].startswith("aerostat")
        manage(asker, memory, lambda: guest.meminfo()["MemTotal"])
        refusals(asker)
        many_at_once(asker)
        asker.ask("query-qmp-schema")
