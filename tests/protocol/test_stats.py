# SPDX-License-Identifier: MIT
"""Guest statistics by pull (wire.md, "Statistics")."""

from __future__ import annotations

import re
import time

import pytest

from balloon import MIB, STATS, STATS_UNSET, Guest, stat
from process import Device
from qmp import Client, QMPError
from vhost_user import wait_for

NAMES = ["stat-swap-in", "stat-swap-out", "stat-major-faults", "stat-minor-faults",
         "stat-free-memory", "stat-total-memory", "stat-available-memory", "stat-disk-caches",
         "stat-htlb-pgalloc", "stat-htlb-pgfail", "stat-oom-kills", "stat-alloc-stalls",
         "stat-async-scans", "stat-direct-scans", "stat-async-reclaims", "stat-direct-reclaims"]


def ask(monitor: Client, guest: Guest) -> None:
    """Has the device ask the guest; again if it had not yet seen what the guest gave last."""
    wait_for(lambda: monitor.cmd("refresh-balloon-stats") == {} and guest.stats_wanted(0.1),
             "a request to the guest")


def refresh(monitor: Client, guest: Guest, data: bytes) -> dict[str, int]:
    """Asks for statistics, answers for the guest; what the event then says."""
    ask(monitor, guest)
    monitor.cmd("query-status")
    monitor.events.clear()  # of statistics that came before
    guest.give_stats(data)
    event = monitor.event("BALLOON")
    assert monitor.get("guest-stats")["stats"] == event["stats"]
    return dict(event["stats"])


@pytest.fixture
def guest(device: Device, monitor: Client) -> Guest:
    """A modern guest whose first statistics have arrived."""
    guest = device.guest()
    assert monitor.get("guest-stats") == {"stats": {}, "last-update": 0}
    guest.give_stats(stat(5, 1))
    assert refresh(monitor, guest, stat(4, 77)) == {"stat-free-memory": 77}
    return guest


@pytest.mark.parametrize("packed", [False, True])
def test_first_buffer(device: Device, monitor: Client, packed: bool) -> None:
    guest = device.guest(packed=packed)
    guest.give_stats(stat(5, 123))
    ask(monitor, guest)
    first = monitor.get("guest-stats")
    assert first["stats"] == {"stat-total-memory": 123}
    assert abs(first["last-update"] - time.time()) < 30 and 0 <= first["age-ms"] < 30000
    start = time.monotonic()
    second = wait_for(lambda: time.monotonic() - start > 0.1 and monitor.get("guest-stats"), "time")
    assert second["last-update"] == first["last-update"]
    assert 90 <= second["age-ms"] - first["age-ms"] < 10000


def test_first_buffer_of_a_legacy_driver_is_ignored(device: Device, monitor: Client) -> None:
    guest = device.guest(version1=False)
    guest.give_stats(stat(5, 0xBAD))
    ask(monitor, guest)
    assert monitor.get("guest-stats") == {"stats": {}, "last-update": 0}
    guest.give_stats(stat(5, 124))
    assert monitor.event("BALLOON")["stats"] == {"stat-total-memory": 124}


def test_all_tags(guest: Guest, monitor: Client) -> None:
    order = [0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 8, 9, 4, 5, 6, 7]
    values = {tag: (tag + 1) * 0x0123456789AB for tag in order}
    got = refresh(monitor, guest, b"".join(stat(tag, values[tag]) for tag in order))
    assert got == {NAMES[tag]: value for tag, value in values.items()}


def test_every_arrival_replaces_the_set(guest: Guest, monitor: Client) -> None:
    assert refresh(monitor, guest, stat(0, 5) + stat(6, 6)) == {NAMES[0]: 5, NAMES[6]: 6}
    assert refresh(monitor, guest, stat(7, 7)) == {NAMES[7]: 7}
    assert refresh(monitor, guest, stat(7, STATS_UNSET) + stat(1, 0)) == {NAMES[1]: 0}


def test_unknown_duplicate_fragment_and_huge(guest: Guest, monitor: Client) -> None:
    before = monitor.device()
    got = refresh(monitor, guest, stat(4, 1) + stat(16, 2) + stat(0xFFFF, 3) + stat(4, 9)
                  + stat(5, 2**64 - 2) + b"\x06\x00\x01\x02\x03")
    assert got == {NAMES[4]: 9, NAMES[5]: 2**64 - 2}
    after = monitor.device()
    assert after["unknown-tags"] == before["unknown-tags"] + 2
    assert sum(after["driver-errors"].values()) > sum(before["driver-errors"].values())


def test_oversized_buffer(guest: Guest, monitor: Client) -> None:
    """threats.md 9."""
    data = stat(99, 1) * 3000 + stat(4, 5)
    assert refresh(monitor, guest, data) in ({NAMES[4]: 5}, {})
    assert refresh(monitor, guest, stat(4, 6)) == {NAMES[4]: 6}


def test_entry_spread_over_descriptors(guest: Guest, monitor: Client) -> None:
    data = stat(4, 0x1122334455667788) + stat(5, 3)
    ask(monitor, guest)
    guest.stats_buffer = guest.submit(STATS, [data[:1], data[1:7], data[7:13], data[13:]])
    assert monitor.event("BALLOON")["stats"] == {NAMES[4]: 0x1122334455667788, NAMES[5]: 3}


def test_second_buffer_while_one_is_held(guest: Guest, monitor: Client) -> None:
    """threats.md 9: whatever becomes of it, the device goes on."""
    guest.submit(STATS, stat(4, 1))
    guest.inflate(guest.some_pages(5))
    assert monitor.device()["held"] == 5 * 4096


def test_polling_interval(guest: Guest, monitor: Client) -> None:
    assert monitor.get("guest-stats-polling-interval") == 0
    monitor.set("guest-stats-polling-interval", 1)
    assert monitor.get("guest-stats-polling-interval") == 1
    arrivals = []
    for value in range(3):
        assert guest.stats_wanted()
        arrivals.append(time.monotonic())
        guest.give_stats(stat(4, value))
        monitor.event("BALLOON", match=lambda data, v=value: data["stats"] == {NAMES[4]: v})
    assert arrivals[2] - arrivals[1] > 0.8, "polled faster than asked for"
    monitor.set("guest-stats-polling-interval", 0)
    assert not guest.stats_wanted(1.3)
    for wrong in (-1, "1", None, 1.5, True):
        with pytest.raises(QMPError):
            monitor.set("guest-stats-polling-interval", wrong)
    assert monitor.get("guest-stats-polling-interval") == 0


@pytest.mark.parametrize("packed", [False, True])
def test_buffer_survives_stop_and_cont(device: Device, monitor: Client, packed: bool) -> None:
    guest = device.guest(packed=packed)
    guest.give_stats(stat(4, 1))
    refresh(monitor, guest, stat(4, 2))
    guest.cont(guest.stop())
    assert refresh(monitor, guest, stat(4, 3)) == {NAMES[4]: 3}


@pytest.mark.parametrize("style", ["qemu", "one-by-one"])
def test_reset_forgets_the_buffer(guest: Guest, monitor: Client, style: str) -> None:
    """Also when each queue is enabled before the next is set up."""
    guest.style = style
    guest.reset()
    guest.inflate(guest.some_pages(1))
    guest.give_stats(stat(4, 8))
    assert refresh(monitor, guest, stat(4, 9)) == {NAMES[4]: 9}


def test_guest_that_does_not_answer(guest: Guest, monitor: Client) -> None:
    """`info balloon` waits at most 5 s and then says how old the figures are; others go on."""
    start = time.monotonic()
    monitor.send({"execute": "human-monitor-command", "arguments": {"command-line":
                                                                    "info balloon"}, "id": "h"})
    guest.inflate(guest.some_pages(3))
    reply = monitor.reply(timeout=9)
    assert reply["id"] == "h" and 4 < time.monotonic() - start < 8
    assert re.search(r"actual=\d+", reply["return"]) and re.search(r"age=\d+", reply["return"])


def test_human_monitor(guest: Guest, monitor: Client) -> None:
    def human(line: str) -> str:
        return str(monitor.cmd("human-monitor-command", {"command-line": line}))

    monitor.send({"execute": "human-monitor-command",
                  "arguments": {"command-line": "info balloon"}})
    assert guest.stats_wanted()
    guest.give_stats(stat(4, 3 * MIB))
    text = monitor.reply()["return"]
    assert f"actual={guest.mem.size() // MIB}" in text
    assert "balloon" in human("help")
    assert human("balloon 6").strip() == ""
    assert guest.num_pages() == 512
    assert human("no-such-command").strip() != ""
    assert human("balloon x").strip() != ""
    assert guest.num_pages() == 512


def test_without_the_feature(device: Device, monitor: Client) -> None:
    device.guest(stats=False)
    with pytest.raises(QMPError):
        monitor.cmd("refresh-balloon-stats")
    assert monitor.get("guest-stats")["stats"] == {}
