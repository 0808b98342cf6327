# SPDX-License-Identifier: MIT
"""aerostatd and QEMU's own balloon: the same program that has our devices manages these."""

from __future__ import annotations

import pathlib

import pytest

from conftest import Bed, StartManager
from test_guest_manager import fill, is_managed, no_kills, texts
from test_guest_qmp_client import monitor_of
from vmm import GuestData, QemuGuest
from vmm.guest import MIB
from vmm.manager import Manager

pytestmark = [pytest.mark.vmm("qemu", reason="it is about QEMU's balloon"),
              pytest.mark.once(reason="it is about the manager and QEMU")]


def machine(bed: Bed, host: Manager, name: str) -> QemuGuest:
    """A guest with a balloon of QEMU, whose monitor is the manager's from then on."""
    guest = bed.qemu_guest(own_balloon="deflate-on-oom=on")
    guest.load_balloon()
    path = monitor_of(guest)
    host.watch(name, path)
    return guest


def test_guests_with_a_balloon_of_qemu(bed: Bed, manager: StartManager) -> None:
    host = manager(budget=0)
    one, two = machine(bed, host, "one"), machine(bed, host, "two")
    seen = host.wait_for("both", lambda vms: is_managed("one")(vms) and is_managed("two")(vms))
    assert seen["one"]["kind"] == "qemu" and seen["one"]["size"] == one.memory
    kept = GuestData(two)
    kept.write(16 * MIB)
    budget = (one.memory + two.memory) * 6 // 10
    host.write_config(budget=budget)
    host.reload()
    host.wait_for("both to fit", lambda _: host.promised() * MIB <= budget, timeout=60)
    assert max(vm["actual"] for vm in host.vms().values()) < one.memory
    fill(one, 64 * MIB)
    host.wait_for("memory for it", lambda vms: vms["one"]["used"] >= 64 * MIB, timeout=60)
    host.wait_for("both to fit again", lambda _: host.promised() * MIB <= budget, timeout=60)
    assert kept.damaged() == [] and no_kills(one, two)
    assert all(vm["health"] == "healthy" for vm in host.vms().values())
    assert any("lowered" in text for text in texts(host, "TARGET_SET"))


def test_a_guest_of_qemu_that_hangs(bed: Bed, manager: StartManager) -> None:
    """A stopped QEMU answers nobody; it is found out, kept, and served again."""
    host = manager(budget=0)
    guest = machine(bed, host, "vm")
    host.wait_for("the VM", is_managed("vm"))
    guest.pause()
    try:
        host.wait_for("the finding", lambda vms: vms["vm"].get("absence") == "hung")
        assert host.vms()["vm"]["managed"] and host.vms()["vm"]["health"] == "unresponsive"
    finally:
        guest.resume()
    host.wait_for("its return", lambda vms: (
        vms["vm"]["state"] == "serving" and vms["vm"]["health"] == "healthy"))


def test_a_machine_without_a_balloon(bed: Bed, manager: StartManager) -> None:
    host = manager(budget=0)
    guest = bed.qemu_guest()
    path: pathlib.Path = monitor_of(guest)
    host.watch("plain", path)
    seen = host.wait_for("the finding", lambda vms: (
        vms.get("plain", {}).get("absence") == "no-balloon"))
    assert not seen["plain"]["managed"]
