# SPDX-License-Identifier: MIT
"""Statistics: they are the guest's own numbers, they come when asked for, and they have an age."""

from __future__ import annotations

import re
import time

import pytest

from conftest import Bed
from together import together
from vmm import QmpClient
from vmm.guest import MIB
from vmm.platform import Platform

ONCE = pytest.mark.once(reason="it is about the monitor's answers")

PAGE = 4096
#: What every Linux sends: tags 0 to 7.
TAGS = {"stat-swap-in", "stat-swap-out", "stat-major-faults", "stat-minor-faults",
        "stat-free-memory", "stat-total-memory", "stat-available-memory", "stat-disk-caches"}
#: Tags 8 and 9, with which Debian's kernels are built, but user-mode-linux is not.
HUGE_TAGS = {"stat-htlb-pgalloc", "stat-htlb-pgfail"}
#: Tags 10 to 15: since Linux 6.12, and ours on any.
LATER_TAGS = {"stat-oom-kills", "stat-alloc-stalls", "stat-async-scans", "stat-direct-scans",
              "stat-async-reclaims", "stat-direct-reclaims"}


def tags(platform: Platform) -> set[str]:
    """What a guest's driver sends."""
    later = platform.driver == "aerostat" or platform.kernel != "6.1"
    huge = platform.vmm == "qemu"
    return TAGS | (HUGE_TAGS if huge else set()) | (LATER_TAGS if later else set())


def test_statistics_are_the_guests_own(bed: Bed) -> None:
    # What is in the balloon is out of the guest's reach, so that it has to swap.
    device, guest = bed.pair("--features=no-deflate-on-oom")
    device.inflate_to(160 * MIB)
    # Swap in and out, and by faults, so that no counter is compared at zero.
    guest.check("load zram; echo 128M >"
                "/sys/block/zram0/disksize; mkswap /dev/zram0; swapon /dev/zram0; "
                "free=$(awk '/MemAvailable/ {print $2}' /proc/meminfo); "
                "hog $((free / 1024 + 16)) 256 1 100 1000")
    before = guest.vmstat()
    stats = device.refresh_stats()["stats"]
    after, levels = guest.vmstat(), guest.meminfo()
    assert set(stats) == tags(bed.platform)
    counters = {"stat-swap-in": [vm["pswpin"] * PAGE for vm in (before, after)],
                "stat-swap-out": [vm["pswpout"] * PAGE for vm in (before, after)],
                "stat-major-faults": [vm["pgmajfault"] for vm in (before, after)],
                # So Linux calls all of them.
                "stat-minor-faults": [vm["pgfault"] for vm in (before, after)]}
    for name, (low, high) in counters.items():
        assert 0 < low <= stats[name] <= high, name
    assert stats["stat-total-memory"] == levels["MemTotal"]
    caches = levels["Buffers"] + levels["Cached"] + levels["SwapCached"]
    for name, value in (("stat-free-memory", levels["MemFree"]),
                        ("stat-available-memory", levels["MemAvailable"]),
                        ("stat-disk-caches", caches)):
        assert abs(stats[name] - value) <= 4 * MIB, name


def test_total_memory_follows_the_balloon(bed: Bed) -> None:
    # Only without deflate-on-oom does the driver subtract the balloon from the guest's total.
    device, guest = bed.pair("--features=no-deflate-on-oom")
    full, free = device.refresh_stats()["stats"], guest.free_memory()
    device.inflate_to(64 * MIB)
    less = device.refresh_stats()["stats"]
    assert full["stat-total-memory"] - less["stat-total-memory"] == 64 * MIB
    assert abs(free - guest.free_memory() - 64 * MIB) <= 4 * MIB
    assert abs(less["stat-free-memory"] - guest.meminfo()["MemFree"]) <= 4 * MIB
    assert less["stat-total-memory"] == guest.meminfo()["MemTotal"]


@ONCE
@together
def test_polling_and_ages(bed: Bed) -> None:
    device, _ = bed.pair()
    device.refresh_stats()
    first = device.guest_stats()
    assert abs(first["last-update"] - time.time()) < 5 and first["age-ms"] < 1000
    time.sleep(1.2)
    second = device.guest_stats()
    assert second["last-update"] == first["last-update"], "nobody asked"
    assert 1000 <= second["age-ms"] - first["age-ms"] <= 3000

    device.set_polling_interval(1)
    device.qmp.events.clear()
    started = time.monotonic()
    for _ in range(3):
        fresh = device.qmp.wait_event("BALLOON", 5)
        assert set(fresh["stats"]) == tags(bed.platform) and fresh["age-ms"] < 1000
    assert 1.5 <= time.monotonic() - started <= 6
    assert device.guest_stats()["age-ms"] <= 2000

    device.set_polling_interval(0)
    time.sleep(2.2)
    assert device.guest_stats()["age-ms"] >= 1000


@ONCE
def test_statistics_before_any_have_come(bed: Bed) -> None:
    device = bed.device()
    bed.guest(device)
    assert device.guest_stats() == {"stats": {}, "last-update": 0}


def test_statistics_go_on_after_the_driver_was_loaded_again(bed: Bed) -> None:
    device, guest = bed.pair()
    device.refresh_stats()
    guest.unload_balloon()
    guest.load_balloon()
    assert set(device.refresh_stats()["stats"]) == tags(bed.platform)


def age(text: str) -> int:
    """The age in milliseconds that `info balloon` names."""
    found = re.search(r"\bage=(\d+)", text)
    assert found, text
    return int(found[1])


@ONCE
@together
def test_info_balloon_of_a_stopped_guest_comes_in_time_with_its_age(bed: Bed) -> None:
    device, guest = bed.pair()
    device.refresh_stats()
    guest.pause()
    with QmpClient(device.monitor) as other:
        started = time.monotonic()
        device.qmp.send("human-monitor-command", command_line="info balloon")
        for _ in range(8):
            asked = time.monotonic()
            assert other.execute("query-status")["running"] in (True, False)
            assert time.monotonic() - asked < 0.5
            time.sleep(0.5)
        text = device.qmp.receive()
        assert 4.5 <= time.monotonic() - started <= 6.5
    assert 4500 <= age(text) <= 30000
    assert f"actual={device.memory() // MIB} " in text

    guest.resume()
    device.wait_for("the guest's answer", lambda _: device.guest_stats()["age-ms"] < 1000)
    started = time.monotonic()
    assert age(device.human("info balloon")) < 1000
    assert time.monotonic() - started < 2
