# SPDX-License-Identifier: MIT
"""aerostatd as a service: units, what it tells systemd, the configuration that is shipped, its
manual."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

import confined
from daemon import BINARY, ROOT, Daemon, QmpClient, run
from monitors import GIB, MIB, Monitors, wait_for

PACKAGING = ROOT / "packaging"
UNITS = PACKAGING / "systemd"
EXAMPLE = PACKAGING / "aerostatd.conf"
EXPOSURE = {"aerostatd.service": 1.0, "vhost-user-balloon@.service": 0.4}  # at most


def unit_text(name: str) -> str:
    """As it is installed below /usr."""
    text = (UNITS / f"{name}.in").read_text()
    return text.replace("@sbindir@", "/usr/sbin").replace("@libexecdir@", "/usr/libexec")


def settings(text: str) -> dict[str, list[str]]:
    """All that a unit says, by key; a line that ends in a backslash goes on."""
    found: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if not found:
        pytest.skip("systemd-analyze is not installed: Debian's package systemd")
    return found


# --- units -------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", EXPOSURE)
def test_exposure(analyze: str, workdir: pathlib.Path, name: str) -> None:
    unit = workdir / name
    unit.write_text(unit_text(name))
    done = subprocess.run([analyze, "security", "--offline=true", "--no-pager", str(unit)],
                          capture_output=True, text=True, timeout=30, check=False)
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert float(exposure) <= EXPOSURE[name], done.stdout


@pytest.mark.parametrize("name", ["aerostatd.service", "aerostatd.socket",
                                  "vhost-user-balloon@.service", "vhost-user-balloon@.socket"])
def test_units_have_no_mistake(analyze: str, workdir: pathlib.Path, name: str) -> None:
    """Unknown keys, and values that make no sense; the programs are replaced by one that is there.
    """
    for other in ("aerostatd", "vhost-user-balloon@"):
        text = unit_text(f"{other}.service")
        text = re.sub(r"(?m)^(Exec(?:Start|Reload)=)/usr/\S+", r"\1/bin/true", text)
        (workdir / f"{other}.service").write_text(text)
        shutil.copy(UNITS / f"{other}.socket", workdir)
    done = subprocess.run([analyze, "verify", "--man=no", "--recursive-errors=no",
                           str(workdir / name)], capture_output=True, text=True, timeout=30,
                          check=False)
    ours = [line for line in done.stderr.splitlines() if str(workdir) in line or
            line.startswith(name.split(".")[0])]
    assert not ours, done.stderr


def test_units_and_groups_fit() -> None:
    """Users and groups of units are made by sysusers, directories by tmpfiles."""
    users = (UNITS / "aerostat.sysusers").read_text()
    made = set(re.findall(r"^[ug] (\S+)", users, re.MULTILINE))
    for path in UNITS.glob("*"):
        if path.suffix in (".in", ".socket"):
            said = settings(path.read_text())
            for key in ("User", "Group", "SupplementaryGroups", "SocketGroup"):
                assert set(" ".join(said.get(key, [])).split()) <= made, (path.name, key)
    manager = settings(unit_text("aerostatd.service"))
    device = settings(unit_text("vhost-user-balloon@.service"))
    # The manager is in the group of the monitors, and a device is not in that of the manager.
    assert manager["SupplementaryGroups"] == device["Group"] == ["aerostat-vm"]
    places = (UNITS / "aerostat.tmpfiles").read_text()
    assert "d /run/aerostat/vm 3770 root aerostat-vm" in places
    assert "--qmp=/run/aerostat/vm/%i.qmp --qmp-group=aerostat-vm" in device["ExecStart"][0]
    # Where the unit has it is where the program looks by itself.
    assert "ListenStream=/run/aerostat/control\n" in (UNITS / "aerostatd.socket").read_text()
    assert "control = /run/aerostat/control\n" in EXAMPLE.read_text()
    assert manager["StateDirectory"] == ["aerostat"]


def test_the_units_tools_accept_their_files(workdir: pathlib.Path) -> None:
    (workdir / "etc").mkdir()
    for tool, name in (("systemd-sysusers", "aerostat.sysusers"),
                       ("systemd-tmpfiles", "aerostat.tmpfiles")):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
        text = (UNITS / name).read_text()
        if not re.search(r"(?m)^kvm:", pathlib.Path("/etc/group").read_text()):
            text = re.sub(r"(?m)^a.*group:kvm:.*\n", "", text)  # groups in ACLs are of this system
        (workdir / name).write_text(text)
        arguments = [tool, f"--root={workdir}", str(workdir / name)]
        if tool == "systemd-tmpfiles":
            arguments.insert(1, "--create")
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
    assert (workdir / "run/aerostat/vm").stat().st_mode & 0o7777 == 0o3770
    assert "aerostat-vm:" in (workdir / "etc/group").read_text()


def test_the_manager_runs_with_the_calls_of_its_unit(analyze: str, workdir: pathlib.Path,
                                                      monitors: Monitors,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """All that it does: monitors, control, metrics, state, reload and its end."""
    unit = workdir / "unit"
    unit.write_text(unit_text("aerostatd.service"))
    monitors.qemu("web", GIB)
    script = workdir / "confined"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} {confined.__file__} {unit} {BINARY} "
                      '"$@"\n')
    script.chmod(0o755)
    options = os.environ.get("ASAN_OPTIONS", "")
    monkeypatch.setenv("ASAN_OPTIONS", f"{options}:detect_leaks=0")  # which takes ptrace()
    daemon = Daemon(workdir, manager={"monitors": monitors.directory})
    daemon._binary = script
    with daemon:
        daemon.serving(1)
        assert "aerostat_vm_up" in daemon.metrics()
        daemon.qmp.execute("set-vm", name="web", floor=256 * MIB)
        daemon.reload()
        wait_for(f"the state, {daemon.stderr()}", daemon.state.exists)


def test_the_device_runs_with_the_calls_of_its_unit(analyze: str, workdir: pathlib.Path) -> None:
    device = pathlib.Path(os.environ.get("AEROSTAT_BALLOON", "/nowhere"))
    if not device.exists():
        pytest.skip("AEROSTAT_BALLOON names no vhost-user-balloon")
    unit = workdir / "unit"
    unit.write_text(unit_text("vhost-user-balloon@.service"))
    log = workdir / "log"
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, confined.__file__, str(unit), str(device), "--name=web",
             f"--socket-path={workdir}/s", f"--qmp={workdir}/q", f"--qmp-group={os.getgid()}",
             f"--state-dir={workdir}"], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env=environment)
    try:
        wait_for("the monitor", lambda: process.poll() is not None or (workdir / "q").exists())
        assert process.poll() is None, log.read_text()
        with QmpClient(workdir / "q") as client:
            assert client.execute("query-balloon-device")["held"] == 0
            client.execute("balloon", value=MIB)
    finally:
        process.terminate()
        assert process.wait(20) == 0, log.read_text()


# --- what systemd is told ------------------------------------------------------------------------

@pytest.fixture
def notices(workdir: pathlib.Path) -> Iterator[socket.socket]:
    """Where systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(workdir / "notify"))
        sock.settimeout(15)
        os.environ["NOTIFY_SOCKET"] = str(workdir / "notify")
        yield sock
        del os.environ["NOTIFY_SOCKET"]


def has_systemd() -> bool:
    linked = subprocess.run(["ldd", str(BINARY)], capture_output=True, text=True, check=False)
    return "libsystemd" in linked.stdout


needs_systemd = pytest.mark.skipif(not has_systemd(), reason="built without libsystemd")


def next_notice(sock: socket.socket, word: str) -> str:
    while word not in (text := sock.recv(4096).decode()):
        pass
    return text


@needs_systemd
def test_ready_reload_and_end_are_told(manage: Callable[..., Daemon],
                                       notices: socket.socket) -> None:
    daemon = manage()
    next_notice(notices, "READY=1")
    before = time.monotonic_ns() // 1000
    os.kill(daemon.pid, signal.SIGHUP)
    text = next_notice(notices, "RELOADING=1")
    stamp = int(re.findall(r"MONOTONIC_USEC=(\d+)", text)[0])
    assert before <= stamp <= time.monotonic_ns() // 1000
    next_notice(notices, "READY=1")
    os.kill(daemon.pid, signal.SIGTERM)
    next_notice(notices, "STOPPING=1")
    assert daemon._running().wait(20) == 0
    daemon._process = None


@needs_systemd
def test_the_watchdog_is_fed(manage: Callable[..., Daemon], notices: socket.socket,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    manage()
    next_notice(notices, "WATCHDOG=1")
    begin = time.monotonic()
    next_notice(notices, "WATCHDOG=1")
    assert time.monotonic() - begin < 2


@needs_systemd
def test_the_control_socket_of_systemd_is_used(workdir: pathlib.Path) -> None:
    """And left alone at the end: it is systemd's."""
    path = workdir / "given"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        os.dup2(listener.fileno(), 3, inheritable=True) if listener.fileno() != 3 else None
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'LISTEN_PID=$$ LISTEN_FDS=1 exec {BINARY} --metrics=off --state=off '
             f'--control={workdir}/own'], stdin=subprocess.DEVNULL, pass_fds=[3],
            stderr=subprocess.PIPE)
        try:
            with QmpClient(path) as client:
                assert client.execute("query-host")["vms"] == 0
            assert not (workdir / "own").exists()
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors.decode()
    assert path.exists()


# --- configuration and manual --------------------------------------------------------------------

def keys_of_source() -> set[str]:
    """The keys that config.c takes."""
    source = (ROOT / "src" / "aerostatd" / "config.c").read_text()
    tables = re.findall(r"struct key \w+\[\] = \{(.*?)\{0\}", source, re.DOTALL)
    assert len(tables) == 3
    return set(re.findall(r'\{"([a-z-]+)", take_', "".join(tables)))


def test_the_example_is_right(workdir: pathlib.Path) -> None:
    done = run("--check", f"--config={EXAMPLE}")
    assert done.returncode == 0, done.stderr
    # And with all that stands there as a comment.
    whole = workdir / "whole.conf"
    whole.write_text(re.sub(r"(?m)^#(\[|[a-z-]+ = )", r"\1", EXAMPLE.read_text()))
    assert "\n[vm web]\nfloor" not in whole.read_text(), "comments stay between them"
    done = run("--check", f"--config={whole}")
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"(?m)^([a-z-]+) = ", whole.read_text())) == keys_of_source()


def test_the_example_has_the_defaults(manage: Callable[..., Daemon]) -> None:
    """It says that what is not a comment is what is true without; the source has those."""
    source = (ROOT / "src" / "aerostatd" / "config.c").read_text()
    said = dict(re.findall(r"(?m)^([a-z-]+) = (.*)$", EXAMPLE.read_text()))
    assert said.pop("dry-run") == "no" and said.pop("libvirt") == "off"
    for value in said.values():
        assert f'"{value}"' in source, value
    assert manage().qmp.execute("query-host")["dry-run"] is False


def test_manuals_name_all_keys_and_options() -> None:
    manual = (ROOT / "man" / "aerostatd.conf.5.scd").read_text()
    assert set(re.findall(r"(?m)^\*([a-z-]+)\* = ", manual)) == keys_of_source()
    usage = run("--help").stdout
    options = set(re.findall(r"--[a-z-]+", usage)) - {"--usage"}
    manual = (ROOT / "man" / "aerostatd.8.scd").read_text()
    assert options and options <= set(re.findall(r"--[a-z-]+", manual))


def test_manual_names_all_reasons_and_commands(manage: Callable[..., Daemon]) -> None:
    manual = (ROOT / "man" / "aerostatd.8.scd").read_text()
    source = (ROOT / "lib" / "policy" / "decision.c").read_text()
    for reason in re.findall(r'\[REASON_\w+\] = "([a-z-]+)"', source):
        assert re.search(rf"\b{reason}\b", manual), reason
    commands = {row["name"] for row in manage().qmp.execute("query-commands")}
    for command in commands - {"qmp_capabilities", "query-commands", "human-monitor-command",
                               "query-version"}:
        assert f"*{command}*" in manual, command


@pytest.mark.parametrize(("arguments", "status"), [
    (["--version"], 0), (["--help"], 0), (["--bogus"], 2), (["extra"], 2),
    (["--interval=5"], 2), (["--check", "--config=/nowhere"], 1)])
def test_exit_status(arguments: list[str], status: int) -> None:
    done = run(*arguments)
    assert done.returncode == status, done.stderr
    assert done.returncode == 0 or done.stderr.count("\n") == 1


def test_an_address_in_use_is_one_line(manage: Callable[..., Daemon],
                                       workdir: pathlib.Path) -> None:
    port = manage().port
    done = run("--state=off", f"--control={workdir}/c2", f"--metrics=127.0.0.1:{port}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert f"127.0.0.1:{port}" in done.stderr
