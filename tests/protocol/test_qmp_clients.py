# SPDX-License-Identifier: MIT
"""The monitor and clients that others wrote for QEMU: its Python library `qemu.qmp`, and the
qmp-shell that comes with it. They are Debian's, unmodified, out of the cache that `./run test`
fills (tools/lib/qmp.sh)."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import pathlib
import select
import subprocess
import sys
from typing import Any, Callable, Iterator

import pytest

from balloon import MIB, Guest, stat
from process import Device
from vhost_user import wait_for

BALLOON = {"path": "/machine/peripheral/balloon0"}
STATS = {**BALLOON, "property": "guest-stats"}
CHANGE_S = 5  # BALLOON_CHANGE comes at most once a second


@pytest.fixture(scope="module")
def clients() -> Iterator[pathlib.Path]:
    """Where they are; modules of them can be imported."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    cache = os.environ.get("AEROSTAT_CACHE") or pathlib.Path(base) / "aerostat"
    root = pathlib.Path(cache) / "qmp" / "usr"
    library = root / "lib/python3/dist-packages"
    if not (library / "qemu/qmp/qmp_client.py").is_file():
        pytest.skip(f"QEMU's QMP clients are not in {root}: ./run test fetches them from Debian")
    sys.path.insert(0, str(library))
    yield root
    sys.path.remove(str(library))


@pytest.fixture
def guest(device: Device) -> Guest:
    return device.guest()


class Shell:
    """qmp-shell with pipes instead of a terminal."""

    def __init__(self, clients: pathlib.Path, monitor: str, home: pathlib.Path) -> None:
        self._command = ["/usr/bin/python3", str(clients / "bin/qmp-shell"), monitor]
        self._options: dict[str, Any] = {
            "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
            "text": True, "env": {**os.environ, "HOME": str(home),  # it writes its history there
                                  "PYTHONUNBUFFERED": "1",
                                  "PYTHONPATH": str(clients / "lib/python3/dist-packages")}}

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self._command, **self._options)

    def __call__(self, *lines: str, options: tuple[str, ...] = ()) -> list[str]:
        """The lines that it prints for those."""
        with subprocess.Popen([*self._command, *options], **self._options) as process:
            try:
                said, complaints = process.communicate("".join(line + "\n" for line in lines), 30)
            finally:
                process.kill()
        assert process.returncode == 0 and complaints == "", (said, complaints)
        return [line.replace("(QEMU) ", "") for line in said.split("\n")]


@pytest.fixture
def shell(clients: pathlib.Path, device: Device, tmp_path: pathlib.Path) -> Shell:
    return Shell(clients, device.mon, tmp_path)


def connected(device: Device, what: Callable[[Any], Any]) -> None:
    """Runs the coroutine function `what` with a client of the library that is connected."""
    library = importlib.import_module("qemu.qmp")

    async def main() -> None:
        client = library.QMPClient("test")
        await client.connect(device.mon)
        try:
            await asyncio.wait_for(what(client), 30)
        finally:
            await client.disconnect()

    asyncio.run(main())


async def failure(client: Any, command: str, arguments: dict[str, Any]) -> tuple[str, str]:
    """Class and words of the error that this command is answered with."""
    library = importlib.import_module("qemu.qmp")
    with pytest.raises(library.ExecuteError) as caught:
        await client.execute(command, arguments)
    assert caught.value.received["id"] == caught.value.sent["id"]
    return caught.value.error_class, str(caught.value)


@pytest.mark.usefixtures("clients")
def test_library_connects_and_connects_again(device: Device) -> None:
    async def greeted(client: Any) -> None:
        version = client.greeting.QMP.version
        assert version == await client.execute("query-version")
        assert set(version["qemu"]) == {"major", "minor", "micro"}
        assert version["package"].startswith("aerostat ")
        assert client.greeting.QMP.capabilities == []

    for _ in range(3):
        connected(device, greeted)


@pytest.mark.usefixtures("clients")
def test_library_runs_commands(device: Device, guest: Guest) -> None:
    """Each with an id of the library's; many at once; numbers of 64 bits."""
    async def commands(client: Any) -> None:
        names = {command["name"] for command in await client.execute("query-commands")}
        assert {"balloon", "query-balloon", "qom-get", "qom-set", "quit"} <= names
        answers = await asyncio.gather(*(client.execute("query-status") for _ in range(100)))
        assert all(answer["running"] is True for answer in answers)
        schema = await client.execute("query-qmp-schema")
        assert names == {entry["name"] for entry in schema if entry["meta-type"] == "command"}
        assert await client.execute("balloon", {"value": guest.mem.size() - 4 * MIB}) == {}
        assert await client.execute("query-balloon") == {"actual": guest.mem.size()}
        guest.give_stats(stat(4, 2**64 - 2))
        while not (found := await client.execute("qom-get", STATS))["stats"]:
            await asyncio.sleep(0.01)
        assert found["stats"] == {"stat-free-memory": 2**64 - 2}
        polling = {**BALLOON, "property": "guest-stats-polling-interval"}
        assert await client.execute("qom-set", {**polling, "value": 3}) == {}
        assert await client.execute("qom-get", polling) == 3

    connected(device, commands)
    assert guest.num_pages() == 4 * MIB // 4096


@pytest.mark.usefixtures("clients")
def test_library_takes_errors_apart(device: Device) -> None:
    async def errors(client: Any) -> None:
        for command, arguments, kind, words in (
                ("no-such-command", {}, "CommandNotFound", "no-such-command"),
                ("qmp_capabilities", {}, "CommandNotFound", "negotiation"),
                ("query-balloon", {}, "DeviceNotActive", "balloon"),
                ("qom-get", {"path": "/nobody", "property": "x"}, "DeviceNotFound", "nobody"),
                ("balloon", {}, "GenericError", "value"),
                ("balloon", {"value": 1, "more": 2}, "GenericError", "more"),
                ("balloon", {"value": "\u20ac\U0001f388\u0001"}, "GenericError", "value")):
            found = await failure(client, command, arguments)
            assert found[0] == kind and words in found[1], (command, found)
        assert "running" in await client.execute("query-status")

    connected(device, errors)


@pytest.mark.usefixtures("clients")
def test_library_hears_events(device: Device) -> None:
    async def events(client: Any) -> None:
        with client.listener(("VMM_CONNECTED", "BALLOON_CHANGE")) as listener:
            guest = await asyncio.to_thread(device.guest)
            event = await listener.get()
            assert event["event"] == "VMM_CONNECTED"
            assert {"seconds", "microseconds"} == set(event["timestamp"])
            guest.write_actual(MIB // 4096)
            event = await asyncio.wait_for(listener.get(), CHANGE_S)
            assert event["event"] == "BALLOON_CHANGE"
            assert event["data"] == {"actual": guest.mem.size() - MIB}

    connected(device, events)


@pytest.mark.usefixtures("clients")
def test_library_when_the_monitor_goes(device: Device) -> None:
    """A command that ends the process is answered before."""
    async def quitting(client: Any) -> None:
        assert await client.execute("quit") == {}

    library = importlib.import_module("qemu.qmp")
    try:
        connected(device, quitting)
    except (EOFError, library.QMPError):
        pass  # disconnect() tells that the other side was faster
    device.gone()
    device.kill()


@pytest.mark.usefixtures("clients")
def test_legacy_library(device: Device, guest: Guest) -> None:
    """The one without coroutines, which scripts of many years use."""
    legacy = importlib.import_module("qemu.qmp.legacy")
    with legacy.QEMUMonitorProtocol(device.mon) as client:
        assert client.connect()["QMP"]["capabilities"] == []
        assert client.cmd("query-balloon") == {"actual": guest.mem.size()}
        answer = client.cmd_obj({"execute": "query-balloon", "id": "mine"})
        assert answer == {"return": {"actual": guest.mem.size()}, "id": "mine"}
        assert client.cmd_raw("nonsense")["error"]["class"] == "CommandNotFound"
        client.clear_events()
        device.close(guest)
        assert client.pull_event(wait=10.0)["event"] == "VMM_DISCONNECTED"
        assert client.get_events(wait=False) == []


def test_shell(shell: Shell, guest: Guest) -> None:
    lines = shell("query-balloon", f"balloon value={guest.mem.size() - MIB}", "nonsense a=1",
                  "qom-set path=/machine/peripheral/balloon0 value=5 "
                  "property=guest-stats-polling-interval",
                  "qom-get path=/machine/peripheral/balloon0 property=guest-stats-polling-interval",
                  "balloon value=many", "")
    assert lines[0].startswith("Welcome") and lines[1].startswith("Connected to QEMU ")
    answers = [json.loads(line) for line in lines if line.startswith("{")]
    assert [answer.get("return") for answer in answers] == [
        {"actual": guest.mem.size()}, {}, None, {}, 5, None]
    assert [answers[n]["error"]["class"] for n in (2, 5)] == ["CommandNotFound", "GenericError"]
    wait_for(lambda: guest.num_pages() == MIB // 4096, "the target")


@pytest.mark.usefixtures("guest")
def test_shell_shows_what_it_sends(shell: Shell) -> None:
    lines = shell("query-balloon", "query-status", options=("-v",))
    sent = [line for line in lines if line.startswith('{"execute"')]
    assert [json.loads(line)["execute"] for line in sent] == ["query-balloon", "query-status"]
    pretty = "\n".join(shell("query-status", options=("-p",)))
    assert '\n    "return": {\n' in pretty


def test_shell_shows_events(shell: Shell, device: Device, guest: Guest) -> None:
    """Those that came before an empty line."""
    with shell.start() as process:
        try:
            assert process.stdin and process.stdout
            while not process.stdout.readline().startswith("Connected"):
                pass
            device.close(guest)
            said = ""
            while "'event': 'VMM_DISCONNECTED'" not in said:
                process.stdin.write("\n")
                process.stdin.flush()
                # It may not have come yet, and then there is nothing but another prompt.
                while select.select([process.stdout], [], [], 0.2)[0]:
                    said += os.read(process.stdout.fileno(), 4096).decode()
        finally:
            process.kill()


def test_shell_of_the_human_monitor(shell: Shell, guest: Guest) -> None:
    guest.give_stats(stat(4, 3 * MIB))
    text = "\n".join(shell("help", "info balloon", f"balloon {guest.mem.size() // MIB - 1}",
                           "info nonsense", "nonsense", options=("-H",)))
    assert "Welcome to the HMP shell!" in text
    assert "balloon target -- " in text
    assert f"balloon: actual={guest.mem.size() // MIB}" in text
    assert "unknown command: 'info nonsense'" in text and "unknown command: 'nonsense'" in text
    wait_for(lambda: guest.num_pages() == MIB // 4096, "the target")


@pytest.mark.usefixtures("clients")
def test_shell_completes_words(device: Device) -> None:
    """It finds the words in the list of commands, and in the lines of the help texts."""
    shells = importlib.import_module("qemu.qmp.qmp_shell")

    def completions(shell: Any, text: str) -> set[str]:
        found, number = set(), 0
        while word := shell._completer.complete(text, number):
            found.add(word)
            number += 1
        return found

    with shells.QMPShell(device.mon) as shell:
        shell._save_history = lambda: None  # it would go to the user's home
        shell.connect()
        assert completions(shell, "query-b") == {"query-balloon", "query-balloon-device"}
    with shells.HMPShell(device.mon) as shell:
        shell._save_history = lambda: None
        shell.connect()
        assert completions(shell, "info ") == {"info balloon", "info health", "info hint",
                                               "info inhibitors", "info pressure", "info status"}
        assert completions(shell, "ball") == {"balloon"}
        assert completions(shell, "help ") >= {"help balloon", "help help", "help info"}
