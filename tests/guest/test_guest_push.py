# SPDX-License-Identifier: MIT
"""What only our driver can do: push statistics on a timer."""

from __future__ import annotations

import itertools
import statistics
import time

import pytest

from conftest import Bed
from test_guest_crash import killed
from test_guest_health import wait_for_health
from vmm import Device, DriverGuest

#: The guests are made of our portable driver: there is neither Linux nor its monitor.
pytestmark = [pytest.mark.driver("stock", reason="no Linux"),
              pytest.mark.vmm("uml", reason="no monitor")]


def set_interval(device: Device, ms: int) -> int:
    """The interval that is in force after that."""
    return int(device.qmp.execute("set-stats-push-interval", interval_ms=ms)["interval-ms"])


def arrivals(device: Device, count: int) -> list[float]:
    """When the next statistics come, in seconds, by the device's clock: on a busy machine who reads
    of them here is late, and then finds several."""
    device.qmp.events.clear()
    stamps = [device.qmp.next_event("BALLOON")["timestamp"] for _ in range(count)]
    return [stamp["seconds"] + stamp["microseconds"] / 1e6 for stamp in stamps]


def pushes(device: Device, interval: int) -> list[float]:
    """When the first four come after a change of the interval."""
    times = arrivals(device, 4)
    # Two gaps at least are whole, whatever the change was in the middle of.
    assert times[3] - times[0] >= 0.0016 * interval, f"it pushes faster than it should: {times}"
    return times


@pytest.mark.parametrize("interval, count", [(10, 200), (100, 20), (1000, 3)])
def test_cadence(bed: Bed, interval: int, count: int) -> None:
    device, guest = bed.driver_pair(f"--stats-push-interval={interval}")
    arrivals(device, 1)
    begun, before = time.monotonic(), guest.state()
    times = arrivals(device, count)
    after, took = guest.state(), (time.monotonic() - begun) * 1000
    assert after["interval-ms"] == interval
    # The schedule is absolute, so no tick is lost without being counted, however busy the host is.
    ticks = sum(after[name] - before[name] for name in ("sent", "skipped", "missed"))
    assert abs(ticks - took / interval) <= 2, (before, after, took)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 0.7 * interval < statistics.median(gaps) * 1000 < 1.5 * interval + 5


def test_all_switches(bed: Bed) -> None:
    """Between any two intervals, in both directions; requests are answered while it is off."""
    device, guest = bed.driver_pair()
    # Every ordered pair of the four is somewhere in this.
    for interval in (0, 10, 0, 40, 0, 200, 10, 40, 10, 200, 40, 200, 0):
        assert set_interval(device, interval) == interval
        if interval:
            pushes(device, interval)
            device.wait_for("the interval", lambda _: guest.state()["interval-ms"] == interval)
        else:
            pulled(device, guest)
    for wish in (1, 9):
        assert set_interval(device, wish) == 10


def pulled(device: Device, guest: DriverGuest) -> None:
    """It pushes no more; one buffer is at the device, and comes back for each request."""
    device.wait_for("the end of pushing", lambda _: guest.state()["interval-ms"] == 0)
    before = guest.state()["sent"]
    time.sleep(0.25)
    assert guest.state()["sent"] == before
    for count in range(1, 4):
        device.refresh_stats()
        assert guest.state()["sent"] == before + count


def test_health_by_pushes(bed: Bed) -> None:
    device, guest = bed.driver_pair("--stats-push-interval=100")
    wait_for_health(device, "healthy")
    guest.pause()
    verdict = wait_for_health(device, "unresponsive")
    assert verdict["reason"] == "push-late" and verdict["gap-ms"] >= 1000
    guest.resume()
    wait_for_health(device, "healthy")


def test_killed_workers(bed: Bed) -> None:
    """Each buffer is taken once and returned once, whenever a worker dies."""
    device, guest = bed.driver_pair("--stats-push-interval=10")
    with killed(device, 60) as rounds:
        for _ in rounds:
            time.sleep(0.02)
    device.again(lambda: set_interval(device, 0))
    device.again(lambda: device.wait_for("the end of pushing", lambda _:
                                         guest.state()["interval-ms"] == 0))
    device.again(device.refresh_stats)
    queues = {queue["name"]: queue for queue in device.query()["queues"]}
    assert queues["stats"]["buffers"] == guest.state()["sent"]
