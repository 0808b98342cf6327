# SPDX-License-Identifier: MIT
"""Statistics that the guest pushes (wire.md, "Push"), and the guest's health."""

from __future__ import annotations

import time
from typing import Callable

import pytest

from balloon import PUSH_INTERVAL, STATS, STATS_PUSH, Guest, stat
from process import Device
from qmp import Client, QMPError
from vhost_user import wait_for

Spawn = Callable[..., Device]


def start(spawn: Spawn, *args: str, push: bool = True, **kwargs: object) -> tuple[Device, Guest,
                                                                                  Client]:
    device = spawn("--features=stats-push", *args)
    guest = device.guest(extra=[STATS_PUSH] if push else [], **kwargs)
    return device, guest, device.monitor()


def push(guest: Guest, value: int) -> None:
    """A fresh buffer, which comes back at once."""
    ident = guest.submit(STATS, stat(4, value))
    assert guest.returned(STATS, ident), "a pushed buffer was kept"


@pytest.mark.parametrize("packed", [False, True])
def test_each_buffer_comes_back_as_soon_as_it_is_read(spawn: Spawn, packed: bool) -> None:
    _, guest, monitor = start(spawn, "--stats-push-interval=100", packed=packed)
    assert guest.config_field(PUSH_INTERVAL) == 100
    for value in range(1, 300):
        push(guest, value)
    assert wait_for(lambda: monitor.get("guest-stats")["stats"].get("stat-free-memory") == 299,
                    "the last figures")


def test_an_event_for_each_arrival(spawn: Spawn) -> None:
    _, guest, monitor = start(spawn, "--stats-push-interval=100")
    for value in range(1, 20):
        push(guest, value)
        event = monitor.event("BALLOON")
        assert event["stats"] == {"stat-free-memory": value}
        assert 0 <= event["age-ms"] < 5000
        assert event["actual"] == guest.mem.size()


def test_on_returns_the_buffer_that_was_held(spawn: Spawn) -> None:
    _, guest, monitor = start(spawn)
    guest.give_stats(stat(4, 1))
    monitor.event("BALLOON")
    assert not guest.stats_wanted(0.2)
    guest.back.drain()
    monitor.cmd("set-stats-push-interval", {"interval-ms": 50})
    assert guest.stats_wanted()
    assert guest.back.drain() == 1, "the driver must hear of the interval first"
    assert guest.config_field(PUSH_INTERVAL) == 50
    push(guest, 2)


def test_off_keeps_one_buffer(spawn: Spawn) -> None:
    """N to 0: exactly one is at the device, which from then on is the pull buffer."""
    _, guest, monitor = start(spawn, "--stats-push-interval=50")
    push(guest, 1)
    monitor.cmd("set-stats-push-interval", {"interval-ms": 0})
    assert guest.config_field(PUSH_INTERVAL) == 0
    guest.give_stats(stat(4, 2))
    wait_for(lambda: monitor.get("guest-stats")["stats"] == {"stat-free-memory": 2}, "figures")
    assert not guest.stats_wanted(0.3)
    monitor.cmd("refresh-balloon-stats")
    assert guest.stats_wanted()


def test_requests_are_suppressed_while_pushing(spawn: Spawn) -> None:
    _, guest, monitor = start(spawn, "--stats-push-interval=1000")
    monitor.set("guest-stats-polling-interval", 1)
    push(guest, 1)
    assert monitor.cmd("refresh-balloon-stats") == {}
    assert guest.queue(STATS).next_used(1.5) is None
    push(guest, 2)
    monitor.cmd("set-stats-push-interval", {"interval-ms": 0})
    guest.give_stats(stat(4, 3))
    assert guest.stats_wanted(5), "polling goes on when the pushing has ended"


@pytest.mark.parametrize("asked,served", [(1, 10), (9, 10), (10, 10), (11, 11),
                                          (2**32 - 1, 2**32 - 1)])
def test_interval_is_clamped(spawn: Spawn, asked: int, served: int) -> None:
    _, guest, monitor = start(spawn)
    monitor.cmd("set-stats-push-interval", {"interval-ms": asked})
    assert guest.config_field(PUSH_INTERVAL) == served


def test_interval_out_of_range_is_refused(spawn: Spawn) -> None:
    _, guest, monitor = start(spawn)
    for value in (-1, 2**32, 2**63 - 1):
        with pytest.raises(QMPError):
            monitor.cmd("set-stats-push-interval", {"interval-ms": value})
    assert guest.config_field(PUSH_INTERVAL) == 0


def test_a_driver_that_cannot_push(spawn: Spawn) -> None:
    _, guest, monitor = start(spawn, push=False)
    with pytest.raises(QMPError):
        monitor.cmd("set-stats-push-interval", {"interval-ms": 100})
    guest.give_stats(stat(4, 1))
    monitor.event("BALLOON")
    assert not guest.stats_wanted(0.2)


def test_push_is_not_offered_by_default(device: Device) -> None:
    assert not device.guest(start=False).offered >> STATS_PUSH & 1


def test_push_is_not_offered_without_statistics(spawn: Spawn) -> None:
    device = spawn("--features=stats-push,no-stats")
    assert not device.guest(start=False, stats=False).offered >> STATS_PUSH & 1


def test_a_legacy_driver_pushes_garbage_first(spawn: Spawn) -> None:
    _, guest, monitor = start(spawn, "--stats-push-interval=50", version1=False)
    push(guest, 666)
    assert monitor.get("guest-stats")["stats"] == {}
    push(guest, 7)
    assert monitor.event("BALLOON")["stats"] == {"stat-free-memory": 7}


def test_a_burst_ends_with_the_newest(spawn: Spawn) -> None:
    """A guest that pushes much faster than it may sets nobody's pace: some events are left out,
    but never the last one."""
    device, guest, monitor = start(spawn, "--stats-push-interval=10")
    client = device.monitor()
    for value in range(1, 3001):
        push(guest, value)
    newest, events = 0, 0
    while newest < 3000:
        newest = client.event("BALLOON")["stats"]["stat-free-memory"]
        events += 1
    assert events < 1500
    assert monitor.get("guest-stats")["stats"] == {"stat-free-memory": 3000}


def health(monitor: Client) -> str:
    return str(monitor.cmd("query-guest-health")["status"])


def test_health_by_pushes(spawn: Spawn) -> None:
    _, guest, monitor = start(spawn, "--stats-push-interval=200")
    assert health(monitor) in ("unknown", "healthy")
    push(guest, 1)
    assert health(monitor) == "healthy"
    begun = time.monotonic()
    for status in ("slow", "unresponsive"):
        assert monitor.event("GUEST_HEALTH_CHANGE", 5,
                             lambda data: data["status"] != "healthy")["status"] == status
    assert time.monotonic() - begun > 0.9, "not before a second"
    info = monitor.cmd("query-guest-health")
    assert info["status"] == "unresponsive" and info["gap-ms"] >= 900
    push(guest, 2)
    assert monitor.event("GUEST_HEALTH_CHANGE")["status"] == "healthy"


def test_a_stopped_guest_is_paused_and_never_late(spawn: Spawn) -> None:
    _, guest, monitor = start(spawn, "--stats-push-interval=100")
    push(guest, 1)
    bases = guest.stop()
    assert wait_for(lambda: health(monitor) == "paused", "paused")
    time.sleep(1.5)
    assert health(monitor) == "paused"
    guest.cont(bases)
    push(guest, 2)
    assert health(monitor) == "healthy"
