# SPDX-License-Identifier: MIT
"""What only QEMU shows: machines that are stopped, and its own balloon under either driver."""

from __future__ import annotations

import time
from typing import Any

import pytest

from conftest import Bed
from test_guest_health import changes, wait_for_health
from vmm import GuestData, QemuGuest
from vmm.guest import MIB

ONCE = pytest.mark.once(reason="it is about QEMU's messages")
#: They show what others have, to compare ours with.
NOTHING_OF_OURS = pytest.mark.once(driver="stock", reason="neither device nor driver is ours")

pytestmark = pytest.mark.vmm("qemu", reason="it is about QEMU")

BALLOON = "/machine/peripheral/balloon0"


@ONCE
def test_a_stopped_machine_is_paused_and_not_hung(bed: Bed) -> None:
    """Its operator has stopped it, of which the front end tells the device."""
    device = bed.device("--features=no-page-reporting", "--health-factors=1.1,1.3")
    guest = bed.qemu_guest(device=device)
    guest.load_balloon()
    data = GuestData(guest)
    data.write(32 * MIB)
    device.set_polling_interval(1)
    device.inflate_to(64 * MIB)
    wait_for_health(device, "healthy")
    changes(device)
    guest.stop_machine()
    wait_for_health(device, "paused")
    time.sleep(3)
    assert changes(device) == ["paused"]
    assert device.query()["held"] == 64 * MIB
    guest.continue_machine()
    wait_for_health(device, "healthy")
    device.inflate_to(16 * MIB)
    device.inflate_to(96 * MIB)
    assert data.damaged() == []


def suspend(guest: QemuGuest) -> None:
    """Suspend to memory and wake up again; once in a machine's life, as QEMU takes its wake-up for
    that from a second sleep too, which then is over at once."""
    guest.check("(sleep 0.2; echo mem >/sys/power/state) >/run/suspend 2>&1 </dev/null &")
    becomes(guest, "suspended")
    guest.monitor.execute("system_wakeup")
    becomes(guest, "running")
    assert guest.check("cat /run/suspend") == ""


def becomes(guest: QemuGuest, status: str) -> None:
    deadline = time.monotonic() + 30
    while (now := guest.monitor.execute("query-status")["status"]) != status:
        assert time.monotonic() < deadline, f"{now}, not {status}"
        time.sleep(0.05)


def test_a_guest_that_sleeps(bed: Bed) -> None:
    """Its driver takes all pages back before it sleeps, and inflates anew when it is awake."""
    device = bed.device("--features=no-page-reporting", "--target=64M")
    guest = bed.qemu_guest(device=device)
    guest.load_balloon()
    data = GuestData(guest)
    data.write(64 * MIB)
    data.thin_out()
    for times in (1, 2):
        device.wait_for("the target", lambda now, times=times: (
            now["actual"] == now["held"] == 64 * MIB and now["inflated"] >= times * 64 * MIB))
        if times == 1:
            suspend(guest)
        assert data.damaged() == []
        assert device.refresh_stats()["stats"]
    device.inflate_to(16 * MIB)
    device.inflate_to(96 * MIB)
    assert data.damaged() == []


def balloon(guest: QemuGuest) -> int:
    """Bytes in QEMU's own balloon."""
    return guest.memory - int(guest.monitor.execute("query-balloon")["actual"])


def inflate_to(guest: QemuGuest, size: int) -> None:
    guest.monitor.execute("balloon", value=guest.memory - size)
    deadline = time.monotonic() + 60
    while balloon(guest) != size:
        assert time.monotonic() < deadline, f"{balloon(guest)} of {size} bytes"
        time.sleep(0.02)


def fresh_stats(guest: QemuGuest) -> dict[str, Any]:
    """guest-stats as QEMU has them, once they are newer than now."""
    asked, deadline = time.time(), time.monotonic() + 20
    while True:
        answer = guest.monitor.execute("qom-get", path=BALLOON, property="guest-stats")
        if answer["last-update"] > asked:
            return dict(answer["stats"])
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)


@NOTHING_OF_OURS
def test_the_driver_with_a_balloon_of_qemu(bed: Bed) -> None:
    """It drops in: the device it was made for is another one."""
    guest = bed.qemu_guest(own_balloon="")
    guest.load_balloon()
    kept, data = GuestData(guest), GuestData(guest)
    kept.write(32 * MIB)
    data.write(128 * MIB)
    data.clear()
    total, full = guest.meminfo()["MemTotal"], guest.resident()
    for size in (128, 32, 96):
        inflate_to(guest, size * MIB)
        assert guest.meminfo()["MemTotal"] == total - size * MIB
        assert kept.damaged() == []
    assert guest.resident() < full - 0.9 * 96 * MIB
    guest.monitor.execute("qom-set", path=BALLOON, property="guest-stats-polling-interval", value=1)
    stats = fresh_stats(guest)
    assert stats["stat-total-memory"] == total - 96 * MIB
    assert abs(stats["stat-free-memory"] - guest.meminfo()["MemFree"]) < 8 * MIB
    guest.unload_balloon()
    assert guest.meminfo()["MemTotal"] == total
    guest.load_balloon()
    inflate_to(guest, 64 * MIB)
    inflate_to(guest, 0)
    data.write(96 * MIB)
    assert data.damaged() == [] and kept.damaged() == []


@NOTHING_OF_OURS
def test_all_features_of_a_balloon_of_qemu(bed: Bed) -> None:
    guest = bed.qemu_guest(512 * MIB, "deflate-on-oom=on,free-page-reporting=on,page-poison=on")
    guest.load_balloon()
    assert {1, 2, 5} <= guest.features()
    kept, data = GuestData(guest), GuestData(guest)
    kept.write(32 * MIB)
    data.write(128 * MIB)
    full, deadline = guest.resident(), time.monotonic() + 60
    data.clear()
    while guest.resident() > full - 100 * MIB:
        assert time.monotonic() < deadline, "nothing was reported"
        time.sleep(0.1)
    inflate_to(guest, 400 * MIB)
    result = guest.run("echo 1 >/proc/sys/vm/overcommit_memory; "
                       "dd if=/dev/zero of=/dev/null bs=160M count=1")
    assert result.status == 0, result.text
    assert guest.vmstat()["oom_kill"] == 0 and balloon(guest) < 400 * MIB
    assert kept.damaged() == []


@NOTHING_OF_OURS
def test_a_legacy_balloon_of_qemu(bed: Bed) -> None:
    """Without VERSION_1: the first statistics are ignored, configuration is little-endian."""
    guest = bed.qemu_guest(own_balloon="disable-modern=on,disable-legacy=off")
    guest.load_balloon()
    assert 32 not in guest.features() and 1 in guest.features()
    kept = GuestData(guest)
    kept.write(32 * MIB)
    total = guest.meminfo()["MemTotal"]
    inflate_to(guest, 96 * MIB)
    assert guest.meminfo()["MemTotal"] == total - 96 * MIB
    guest.monitor.execute("qom-set", path=BALLOON, property="guest-stats-polling-interval", value=1)
    assert fresh_stats(guest)["stat-total-memory"] == total - 96 * MIB
    inflate_to(guest, 0)
    guest.unload_balloon()
    assert guest.meminfo()["MemTotal"] == total and kept.damaged() == []
