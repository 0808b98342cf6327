# SPDX-License-Identifier: MIT
"""aerostatd and guests that libvirt runs: a real daemon, QEMU's own balloon, and all that can hang.

The guests boot once for all of these tests, in the order in which they stand here.
"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from test_guest_manager import fill, is_managed, no_kills, texts
from vmm.guest import MIB
from vmm.libvirt import Domain, Libvirtd, missing
from vmm.manager import Manager
from vmm.platform import Platform

pytestmark = [pytest.mark.vmm("qemu", reason="it is about libvirt"),
              pytest.mark.driver("stock", reason="it is about libvirt"),
              pytest.mark.once(reason="it is about libvirt")]

MEMORY = 192 * MIB  # of a guest, beside what its kernel takes


class LibvirtManager(Manager):
    """One whose configuration names a libvirt."""

    uri = ""

    def write_config(self, budget: int | None = None) -> None:
        super().write_config(budget)
        text = self.config.read_text()
        self.config.write_text(text.replace("[manager]", f"[manager]\nlibvirt = {self.uri}", 1))


class Host:
    """The daemon and its machines: two that can be balanced, and one without a balloon."""

    def __init__(self, daemon: Libvirtd) -> None:
        self.daemon = daemon
        self.one, self.two = (daemon.domain(name, MEMORY) for name in ("one", "two"))
        self.plain = daemon.domain("plain", 64 * MIB, balloon="none")

    def start(self) -> None:
        for domain in (self.one, self.two):
            domain.start()
            domain.load_balloon()
        # It need not run, it has to be there.
        self.daemon.virsh("create", str(self.daemon.home / "plain.xml"), "--paused")

    @property
    def both(self) -> tuple[Domain, Domain]:
        return self.one, self.two

    def actual(self, domain: Domain) -> int:
        """What libvirt says that it keeps, bytes."""
        for line in self.daemon.virsh("dommemstat", domain.name).splitlines():
            name, _, value = line.partition(" ")
            if name == "actual":
                return int(value) * 1024
        raise AssertionError("dommemstat has no 'actual'")


@pytest.fixture(scope="module")
def host(workdir: pathlib.Path, platform: Platform) -> Iterator[Host]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    daemon = Libvirtd(workdir, platform)
    try:
        daemon.start()
        host = Host(daemon)
        host.start()
        yield host
    finally:
        daemon.close()


@pytest.fixture
def manager(workdir: pathlib.Path, host: Host) -> Iterator[LibvirtManager]:
    binary = os.environ.get("AEROSTAT_MANAGER")
    assert binary, "set AEROSTAT_MANAGER to the aerostatd binary"
    manager = LibvirtManager(pathlib.Path(binary), workdir, "--interval=1000")
    manager.uri = host.daemon.uri
    manager.write_config()
    if "built without libvirt" in check(manager, binary):
        pytest.skip("aerostatd was built without libvirt: apt-get install libvirt-dev")
    with manager:
        yield manager


def check(manager: Manager, binary: str) -> str:
    """What it says of its configuration."""
    return subprocess.run([binary, "--check", f"--config={manager.config}"], text=True, timeout=30,
                          capture_output=True, check=False).stderr


def both_managed(vms: dict[str, dict[str, Any]]) -> bool:
    return all(is_managed(name)(vms) and vms[name]["state"] == "serving" for name in ("one", "two"))


def set_budget(manager: Manager, budget: int) -> None:
    manager.write_config(budget=budget)
    manager.reload()


def test_domains_are_found_and_known(manager: LibvirtManager, host: Host) -> None:
    seen = manager.wait_for("both", both_managed)
    vm = seen["one"]
    assert vm["kind"] == "libvirt" and vm["driver"] == "full" and vm["health"] == "healthy"
    assert vm["size"] == host.one.memory
    assert vm["uuid"] == host.daemon.virsh("domuuid", "one").strip()
    total = host.one.meminfo()["MemTotal"]
    assert abs(vm["stats"]["stat-total-memory"] - total) < MIB
    assert "stat-oom-kills" not in vm["stats"], "libvirt does not pass that on"
    manager.wait_for("a verdict without them", lambda vms: vms["one"]["verdict-weak"])
    plain = manager.wait_for("the third", lambda vms: (
        vms["plain"].get("absence") == "no-balloon"))["plain"]
    assert not plain["managed"] and plain["kind"] == "libvirt"


def test_memory_moves_to_where_it_is_used(manager: LibvirtManager, host: Host) -> None:
    manager.wait_for("both", both_managed)
    budget = (host.one.memory + host.two.memory) * 6 // 10
    set_budget(manager, budget)
    manager.wait_for("both to fit", lambda vms: (
        sum(vms[name]["actual"] for name in ("one", "two")) <= budget + 2 * MIB), timeout=60)
    assert host.actual(host.one) < host.one.memory
    assert any("lowered" in text for text in texts(manager, "TARGET_SET"))
    fill(host.one, 96 * MIB)
    manager.wait_for("memory for it", lambda vms: (
        vms["one"]["actual"] > vms["one"]["used"] >= 96 * MIB), timeout=60)
    # It goes on moving: what libvirt says and what was seen of it meet now and then.
    manager.wait_for("the truth", lambda vms: (
        abs(host.actual(host.one) - vms["one"]["actual"]) < 64 * MIB), timeout=60)
    assert no_kills(*host.both)
    host.one.check("rm /data/fill")


def test_a_machine_that_is_suspended(manager: LibvirtManager, host: Host) -> None:
    manager.wait_for("both", both_managed)
    host.daemon.virsh("suspend", "one")
    manager.wait_for("the finding", lambda vms: vms["one"]["health"] == "paused", timeout=10)
    host.daemon.virsh("resume", "one")
    manager.wait_for("its return", lambda vms: vms["one"]["health"] == "healthy")


def test_somebody_else_changes_a_balloon(manager: LibvirtManager, host: Host) -> None:
    """Told by an event, and by the next look if need be."""
    manager.wait_for("both", both_managed)
    keep = 200 * MIB
    host.daemon.virsh("setmem", "two", f"{keep // 1024}", "--live")
    manager.wait_for("the finding", lambda vms: abs(vms["two"]["actual"] - keep) <= MIB)


def test_the_daemon_is_killed_and_comes_again(manager: LibvirtManager, host: Host) -> None:
    manager.wait_for("both", both_managed)
    set_budget(manager, (host.one.memory + host.two.memory) * 6 // 10)
    host.daemon.crash()
    seen = manager.wait_for("the finding", lambda vms: all(
        vms[name].get("absence") == "hung" for name in ("one", "two")))
    assert all(seen[name]["managed"] for name in ("one", "two")), "their memory is theirs"
    assert "cannot be reached" in manager.stderr()
    time.sleep(1)
    host.daemon.start()
    manager.wait_for("their return", lambda vms: both_managed(vms) and all(
        vms[name]["health"] == "healthy" for name in ("one", "two")), timeout=60)
    fill(host.two, 96 * MIB)
    manager.wait_for("memory for it", lambda vms: (
        vms["two"]["actual"] > vms["two"]["used"] >= 96 * MIB), timeout=60)
    assert no_kills(*host.both)
    host.two.check("rm /data/fill")


def answers_at_once(manager: Manager) -> bool:
    began = time.monotonic()
    manager.vms()
    return time.monotonic() - began < 1


def test_a_daemon_that_hangs(manager: LibvirtManager, host: Host) -> None:
    manager.wait_for("both", both_managed)
    os.kill(host.daemon.pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 12  # libvirt itself notices after six seconds or so
        while time.monotonic() < deadline:
            assert answers_at_once(manager)
            time.sleep(0.1)
        assert all(vm["absence"] == "hung" for name, vm in manager.vms().items()
                   if name != "plain")
    finally:
        os.kill(host.daemon.pid, signal.SIGCONT)
    manager.wait_for("their return", both_managed, timeout=60)


def test_a_machine_that_hangs(manager: LibvirtManager, host: Host) -> None:
    """libvirt waits for it for ever, and we do not; the other is served meanwhile."""
    manager.wait_for("both", both_managed)
    host.one.pause()
    try:
        manager.wait_for("the finding", lambda vms: vms["one"].get("absence") == "hung")
        time.sleep(5)
        seen = manager.vms()
        assert seen["one"]["managed"] and seen["one"]["health"] == "unresponsive"
        assert seen["two"]["state"] == "serving" and seen["two"]["stats-age-ms"] < 4000
    finally:
        host.one.resume()
    manager.wait_for("its return", lambda vms: (
        both_managed(vms) and vms["one"]["health"] == "healthy"))


def test_a_manager_that_ends_while_calls_hang(manager: LibvirtManager, host: Host) -> None:
    manager.wait_for("both", both_managed)
    host.one.pause()
    try:
        manager.wait_for("the finding", lambda vms: vms["one"].get("absence") == "hung")
        manager.stop()
    finally:
        host.one.resume()


def test_libvirt_is_taken_out_of_the_configuration(manager: LibvirtManager, host: Host) -> None:
    manager.wait_for("both", both_managed)
    manager.uri = "off"
    set_budget(manager, 0)
    assert manager.vms() == {}
    manager.uri = host.daemon.uri
    set_budget(manager, 0)
    manager.wait_for("both", both_managed)


def test_a_domain_goes(manager: LibvirtManager, host: Host) -> None:
    manager.wait_for("both", both_managed)
    host.two.kill()
    manager.wait_for("one less", lambda vms: "two" not in vms, timeout=5)
    assert any("libvirt" in text for text in texts(manager, "VM_GONE"))


def test_a_libvirt_that_is_not_there(manager: LibvirtManager) -> None:
    manager.uri = "qemu:///session?socket=/nonexistent"
    set_budget(manager, 0)
    deadline = time.monotonic() + 10
    while "cannot be reached" not in manager.stderr():
        assert time.monotonic() < deadline, manager.stderr()
        time.sleep(0.1)
    assert manager.vms() == {} and answers_at_once(manager)


@pytest.mark.parametrize("uri", ["here", "/run/libvirt", ""])
def test_what_is_no_uri(manager: LibvirtManager, uri: str) -> None:
    manager.uri = uri
    manager.write_config()
    manager.qmp.send("reload")
    with pytest.raises(Exception, match="libvirt"):
        manager.qmp.receive()
