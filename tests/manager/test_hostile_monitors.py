# SPDX-License-Identifier: MIT
"""Monitors that hang, lie, talk nonsense or talk without end, beside others that are as they should
be: those are served as if they were alone, and the manager's memory, time and log stay bounded."""

from __future__ import annotations

import asyncio
import itertools
import os
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from daemon import Daemon
from distortions import DISTORTIONS
from monitors import GIB, MIB, Behaviour, Monitor, Monitors, Raw

GOOD = 50
WATCHED_S = 5.0  # the time for which the hostile ones have their way
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")

GREETING = b'{"QMP": {"version": {"qemu": {"major": 9, "minor": 2, "micro": 0}, "package": ""}, ' \
           b'"capabilities": []}}\r\n'


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def numbers(value: Any) -> list[float]:
    """All numbers in an answer, at any depth."""
    if isinstance(value, dict):
        return [n for item in value.values() for n in numbers(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers(item)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


class Attempts:
    """A socket that takes connections, says what `serve` says, and counts."""

    def __init__(self, monitors: Monitors, name: str,
                 serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> None:
        self.at: list[float] = []
        self.path = monitors.directory / f"{name}.qmp"

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.at.append(time.monotonic())
            task = asyncio.current_task()
            assert task is not None
            monitors.tasks.add(task)
            try:
                await serve(reader, writer)
            except (ConnectionError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        async def listen() -> asyncio.AbstractServer:
            return await asyncio.start_unix_server(connected, str(self.path))

        self.server = monitors.do(listen())


async def one_byte_a_second(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in GREETING:
        writer.write(bytes([byte]))
        await asyncio.sleep(1)


async def answers_before_questions(reader: asyncio.StreamReader,
                                   writer: asyncio.StreamWriter) -> None:
    await reader.read(0)
    writer.write(GREETING + b'{"return": {}, "id": 0}\r\n' * 50)
    await asyncio.sleep(60)


async def closes_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING)


async def two_greetings(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING * 2)
    await asyncio.sleep(60)


async def endless_line(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b" " * 65536)
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood(monitor: Monitor, messages: list[dict[str, Any]], seconds: float) -> None:
    """Sends events to all who are connected, a few thousand each second."""
    deadline = time.monotonic() + seconds
    endless = itertools.cycle(messages)
    while time.monotonic() < deadline:
        for connection in list(monitor.connections):
            if connection.negotiated:
                for _ in range(20):
                    connection.send(next(endless))
        await asyncio.sleep(0.01)


async def flap(monitor: Monitor, seconds: float) -> None:
    """Hangs up soon after it was asked for everything."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if sum(command == "query-balloon" for command, _ in monitor.calls) > 0:
            await monitor._hang_up()
        await asyncio.sleep(0.05)


def hostile_monitors(monitors: Monitors) -> dict[str, Monitor]:
    """One of each kind."""
    bad: dict[str, Monitor] = {}
    for distortion in DISTORTIONS:
        for make in (monitors.qemu, monitors.aerostat):
            name = f"{make.__name__}-{distortion.__name__}"
            bad[name] = make(name, distort=distortion)
    for behaviour in (Behaviour.HUNG, Behaviour.MUTE, Behaviour.GARBAGE, Behaviour.HUGE,
                      Behaviour.HANGS_UP):
        bad[behaviour.name] = monitors.qemu(behaviour.name, behaviour=behaviour)
    raws = {"deep": b"[" * 5000, "wrong-id": b'{"return": {}, "id": 99999}\r\n',
            "no-id": b'{"return": {}}\r\n', "truncated": b'{"return": {"actu\r\n',
            "not-utf8": b'{"return": {"actual": "\xff\xfe"}, "id": 1}\r\n',
            "keys": b'{"return": {' + b",".join(b'"%d": 1' % i for i in range(70000)) + b"}}\r\n"}
    for name, raw in raws.items():
        bad[name] = monitors.qemu(name, replies={"query-balloon": Raw(raw)})
    sizes = itertools.count(1)
    bad["size"] = monitors.qemu("size", replies={"query-memory-size-summary": lambda _: {
        "base-memory": GIB + next(sizes) * MIB}})
    return bad


def test_the_others_are_not_disturbed(manage: Callable[..., Daemon], monitors: Monitors,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASAN_OPTIONS", "quarantine_size_mb=4")
    good = monitors.many(GOOD)
    names = {monitor.name for monitor in good}
    manager = manage(budget=GOOD * GIB * 6 // 10)
    manager.serving(GOOD)
    bad = hostile_monitors(monitors)
    scripts = [Attempts(monitors, function.__name__, function) for function in (
        one_byte_a_second, answers_before_questions, closes_at_once, two_greetings, endless_line)]
    flooding = monitors.aerostat("flooding")
    pressing = monitors.aerostat("pressing")
    flapping = monitors.qemu("flapping")
    manager.wait_for("the flooding ones", lambda vms: all(
        vms.get(name, {}).get("managed") for name in ("flooding", "pressing")))
    began, cpu, memory = time.monotonic(), cpu_seconds(manager.pid), resident(manager.pid)
    log = len(manager.stderr())
    monitors.post(flood(flooding, [flooding._event(*event) for event in (
        ("GUEST_HEALTH_CHANGE", {"status": "slow"}), ("GUEST_HEALTH_CHANGE", {"status": "healthy"}),
        ("BALLOON_CHANGE", {"actual": GIB}), ("BALLOON_CHANGE", {"actual": GIB // 2}),
        ("STOP", None), ("RESUME", None), ("RESET", None), ("A_NEW_ONE", {"what": 1}))],
        WATCHED_S))
    monitors.post(flood(pressing, [pressing._event("GUEST_PRESSURE", {
        "type": "pressure", "level": level}) for level in ("critical", "low", "nobody knows")],
        WATCHED_S))
    monitors.post(flap(flapping, WATCHED_S))
    while time.monotonic() < began + WATCHED_S:
        vms = manager.vms()
        for name in names:
            assert vms[name]["state"] == "serving", vms[name]
            assert vms[name]["stats-age-ms"] < 4000, vms[name]
        assert all(0 <= n < 1 << 63 for n in numbers(vms)), vms
        assert all(vm.get("size", 0) <= 1 << 47 for vm in vms.values())
        time.sleep(0.3)
    spent = time.monotonic() - began
    assert cpu_seconds(manager.pid) - cpu < 0.7 * spent
    assert resident(manager.pid) - memory < 24 * MIB
    # 100 lines of each VM in ten seconds, of 150 characters at most, of those that say something.
    assert len(manager.stderr()) - log < 400_000, manager.stderr()[-2000:]
    for name in ("flooding", "pressing"):
        lines = [line for line in manager.stderr().splitlines() if f" {name}: " in line]
        assert 50 < len(lines) < 330
    for monitor in good:
        assert monitor.targets(), f"{monitor.name} got no target"
    # Between two attempts the time doubles: 200, 400, 800 ms and so on.
    for script in scripts:
        assert 1 <= len(script.at) <= 7, (script.path, script.at)
    for name in ("HANGS_UP", "wrong-id", "truncated"):
        assert 2 <= bad[name].commands().count("qmp_capabilities") <= 8, name
    assert 2 <= flapping.commands().count("qmp_capabilities") <= 9
    assert manager.vms()["HUNG"]["absence"] == "hung"
    assert manager.vms()["MUTE"]["absence"] == "hung"
    assert manager.vms()["deep"]["absence"] == "misbehaved"


def test_a_monitor_that_is_normal_again_is_served_again(manage: Callable[..., Daemon],
                                                        monitors: Monitors) -> None:
    odd = {behaviour: monitors.qemu(behaviour.name, behaviour=behaviour)
           for behaviour in (Behaviour.GARBAGE, Behaviour.HUGE, Behaviour.HANGS_UP)}
    manager = manage()
    manager.wait_for("failures", lambda vms: all(
        vms.get(behaviour.name, {}).get("absence") in ("misbehaved", "gone") for behaviour in odd))
    assert not any(vm["managed"] for vm in manager.vms().values())
    for monitor in odd.values():
        monitor.behaviour = Behaviour.NORMAL
    manager.serving(len(odd))


def test_statistics_of_the_future_do_not_stay_fresh(manage: Callable[..., Daemon],
                                                    monitors: Monitors) -> None:
    """QEMU's figures have a time of the wall clock, and a liar has any: the age is from when they
    came, and grows when no more come."""
    liar = monitors.qemu("liar")
    updates = itertools.count(1)
    liar.replies["qom-get"] = lambda _: {"stats": {"stat-free-memory": MIB,
                                                   "stat-total-memory": GIB},
                                         "last-update": 1 << 62 | next(updates)}
    honest = monitors.qemu("honest")
    manager = manage()
    manager.wait_for("both", lambda vms: all(vm["managed"] for vm in vms.values()))
    assert "stats" not in manager.vms()["liar"]
    liar.replies["qom-get"] = lambda _: {"stats": {"stat-free-memory": MIB,
                                                   "stat-total-memory": GIB},
                                         "last-update": 4102444800 + next(updates)}
    manager.wait_for("figures", lambda vms: "stats" in vms["liar"])
    events = [liar._event("BALLOON", {"stats": {"stat-free-memory": MIB},
                                      "last-update": 4102444800 + next(updates) + i})
              for i in range(5000)]
    liar.replies["qom-get"] = lambda _: {"stats": {}, "last-update": 0}
    for event in events:
        liar.owner.post(liar._send(event))
    liar.event("THE_LAST")
    manager.wait_for("an age", lambda vms: vms["liar"]["stats-age-ms"] > 700, timeout=2)
    assert honest.commands().count("qmp_capabilities") == 1


def test_another_machine_at_the_same_socket(manage: Callable[..., Daemon],
                                            monitors: Monitors) -> None:
    """Name, UUID and figures of the one before are not those of the next."""
    first = monitors.qemu("first", size=2 * GIB)
    manager = manage()
    manager.serving(1)
    first.die(keep_socket=True)
    gone = manager.wait_for("its end", lambda vms: vms["first"].get("absence") == "gone")["first"]
    assert not {"size", "actual", "stats", "target", "resident"} & set(gone), gone
    first.name, first.uuid = "", "00000000-0000-0000-0000-000000000000"
    first.reports = False
    first.come_back()
    seen = manager.wait_for("the next", lambda vms: any(vm["managed"] for vm in vms.values()))
    (vm,) = seen.values()
    assert "uuid" not in vm and "stats" not in vm and vm["driver"] == "none", vm


def test_after_a_hang(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """What hangs keeps its memory. When another process answers there, it is another VM; and a
    guest whose driver tells nothing is not unresponsive for ever because its monitor once was."""
    web = monitors.qemu("web")
    quiet = monitors.qemu("quiet", reports=False, actual=GIB // 2)
    quiet.target = GIB // 2
    manager = manage()
    manager.wait_for("both", lambda vms: sum(vm["managed"] for vm in vms.values()) == 2)
    web.behaviour = quiet.behaviour = Behaviour.MUTE
    vms = manager.wait_for("silence", lambda vms: all(
        vm.get("absence") == "hung" and vm["health"] == "unresponsive" for vm in vms.values()))
    assert vms["web"]["managed"] and vms["quiet"]["managed"]
    web.name, web.uuid = "mail", "6ba7b812-9dad-11d1-80b4-00c04fd430c8"
    web.behaviour = quiet.behaviour = Behaviour.NORMAL
    vms = manager.wait_for("their return", lambda vms: "mail" in vms and vms["mail"]["managed"] and
                           vms["quiet"]["state"] == "serving" and
                           vms["quiet"]["health"] != "unresponsive")
    assert set(vms) == {"mail", "quiet"}
    assert [event["event"] for event in manager.events() if event["event"].startswith("VM_") and
            event["data"]["name"] != "quiet"] == ["VM_APPEARED", "VM_GONE", "VM_APPEARED"]


def test_a_size_that_is_known_late(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    late = monitors.qemu("late", replies={"query-memory-size-summary": {"base-memory": 0}})
    manager = manage("--interval=200")
    manager.wait_for("service", lambda vms: vms["late"]["state"] == "serving")
    assert not manager.vms()["late"]["managed"]
    del late.replies["query-memory-size-summary"]
    manager.wait_for("its size", lambda vms: vms["late"]["managed"])


def test_a_device_that_lies_about_the_host(manage: Callable[..., Daemon],
                                           monitors: Monitors) -> None:
    """The memory that VMs have is part of what may be shared out: one that claims to have more than
    the host has does not make the others' share larger."""
    monitors.aerostat("liar", resident=1 << 46)
    manager = manage(budget=0)
    manager.serving(1)
    time.sleep(2.2)
    host = manager.qmp.execute("query-host")
    assert host["resident"] + host["available"] <= host["total"]
    assert host["allowed"] <= host["total"]


@pytest.mark.skipif(os.geteuid() != 0, reason="links of others can be made by root only")
def test_links_of_others(manage: Callable[..., Daemon], monitors: Monitors,
                         workdir: pathlib.Path) -> None:
    """Who may put a socket into the directory may not have us connect to another one, to which he
    may not himself: that machine would be there twice."""
    monitors.aerostat("victim")
    links = [monitors.directory / "evil.qmp", workdir / "evil.qmp", workdir / "good.qmp"]
    for link in links:
        link.symlink_to(monitors.directory / "victim.qmp")
    for link in links[:2]:
        os.lchown(link, 65534, 65534)
    manager = manage(vms={"evil": {"monitor": links[1]}, "good": {"monitor": links[2]}})
    vms = manager.wait_for("both", lambda vms: sum(vm["managed"] for vm in vms.values()) == 2)
    refused = [vm for vm in vms.values() if not vm["managed"]]
    assert [vm["monitor"] for vm in refused] == [str(links[1])]
    assert refused[0]["absence"] == "misbehaved" and "link" in refused[0]["why"]
    assert {vm["monitor"] for vm in vms.values() if vm["managed"]} == {
        str(links[2]), str(monitors.directory / "victim.qmp")}


def test_messages_that_do_not_end(manage: Callable[..., Daemon], monitors: Monitors,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as a list of thousands of devices is, and no longer: each costs memory as long as its
    monitor likes."""
    monkeypatch.setenv("ASAN_OPTIONS", "quarantine_size_mb=4")
    devices = monitors.qemu("devices")
    devices.replies["qom-list"] = lambda _: [
        {"name": f"disk-{i:04}", "type": "child<virtio-blk-pci>"} for i in range(2500)] + [
        {"name": "balloon0", "type": "child<virtio-balloon-pci>"}]
    manager = manage()
    manager.serving(1)
    before = resident(manager.pid)
    endless = [monitors.aerostat(f"endless{i}") for i in range(40)]
    manager.serving(41)
    open_ones = [(monitor, connection) for monitor in endless for connection in monitor.connections]
    assert len(open_ones) == 40
    for _, connection in open_ones:
        monitors.do(_write(connection.writer, b'{"event": "' + b"x" * 900_000))
    # They are connected to again some time after, the first of them perhaps before the last ends.
    manager.wait_for("an end with them", lambda _: not any(
        connection in monitor.connections for monitor, connection in open_ones))
    lost = re.findall(r"^aerostatd: (endless\d+): unresponsive$", manager.stderr(), re.MULTILINE)
    assert set(lost) == {monitor.name for monitor in endless}
    assert resident(manager.pid) - before < 24 * MIB


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
