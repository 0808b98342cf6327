# SPDX-License-Identifier: MIT
"""What is installed, started by a real systemd: units, users, directories, confinement.

AEROSTAT_RELEASE names the release build that is installed. Sanitizers need more addresses than a
process has in user-mode-linux, and this kernel has no Landlock, which the device's worker asks for.
The virtual machine is the guest that is made of the portable driver.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vmm import driver
from vmm.system import SystemGuest, installed

pytestmark = [pytest.mark.driver("stock", reason="its guest has no balloon"),
              pytest.mark.vmm("uml", reason="it is about what is installed, not about a guest")]

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
CONFIG = "/etc/aerostat/aerostatd.conf"
WATCHDOG_S = 10  # not half a minute
MANAGER, DEVICE = "aerostatd.service", "vhost-user-balloon@one.service"
MACHINE, SOCKET = "/usr/lib/test-machine", "/run/vhost-user-balloon/one.sock"
START_MACHINE = ("systemd-run --quiet --collect --unit=test-machine "
                 f"sh -c 'sleep 1000 | {MACHINE} {SOCKET} 64'")
MONITORS = "/run/aerostat/vm"
PATIENCE_S = 60


def documented_commands() -> list[str]:
    """How the README has it, behind the installation."""
    text = README.read_text(encoding="utf-8").partition("## Install it")[2].split("```")[1]
    commands = [line.partition("#")[0].strip().replace("vm1", "one") for line in text.splitlines()
                if line.startswith("system")]
    assert [command.split()[0] for command in commands] == [
        "systemd-sysusers", "systemctl", "systemctl"]
    return commands


@pytest.fixture(scope="module")
def system(workdir: pathlib.Path) -> Iterator[SystemGuest]:
    build = os.environ.get("AEROSTAT_RELEASE")
    assert build, "set AEROSTAT_RELEASE to the directory of the release build"
    here = workdir / "system"
    here.mkdir()
    files = installed(pathlib.Path(build), here)
    machine = files / MACHINE.removeprefix("/")
    machine.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(driver.program_of(pathlib.Path(build)), machine)
    for name, text in {
        "etc/default/vhost-user-balloon": 'OPTIONS="--sandbox=off"\n',
        f"etc/systemd/system/{MANAGER}.d/test.conf": (
            # These tests start it more often than somebody who has no mistake in his configuration.
            f"[Unit]\nStartLimitIntervalSec=0\n[Service]\nWatchdogSec={WATCHDOG_S}\n"),
    }.items():
        path = files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    guest = SystemGuest(files, here)
    if why := guest.refused():
        pytest.skip(f"there is no overlay to be had here: {why}")
    with guest:
        for command in documented_commands():
            guest.check(command)
        yield guest


@pytest.fixture(autouse=True)
def words_of_the_manager(system: SystemGuest) -> Iterator[None]:
    """To be read where a test fails."""
    yield
    print(system.run(f"journalctl --no-pager --lines=40 --unit={MANAGER} --unit={DEVICE}").text)


def wait_for(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def shown(system: SystemGuest, unit: str, name: str) -> str:
    return system.check(f"systemctl show --property={name} --value {unit}").strip()


def logged(system: SystemGuest) -> str:
    return system.check(f"journalctl --no-pager --unit={MANAGER}")


def process(system: SystemGuest, unit: str) -> dict[str, str]:
    """/proc/PID/status of a unit's main process."""
    lines = system.check(f"cat /proc/{shown(system, unit, 'MainPID')}/status").splitlines()
    return {name: " ".join(value.split()) for name, _, value in
            (line.partition(":") for line in lines)}


def number_of(system: SystemGuest, kind: str, name: str) -> str:
    return system.check(f"getent {kind} {name}").split(":")[2]


def vms(system: SystemGuest) -> dict[str, dict[str, Any]]:
    return {vm["name"]: vm for vm in json.loads(system.check("aerostat list --json"))["vms"]}


@pytest.fixture
def one(system: SystemGuest) -> Iterator[None]:
    """A machine of that name runs, has started its device, and is managed."""
    system.check(START_MACHINE)
    try:
        wait_for(lambda: vms(system).get("one", {}).get("managed"))
        yield
    finally:
        system.check(f"systemctl stop test-machine.service {DEVICE}")
    wait_for(lambda: not vms(system))


def mode_and_owner(system: SystemGuest, path: str) -> tuple[str, int, str]:
    kind, mode, owner = system.check(f"stat -c '%F %a %U:%G' {path}").rsplit(maxsplit=2)
    return kind, int(mode, 8), owner


def assert_powerless(status: dict[str, str]) -> None:
    capabilities = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    assert {status[name] for name in capabilities} == {"0" * 16}
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"


def test_the_manager_starts_when_it_is_asked(system: SystemGuest) -> None:
    system.check(f"systemctl stop {MANAGER}")
    assert not vms(system)
    assert shown(system, MANAGER, "ActiveState") == "active"
    status = process(system, MANAGER)
    user = number_of(system, "passwd", "aerostat")
    assert user != "0" and status["Uid"] == " ".join([user] * 4)
    assert set(status["Groups"].split()) == {number_of(system, "group", name)
                                             for name in ("aerostat", "aerostat-vm")}
    assert_powerless(status)


def test_who_may_ask(system: SystemGuest) -> None:
    assert mode_and_owner(system, "/run/aerostat/control") == ("socket", 0o660, "root:aerostat")
    someone = "/usr/bin/setpriv --reuid=nobody --clear-groups --regid="
    assert json.loads(system.check(f"{someone}aerostat aerostat list --json"))["vms"] == []
    refused = system.run(f"{someone}nogroup aerostat list")
    assert refused.status != 0 and "Permission denied" in refused.text


def test_a_machine_is_found_and_missed(system: SystemGuest) -> None:
    assert mode_and_owner(system, MONITORS) == ("directory", 0o3770, "root:aerostat-vm")
    assert shown(system, DEVICE, "ActiveState") == "inactive"
    # Its VMM connects, and nobody starts anything.
    system.check(START_MACHINE)
    wait_for(lambda: "one" in vms(system))
    assert mode_and_owner(system, f"{MONITORS}/one.qmp") == (
        "socket", 0o660, "vhost-user-balloon:aerostat-vm")
    assert mode_and_owner(system, SOCKET) == ("socket", 0o660, "root:kvm")
    status = process(system, DEVICE)
    assert status["Uid"] == " ".join([number_of(system, "passwd", "vhost-user-balloon")] * 4)
    assert_powerless(status)
    system.check(f"systemctl stop test-machine.service {DEVICE}")
    assert system.check(f"ls {MONITORS}") == ""
    wait_for(lambda: not vms(system))


@pytest.mark.usefixtures("one")
def test_its_memory_is_moved(system: SystemGuest) -> None:
    """By whom is told: the operator, and through the unit's confinement."""
    system.check("aerostat set one 40M")
    wait_for(lambda: vms(system)["one"]["actual"] == 40 << 20)


@pytest.mark.usefixtures("one")
def test_what_was_set_is_kept(system: SystemGuest) -> None:
    system.check("aerostat set one --priority=300")
    system.check(f"systemctl restart {MANAGER}")
    wait_for(lambda: vms(system).get("one", {}).get("priority") == 300)
    assert mode_and_owner(system, "/var/lib/aerostat/state.json") == (
        "regular file", 0o600, "aerostat:aerostat")


def test_a_mistake_in_the_configuration(system: SystemGuest) -> None:
    """Whoever reloads is told, and so is the log; the manager goes on as it was."""
    assert not vms(system)
    pid = shown(system, MANAGER, "MainPID")
    mistake = f"{CONFIG}:2: unknown key 'nonsense' in [host]"
    system.check(f"mkdir -p /etc/aerostat && printf '[host]\\nnonsense=1\\n' >{CONFIG}")
    try:
        assert system.run(f"systemctl reload {MANAGER}").status != 0
        wait_for(lambda: f"{mistake}\n" in logged(system))
        system.check(f"systemctl kill --signal=HUP --kill-whom=main {MANAGER}")
        wait_for(lambda: f"{mistake}: the configuration stays as it was" in logged(system))
    finally:
        system.check(f"rm {CONFIG}")
    system.check(f"systemctl reload {MANAGER}")
    wait_for(lambda: "the configuration was read anew" in logged(system))
    assert not vms(system)
    assert shown(system, MANAGER, "MainPID") == pid


def test_a_manager_that_hangs_is_replaced(system: SystemGuest) -> None:
    assert not vms(system)
    before = int(shown(system, MANAGER, "NRestarts"))
    system.check(f"systemctl kill --signal=STOP {MANAGER}")
    wait_for(lambda: int(shown(system, MANAGER, "NRestarts")) > before)
    assert not vms(system)
    assert "Watchdog timeout" in logged(system)


def test_its_end_is_clean(system: SystemGuest) -> None:
    assert not vms(system)
    system.check(f"systemctl stop aerostatd.socket {MANAGER}")
    assert shown(system, MANAGER, "Result") == "success"
    assert system.run("test -e /run/aerostat/control").status != 0
    refused = system.run("aerostat list")
    assert refused.status != 0 and "/run/aerostat/control" in refused.text
