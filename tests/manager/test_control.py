# SPDX-License-Identifier: MIT
"""The control monitor with clients of all kinds: who talks nonsense, does not read, comes in
crowds, or goes away while something is done for him."""

from __future__ import annotations

import json
import pathlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from daemon import Daemon, QmpClient, QmpError
from monitors import GIB, MIB, Monitors, wait_for

CLIENTS_MAX = 64


def connect(manager: Daemon) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(manager.control))  # waits where more come at a time than are accepted
    client.settimeout(10)
    return client


def reservations(manager: Daemon) -> list[dict[str, Any]]:
    return list(manager.qmp.execute("query-host")["reservations"])


@pytest.fixture
def tight(manage: Callable[..., Daemon], monitors: Monitors) -> Daemon:
    """Two machines whose memory comes back slowly, in a budget of 2 GiB."""
    for name in ("one", "two"):
        monitors.qemu(name, used=100 * MIB, rate=150.0 * MIB)
    manager = manage(budget=2 * GIB)
    manager.serving(2)
    return manager


def test_garbage(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    monitors.qemu("web")
    manager = manage()
    manager.serving(1)
    for garbage in (b"\xff\x00\n", b"[" * 100_000, b"{" * 100_000, b'{"execute": 5}\n',
                    b'"x', b"\n" * 5000, b'{"execute":"query-vms"}\n' * 500, b"x" * 1_000_000):
        with connect(manager) as client:
            try:
                client.sendall(garbage)
                client.recv(4096)
            except OSError:
                pass  # it may have had enough of us
    hostile: list[tuple[str, dict[str, Any]]] = [
        ("query-vm", {}), ("query-vm", {"name": 5}), ("query-vm", {"name": "nobody"}),
        ("query-vm", {"name": "x" * 10_000}), ("set-vm", {"name": "web", "floor": -1}),
        ("set-vm", {"name": "web", "floor": 2 * MIB, "ceiling": MIB}),
        ("set-vm", {"name": "web", "floor": "1G"}), ("set-vm", {"name": "web", "priority": 0}),
        ("set-vm", {"name": "web", "priority": 10_001}), ("set-vm", {"name": "web", "colour": 1}),
        ("reserve", {"bytes": 0}), ("reserve", {"bytes": (1 << 64) - 1}),
        ("reserve", {"bytes": 1, "timeout-ms": 1 << 63}), ("release", {"id": 0}),
        ("release", {"id": (1 << 64) - 1}), ("explain", {"name": ""}), ("fly", {})]
    before = manager.vms()["web"]
    for command, arguments in hostile:
        with pytest.raises(QmpError):
            manager.qmp.execute_as_is(command, arguments)
    after = manager.vms()["web"]
    for key in ("floor", "ceiling", "priority"):
        assert before[key] == after[key]
    assert manager.events(after=(1 << 64) - 1) == []
    web = manager.qmp.execute("set-vm", name="web", floor=(1 << 64) - 2, ceiling=(1 << 64) - 2)
    assert web["floor"] == web["ceiling"] == web["size"]


def test_a_crowd(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    monitors.qemu("web")
    manager = manage()
    manager.serving(1)
    crowd = [connect(manager) for _ in range(100)]
    greeted = 0
    for client in crowd:
        greeted += client.recv(4096).startswith(b'{"QMP"')
    assert greeted == CLIENTS_MAX - 1  # one is ours
    for client in crowd:
        client.close()
    for _ in range(200):
        with connect(manager) as client:
            assert client.recv(5) in (b'{"QMP', b"")

    def taken() -> bool:
        try:
            with QmpClient(manager.control) as client:
                return bool(client.execute("query-vms"))
        except (OSError, EOFError, QmpError):
            return False

    wait_for("a free place", taken)


def test_one_that_does_not_read(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """It is hung up on, or costs a bounded amount: others hear what there is to hear."""
    monitors.many(20)
    loud = monitors.aerostat("loud")
    manager = manage()
    manager.serving(20)
    with connect(manager) as deaf:
        deaf.sendall(b'{"execute": "qmp_capabilities"}\n' + b'{"execute": "query-vms"}\n' * 2000)
        memory = pathlib.Path(f"/proc/{manager.pid}/statm")
        before = int(memory.read_text().split()[1]) * 4096
        with QmpClient(manager.control) as listener:
            for _ in range(60):
                loud.press("critical")
            for _ in range(60):
                assert listener.wait_event("PRESSURE")["name"] == "loud"
        assert int(memory.read_text().split()[1]) * 4096 - before < 32 * MIB
        assert len(manager.vms()) == 21


def test_answers_for_many_machines(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """An answer of a megabyte comes whole."""
    monitors.many(300)
    manager = manage()
    manager.wait_for("all", lambda vms: sum(vm["managed"] for vm in vms.values()) == 300)
    assert len(json.dumps(manager.qmp.execute("query-vms"))) > 200_000
    assert manager.qmp.execute("query-host")["managed"] == 300


def test_reserve_and_release(tight: Daemon) -> None:
    began = time.monotonic()
    granted = tight.qmp.execute("reserve", **{"bytes": 512 * MIB, "timeout-ms": 20000,
                                              "hold-ms": 0})
    assert time.monotonic() - began > 0.5  # it had to be freed
    assert granted["hold-ms"] == 60000  # what there is, not what was said
    (held,) = reservations(tight)
    assert (held["id"], held["got"], held["granted"]) == (granted["id"], 512 * MIB, True)
    assert 0 < held["left-ms"] <= 60000
    tight.qmp.execute("release", id=granted["id"])
    assert reservations(tight) == []
    with pytest.raises(QmpError):
        tight.qmp.execute("release", id=granted["id"])


def test_a_reservation_that_fails_or_expires(tight: Daemon) -> None:
    with pytest.raises(QmpError, match="not free in time"):
        tight.qmp.execute("reserve", **{"bytes": GIB, "timeout-ms": 300})
    assert reservations(tight) == []
    with pytest.raises(QmpError, match="cannot be freed"):
        tight.qmp.execute("reserve", **{"bytes": 2 * GIB})
    tight.qmp.execute("reserve", **{"bytes": 64 * MIB, "timeout-ms": 20000, "hold-ms": 300})
    wait_for("its end", lambda: not reservations(tight))
    changes = [event["data"]["change"] for event in tight.events()
               if event["event"] == "RESERVATION_CHANGE"]
    assert changes == ["failed", "granted", "expired"]


def test_who_goes_away_reserves_nothing(tight: Daemon) -> None:
    """Nobody else would release it; and it is not gathered for the whole of its time, either."""
    client = QmpClient(tight.control)
    client.send("reserve", **{"bytes": GIB, "timeout-ms": 3600000})
    wait_for("a reservation", lambda: reservations(tight))
    client.close()
    wait_for("its end", lambda: not reservations(tight), timeout=2)
    with QmpClient(tight.control) as stays:
        stays.send("reserve", **{"bytes": 128 * MIB, "timeout-ms": 20000})
        assert stays.receive()["bytes"] == 128 * MIB
    time.sleep(0.3)
    assert len(reservations(tight)) == 1  # granted ones are kept: `aerostat reserve` has ended


def test_reservations_together(tight: Daemon) -> None:
    """No page is promised twice, and each who waits is answered, also when the answer comes while
    another one asks."""
    results: list[Any] = []

    def ask(size: int, timeout_ms: int) -> None:
        try:
            with QmpClient(tight.control) as client:
                results.append(client.execute("reserve", **{"bytes": size,
                                                            "timeout-ms": timeout_ms}))
        except QmpError as error:
            results.append(error)

    threads = [threading.Thread(target=ask, args=(256 * MIB, 4000)) for _ in range(6)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 8
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        # Each question makes a pass, which may grant what another one waits for.
        with pytest.raises(QmpError):
            tight.qmp.execute("reserve", **{"bytes": 1 << 50})
        host = tight.qmp.execute("query-host")
        assert sum(r["got"] for r in host["reservations"]) <= 2 * GIB
        time.sleep(0.005)
    for thread in threads:
        thread.join(1)
        assert not thread.is_alive(), "somebody was not answered"
    granted = [result for result in results if isinstance(result, dict)]
    assert len(results) == 6 and 1 <= len(granted) <= 6
    assert len({result["id"] for result in granted}) == len(granted)
    assert sorted(r["id"] for r in reservations(tight)) == sorted(r["id"] for r in granted)
    for result in granted:
        tight.qmp.execute("release", id=result["id"])


class Pipeline:
    """A client that sends commands in one write, and takes each answer by its id."""

    def __init__(self, manager: Daemon) -> None:
        self.socket = connect(manager)
        self.lines = self.socket.makefile()
        self.lines.readline()
        self.send(("qmp_capabilities", {}))
        self.answer(0)

    def send(self, *commands: tuple[str, dict[str, int]]) -> None:
        self.socket.sendall(b"".join(
            json.dumps({"execute": name, "arguments": arguments, "id": number}).encode() + b"\n"
            for number, (name, arguments) in enumerate(commands)))

    def answer(self, number: int) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(self.lines.readline())
            if "event" not in message:
                assert message["id"] == number, message
                return message

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


def test_one_is_served_while_another_asks(manage: Callable[..., Daemon],
                                          monitors: Monitors) -> None:
    """What one client asks for may be the moment when another has what he waited for, who has asked
    for more meanwhile: each is told of his own."""
    monitors.qemu("one", size=4 * GIB, used=100 * MIB, follows=False)
    manager = manage(budget=6 * GIB)
    manager.serving(1)
    host = manager.qmp.execute("query-host")
    free = host["allowed"] - host["promised"]
    first, second = Pipeline(manager), Pipeline(manager)
    first.send(("reserve", {"bytes": free - 100 * MIB, "timeout-ms": 5000}))
    held = first.answer(0)["return"]["id"]
    second.send(("reserve", {"bytes": 400 * MIB, "timeout-ms": 20000}),
                ("reserve", {"bytes": MIB, "timeout-ms": 20000}))
    wait_for("the second", lambda: len(reservations(manager)) == 2)
    first.send(("release", {"id": held}),
               ("reserve", {"bytes": free + 100 * MIB, "timeout-ms": 2000}))
    assert "return" in first.answer(0)
    granted = [second.answer(0)["return"]["id"]]
    states = {r["id"]: r["granted"] for r in reservations(manager)}
    assert [id for id, state in states.items() if state] == granted and len(states) > 1
    assert "not free in time" in first.answer(1)["error"]["desc"]
    granted.append(second.answer(1)["return"]["id"])  # it stood behind that one
    assert sorted(r["id"] for r in reservations(manager)) == sorted(granted)
    first.close()
    second.close()


def test_released_by_another(tight: Daemon) -> None:
    with QmpClient(tight.control) as waits:
        waits.send("reserve", **{"bytes": GIB, "timeout-ms": 60000})
        (entry,) = wait_for("it", lambda: reservations(tight))
        tight.qmp.execute("release", id=entry["id"])
        with pytest.raises(QmpError):
            waits.receive()


def test_more_than_can_be_kept(tight: Daemon) -> None:
    clients = []
    for _ in range(32):
        clients.append(QmpClient(tight.control))
        clients[-1].send("reserve", **{"bytes": 40 * MIB, "timeout-ms": 60000})
    wait_for("32", lambda: len(reservations(tight)) == 32)
    with pytest.raises(QmpError, match="32 reservations"):
        tight.qmp.execute("reserve", **{"bytes": MIB})
    for client in clients:
        client.close()


def test_ends_while_somebody_waits(tight: Daemon) -> None:
    with QmpClient(tight.control) as waits:
        waits.send("reserve", **{"bytes": GIB, "timeout-ms": 60000})
        wait_for("it", lambda: reservations(tight))
        tight.stop()


def test_quit(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    monitors.qemu("web")
    manager = manage()
    manager.serving(1)
    assert manager.qmp.execute("quit") == {}
    assert manager._running().wait(20) == 0
    manager._process = None
    assert not manager.control.exists()
