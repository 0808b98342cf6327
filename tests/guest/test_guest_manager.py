# SPDX-License-Identifier: MIT
"""aerostatd and real guests: they come, need memory, hang, return and go; and so does it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest

from conftest import Bed, StartManager
from vmm import Device, Guest, GuestData
from vmm.guest import MIB
from vmm.manager import Manager

pytestmark = pytest.mark.vmm("uml", reason="with QEMU's guests see test_guest_manager_qemu.py")

MEMORY = 192 * MIB
def pair(bed: Bed, manager: Manager, name: str) -> tuple[Device, Guest]:
    """A guest of which the manager knows by that name. What memory our driver gets it gets from the
    manager, and not by itself; the stock one cannot say in time that it is in need."""
    ours = bed.platform.driver == "aerostat"
    device, guest = bed.pair(*(["--features=no-deflate-on-oom"] if ours else []), memory=MEMORY,
                             push_and_messages=ours)
    manager.watch(name, device.monitor)
    return device, guest


def is_managed(name: str) -> Callable[[dict[str, dict[str, Any]]], bool]:
    return lambda vms: vms.get(name, {}).get("managed", False) and "used" in vms[name]


def texts(manager: Manager, event: str) -> list[str]:
    return [item["text"] for item in manager.events() if item["event"] == event]


def fill(guest: Guest, size: int) -> None:
    guest.check(f"dd if=/dev/zero of=/data/fill bs=1M count={size // MIB}", timeout=120)


def no_kills(*guests: Guest) -> bool:
    return all(guest.vmstat()["oom_kill"] == 0 for guest in guests)


def test_a_vm_appears_and_goes(bed: Bed, manager: StartManager) -> None:
    host = manager()
    assert host.vms() == {}
    device, guest = pair(bed, host, "web")
    vm = host.wait_for("the VM", is_managed("web"))["web"]
    assert vm["kind"] == "aerostat" and vm["driver"] == "full" and vm["health"] == "healthy"
    assert vm["size"] == device.memory() == vm["actual"] == vm["target"]
    assert abs(vm["stats"]["stat-total-memory"] - guest.meminfo()["MemTotal"]) < MIB
    assert vm["stats-age-ms"] < 3000
    guest.stop()
    bed.forget(device)
    device.stop()
    host.wait_for("nobody", lambda vms: not any(vm["managed"] for vm in vms.values()))
    assert any("hung up" in text or "removed" in text for text in texts(host, "VM_GONE"))
    # Its socket is gone, and with it the VM.
    host.wait_for("an empty list", lambda vms: not vms)


def test_memory_moves_to_where_it_is_used(bed: Bed, manager: StartManager) -> None:
    host = manager("--interval=500", budget=300 * MIB)
    _, one = pair(bed, host, "one")
    _, two = pair(bed, host, "two")
    kept = GuestData(one)
    kept.write(16 * MIB)
    host.wait_for("both", lambda vms: is_managed("one")(vms) and is_managed("two")(vms))
    host.wait_for("both to fit", lambda _: host.promised() <= 300)
    for hungry, other in ((one, "two"), (two, "one")):
        fill(hungry, 96 * MIB)
        name = "two" if other == "one" else "one"
        host.wait_for("memory for it", lambda vms, name=name: (
            vms[name]["actual"] > vms[name]["used"] >= 96 * MIB))
        host.wait_for("both to fit again", lambda _: host.promised() <= 300)
        hungry.check("rm /data/fill")
        time.sleep(1)
    assert kept.damaged() == []
    assert no_kills(one, two)
    moves = texts(host, "TARGET_SET")
    assert any("lowered" in text for text in moves)
    assert any("raised" in text or "released" in text for text in moves)
    explained = host.qmp.execute("explain", name="two")
    assert explained["text"].startswith("two: ") and explained["decisions"]
    assert all(decision["reason"] and decision["text"] for decision in explained["decisions"])


def test_a_dry_run_changes_nothing(bed: Bed, manager: StartManager) -> None:
    host = manager("--dry-run", budget=100 * MIB)
    device, _ = pair(bed, host, "web")
    if bed.platform.driver == "stock":
        device.set_polling_interval(1)  # it does not set that either
    else:
        device.qmp.execute("set-stats-push-interval", interval_ms=500)
    host.wait_for("the VM", is_managed("web"))
    deadline = time.monotonic() + 30
    while not (would := texts(host, "TARGET_SET")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert would[0].startswith("would have: web: lowered")
    assert device.query()["target"] == 0


def test_a_guest_that_hangs_and_returns(bed: Bed, manager: StartManager) -> None:
    """Its memory is its own meanwhile, and others are served."""
    host = manager("--interval=500", budget=300 * MIB)
    _, hung = pair(bed, host, "hung")
    _, other = pair(bed, host, "other")
    host.wait_for("both", lambda vms: is_managed("hung")(vms) and is_managed("other")(vms))
    host.wait_for("both to fit", lambda _: host.promised() <= 300)
    hung.pause()
    host.wait_for("the verdict", lambda vms: vms["hung"]["health"] == "unresponsive")
    before = host.vms()["hung"]["target"]
    fill(other, 64 * MIB)
    host.wait_for("memory for the other", lambda vms: vms["other"]["used"] >= 64 * MIB)
    assert host.vms()["hung"]["target"] == before
    hung.resume()
    host.wait_for("health", lambda vms: vms["hung"]["health"] == "healthy")
    assert no_kills(hung, other)


def test_a_monitor_that_hangs_and_returns(bed: Bed, manager: StartManager) -> None:
    host = manager("--interval=500", budget=300 * MIB)
    device, _ = pair(bed, host, "hung")
    pair(bed, host, "other")
    host.wait_for("both", lambda vms: is_managed("hung")(vms) and is_managed("other")(vms))
    device.pause()
    try:
        seen = host.wait_for("the finding", lambda vms: vms["hung"].get("absence") == "hung")
        assert seen["hung"]["managed"] and seen["other"]["health"] == "healthy"
        assert seen["other"]["stats-age-ms"] < 5000
    finally:
        device.resume()
    host.wait_for("its return", lambda vms: (
        vms["hung"]["state"] == "serving" and vms["hung"]["health"] == "healthy"))


def test_the_manager_is_killed_and_comes_again(bed: Bed, manager: StartManager) -> None:
    host = manager("--interval=500", budget=300 * MIB)
    _, one = pair(bed, host, "one")
    _, two = pair(bed, host, "two")
    host.wait_for("both", lambda vms: is_managed("one")(vms) and is_managed("two")(vms))
    host.qmp.execute("set-vm", name="one", floor=96 * MIB, priority=300)
    host.wait_for("both to fit", lambda _: host.promised() <= 300)
    fill(two, 64 * MIB)
    host.crash()
    host.start()
    seen = host.wait_for("both", lambda vms: is_managed("one")(vms) and is_managed("two")(vms))
    assert seen["one"]["floor"] == 96 * MIB and seen["one"]["priority"] == 300
    assert seen["one"]["target"] <= MEMORY - 8 * MIB, "it goes on from where it was"
    host.wait_for("both to fit", lambda vms: (
        host.promised() <= 300 and vms["two"]["used"] >= 64 * MIB))
    assert no_kills(one, two)
    host.qmp.execute("reset-vm", name="one")
    assert host.vms()["one"]["priority"] == 100


def test_a_bad_configuration_is_refused_whole(bed: Bed, manager: StartManager) -> None:
    host = manager(budget=160 * MIB, vms={"web": {"priority": 200}})
    pair(bed, host, "web")
    host.wait_for("the VM", is_managed("web"))
    good = host.config.read_text()
    for bad, why in (("[host]\nbudget = lots\n", "is not a size"),
                     ("[manager]\nmonitors = here\n", "absolute path"),
                     ("[vm other]\npriority = 0\n", "1 to 10000"),
                     ("[nonsense]\nx = 1\n", "unknown section"),
                     ("[host]\nbudget 5G\n", "key = value"),
                     ("[host]\nbudget = 1G\nbudget = 2G\n", "twice")):
        host.config.write_text(good + bad if "budget" not in bad else bad)
        host.qmp.send("reload")
        with pytest.raises(Exception, match=why):
            host.qmp.receive()
        state = host.qmp.execute("query-host")
        assert state["budget"] == 160 * MIB and host.vms()["web"]["priority"] == 200
    host.write_config(budget=170 * MIB)
    host.reload()
    assert host.qmp.execute("query-host")["budget"] == 170 * MIB


def test_a_reservation(bed: Bed, manager: StartManager) -> None:
    """Memory is free first and granted then; what does not fit is refused, and given back."""
    host = manager("--interval=500", budget=2 * MEMORY)
    pair(bed, host, "one")
    pair(bed, host, "two")
    host.wait_for("both", lambda vms: is_managed("one")(vms) and is_managed("two")(vms))
    before = time.monotonic()
    granted = host.qmp.execute("reserve", bytes=150 * MIB, timeout_ms=10000, hold_ms=60000)
    assert time.monotonic() - before < 12
    assert host.promised() <= (2 * MEMORY - 150 * MIB) / MIB
    kept = sum(vm["actual"] for vm in host.vms().values())
    assert kept <= 2 * MEMORY - 150 * MIB
    with pytest.raises(Exception, match="cannot be freed|not free in time"):
        host.qmp.execute("reserve", bytes=300 * MIB, timeout_ms=1000)
    host.qmp.execute("release", id=granted["id"])
    host.wait_for("memory again", lambda vms: all(
        vm["actual"] > MEMORY - 64 * MIB for vm in vms.values()), timeout=90)
    with pytest.raises(Exception, match="no reservation"):
        host.qmp.execute("release", id=granted["id"])


def test_a_monitor_that_is_replaced(bed: Bed, manager: StartManager) -> None:
    """Another VM has its socket where the old one's was."""
    host = manager()
    first, guest = pair(bed, host, "web")
    host.wait_for("the first", is_managed("web"))
    size = host.vms()["web"]["size"]
    guest.stop()
    bed.forget(first)
    place = first.monitor
    first.stop()
    second, _ = bed.pair("--features=no-deflate-on-oom", memory=MEMORY + 64 * MIB,
                         push_and_messages=bed.platform.driver == "aerostat")
    place.parent.mkdir(exist_ok=True)
    try:
        place.symlink_to(second.monitor)
        host.wait_for("the second", lambda vms: (
            is_managed("web")(vms) and vms["web"]["size"] > size))
    finally:
        shutil.rmtree(place.parent)
