# SPDX-License-Identifier: MIT
"""Is the guest hung, or only slow? By whether it answers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from conftest import Bed
from together import together
from vmm import Device

ONCE = pytest.mark.once(reason="it is about what the device makes of silence")

#: An answer is due within 1 s: so late is late sooner.
SOON = "--health-factors=1.1,1.3"


def wait_for_health(device: Device, status: str, timeout: float = 20.0) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    while (health := device.qmp.execute("query-guest-health"))["status"] != status:
        assert time.monotonic() < deadline, f"waited for {status}: {health}"
        time.sleep(0.02)
    return dict(health)


def changes(device: Device) -> list[str]:
    """The verdicts that were told since the last call."""
    device.query()  # what comes before its answer is there then
    told = [event["data"]["status"] for event in device.qmp.events
            if event["event"] == "GUEST_HEALTH_CHANGE"]
    device.qmp.events.clear()
    return told


@ONCE
@together
def test_a_stopped_processor_is_noticed(bed: Bed) -> None:
    device = bed.device()
    guest = bed.guest(device)
    assert wait_for_health(device, "unknown")["reason"] == "no-driver"
    guest.load_balloon()
    device.set_polling_interval(1)
    wait_for_health(device, "healthy")
    changes(device)
    guest.pause()
    slow = wait_for_health(device, "slow")
    hung = wait_for_health(device, "unresponsive")
    guest.resume()
    well = wait_for_health(device, "healthy")
    assert 1500 < slow["gap-ms"] < 3000 < hung["gap-ms"]
    assert slow["reason"] == hung["reason"] == "answer-late" and well["reason"] == "on-time"
    assert hung["expected-ms"] == 1000
    assert abs(hung["since"] - time.time()) < 60
    assert changes(device) == ["slow", "unresponsive", "healthy"]


@ONCE
@together
def test_a_busy_guest_is_healthy(bed: Bed) -> None:
    device, guest = bed.pair()
    device.set_polling_interval(1)
    wait_for_health(device, "healthy")
    changes(device)
    guest.check("end=$(($(date +%s) + 3)); while [ $(date +%s) -lt $end ]; do :; done")
    assert changes(device) == []


@ONCE
@together
def test_without_a_driver_nobody_is_late(bed: Bed) -> None:
    device, guest = bed.pair(SOON)
    device.set_polling_interval(1)
    wait_for_health(device, "healthy")
    guest.unload_balloon()
    changes(device)
    time.sleep(2)
    assert set(changes(device)) <= {"paused", "unknown"}
    assert device.qmp.execute("query-guest-health")["status"] in ("paused", "unknown")
    guest.load_balloon()
    wait_for_health(device, "healthy")


@ONCE
@together
def test_the_verdict_outlives_a_worker(bed: Bed) -> None:
    device, guest = bed.pair(SOON)
    device.set_polling_interval(1)
    wait_for_health(device, "healthy")
    guest.pause()
    before = wait_for_health(device, "unresponsive")
    device.kill_worker()
    after = device.again(lambda: device.qmp.execute("query-guest-health"))
    assert (after["status"], after["since"]) == (before["status"], before["since"])
    guest.resume()
    wait_for_health(device, "healthy")
