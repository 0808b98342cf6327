# SPDX-License-Identifier: MIT
"""Our Linux driver in a guest that runs out of memory, or that is asked for more than it has."""

from __future__ import annotations

import time
from typing import Any

import pytest

from conftest import Bed
from in_guest import Program
from test_guest_pressure import DEMAND
from test_module_push import number
from together import together
from vmm import Device, DeviceError, Guest, GuestData
from vmm.guest import MIB, PAGE

pytestmark = pytest.mark.driver("aerostat", reason="by the counters of our driver")

OOM_PAGES = "/sys/module/virtio_balloon/parameters/oom_pages"
#: The balloon gives way only when memory has run out, since nobody is told of pressure.
SILENT = "--features=no-page-reporting"


def load(guest: Guest, parameters: str = "") -> None:
    guest.check(f"insmod /lib/modules/aerostat/virtio_balloon.ko {parameters}")


def silent_pair(bed: Bed, parameters: str = "", memory: int = 256 * MIB) -> tuple[Device, Guest]:
    device = bed.device(SILENT)
    guest = bed.guest(device, memory)
    load(guest, parameters)
    return device, guest


def released(guest: Guest) -> int:
    return number(guest.counters(), "released_oom") * PAGE


def counts(device: Device) -> dict[str, Any]:
    """What device and guest agree on. A page that the kernel moves is held twice for a moment."""
    return device.wait_for("equal counts", lambda now: now["actual"] == now["held"])


def rests(device: Device, seconds: float = 1.0) -> int:
    """What the balloon holds, once that has not changed for a while."""
    held = -1
    while (now := device.query()["held"]) != held:
        held = now
        time.sleep(seconds)
    return held


@pytest.mark.parametrize("oom_pages", [
    64, pytest.param(1024, marks=pytest.mark.once(reason="another number"))])
def test_pages_by_parameter(bed: Bed, oom_pages: int) -> None:
    """Each time it gives so much back, and no more than it takes."""
    device, guest = silent_pair(bed, f"oom_pages={oom_pages}")
    assert guest.check(f"cat {OOM_PAGES}").strip() == str(oom_pages)
    data = GuestData(guest)
    data.write(16 * MIB)
    device.inflate_to(176 * MIB)
    result = guest.run(DEMAND)
    assert result.status == 0, result.text
    held = rests(device)
    state, counters = counts(device), guest.counters()
    gave = 176 * MIB - held
    print(f"oom_pages={oom_pages}: {gave / MIB:.1f} MiB given back")
    assert gave == released(guest) > 32 * MIB
    assert state["held"] == held and state["target"] == 176 * MIB
    assert counters["held"] == counters["actual"] == held // PAGE
    assert counters["target"] == 176 * MIB // PAGE
    assert guest.vmstat()["oom_kill"] == 0
    assert data.damaged() == []


def test_no_fight_for_the_target(bed: Bed) -> None:
    """What it gave back when memory ran out it takes again when the host says so, not before."""
    device, guest = silent_pair(bed)
    data = GuestData(guest)
    data.write(16 * MIB)
    device.inflate_to(176 * MIB)
    assert guest.run(DEMAND).status == 0
    held, before = rests(device), guest.counters()
    time.sleep(3)
    state, after = counts(device), guest.counters()
    assert state["held"] == held < 176 * MIB == state["target"]
    assert after["inflated"] == before["inflated"]
    assert after["inflate_failures"] == before["inflate_failures"]
    # The host's next word counts, the same one too, and the demand is over.
    device.inflate_to(160 * MIB)
    device.inflate_to(176 * MIB)
    assert guest.vmstat()["oom_kill"] == 0 and data.damaged() == []


def test_demand_again_and_again(bed: Bed) -> None:
    """A host that insists, and a guest that needs its memory: neither wins for good, none dies."""
    device, guest = silent_pair(bed)
    data = GuestData(guest)
    data.write(16 * MIB)
    for size in (176, 168, 176, 160):
        device.inflate_to(size * MIB)
        assert guest.run(DEMAND).status == 0
        assert counts(device)["held"] < size * MIB
    counters = guest.counters()
    assert guest.vmstat()["oom_kill"] == 0 and counters["timeouts"] == 0
    assert data.damaged() == []


def test_without_the_feature_nothing_is_released(bed: Bed) -> None:
    device = bed.device(SILENT, "--features=no-deflate-on-oom")
    guest = bed.guest(device)
    load(guest)
    device.inflate_to(160 * MIB)
    assert guest.run(DEMAND).status == 128 + 9
    assert guest.vmstat()["oom_kill"] == 1 and released(guest) == 0
    assert counts(device)["held"] == 160 * MIB


def tries_ever_more_rarely(device: Device, guest: Guest) -> bool:
    """False: something in the guest needed a page when there was none. The driver has given some
    back then, and rests, as it is meant to."""
    data = GuestData(guest)
    data.write(128 * MIB)
    # Nothing is begun or woken up in the guest from here on, no shell either, which would need one.
    hog = Program(guest, "hog 48 1024 1 1 10000")
    hog.wait_for("grown-us")
    busy = guest.cpu_seconds()
    device.qmp.execute("balloon", value=8 * MIB)
    held = rests(device)
    # Tried 0.2, 0.6, 1.4, 3, 6.2 and 12.6 s after the first failure.
    time.sleep(3)
    assert device.query()["held"] <= held + 8 * MIB
    try:
        device.wait_for("what has become free", lambda now: now["held"] > held + 32 * MIB)
    except DeviceError:
        if not released(guest):
            raise
        return False
    # The kernel keeps some memory back for a while when it has run short (watermark_boost_factor):
    # what it lets go of later is progress, after which delays begin anew.
    rests(device, 15)
    assert guest.cpu_seconds() - busy < 8
    counters = guest.counters()
    print(f"{counters['inflate_failures']} failures, {counters['backoff_ms']} ms")
    assert counters["backoff_ms"] == 10_000
    # Without ever longer delays there would be more than a hundred.
    assert 10 <= number(counters, "inflate_failures") <= 30
    assert guest.vmstat()["oom_kill"] == 0 and hog.wait() == 0
    return True


@together
def test_no_storm(bed: Bed) -> None:
    """A target that cannot be reached is tried for ever more rarely, memory that has become free is
    found nevertheless, and a new target is obeyed at once."""
    for _ in range(3):
        device, guest = silent_pair(bed)
        memory = device.memory()
        if tries_ever_more_rarely(device, guest):
            break
        guest.stop()
    else:
        pytest.fail("each of the guests ran out of memory meanwhile")

    held = device.query()["held"]
    began = time.monotonic()
    device.qmp.execute("balloon", value=memory - (held - 16 * MIB))
    device.wait_for("the new target", lambda now: now["held"] == now["actual"] == now["target"])
    assert time.monotonic() - began < 5
    assert guest.counters()["backoff_ms"] == 0
    # Delays begin anew with short ones.
    before = number(guest.counters(), "inflate_failures")
    device.qmp.execute("balloon", value=8 * MIB)
    time.sleep(4)
    after = guest.counters()
    assert 2 <= number(after, "inflate_failures") - before <= 10  # of 20 without longer delays
    assert 400 <= number(after, "backoff_ms") <= 3200
