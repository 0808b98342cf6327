# SPDX-License-Identifier: MIT
"""Inflate and deflate: what moves, what is freed on the host, and that no data is harmed."""

from __future__ import annotations

import hashlib
import os
import pathlib
import time
from collections.abc import Callable

import pytest

from conftest import Bed
from vmm import Device, Guest, GuestData, QmpError
from vmm.guest import MIB

ONCE = pytest.mark.once(reason="it is about the monitor's words")

# Feature bits, as the guest's driver sees them.
MUST_TELL_HOST, STATS_VQ, DEFLATE_ON_OOM, VERSION_1, RING_PACKED = 0, 1, 2, 32, 34


def touch_everything(guest: Guest, size: int) -> None:
    """Make `size` bytes of the guest's free memory resident on the host."""
    data = GuestData(guest)
    data.write(size)
    data.clear()


def settled(measure: Callable[[], int]) -> int:
    """A measure, once it has stopped moving by more than 64 KiB in 100 ms."""
    last = measure()
    for _ in range(50):
        time.sleep(0.1)
        now = measure()
        if abs(now - last) <= 1 << 16:
            return now
        last = now
    raise AssertionError("the guest does not come to rest")


def reaches_its_target(device: Device, wish: int) -> None:
    """The device takes a wish in whole units of 64 KiB, for guests with pages of that size."""
    state = device.wait_for("the target", lambda now:
                            now["actual"] == now["held"] == now["target"] > 0)
    assert state["target"] % 65536 == 0 and abs(state["target"] - wish) < 65536


@pytest.mark.parametrize("options, bits, names", [
    ((), {STATS_VQ, DEFLATE_ON_OOM}, {"stats", "deflate-on-oom"}),
    (("--features=no-stats,no-deflate-on-oom",), set(), set()),
], ids=["all", "bare"])
def test_probe(bed: Bed, record_property: Callable[[str, object], None],
               options: tuple[str, ...], bits: set[int], names: set[str]) -> None:
    device, guest = bed.pair(*options)
    negotiated = guest.features()
    record_property("ring", "packed" if RING_PACKED in negotiated else "split")
    assert {MUST_TELL_HOST, VERSION_1} <= negotiated
    assert negotiated & {STATS_VQ, DEFLATE_ON_OOM} == bits
    state = device.query()
    assert set(state["features-negotiated"]) & {"stats", "deflate-on-oom"} == names
    assert set(state["features-negotiated"]) <= set(state["features-offered"])
    assert {"inflate", "deflate"} <= {queue["name"] for queue in state["queues"]}
    memory = device.memory()
    assert 0 <= guest.memory - memory < 16 * MIB
    device.inflate_to(32 * MIB)
    assert device.qmp.execute("query-balloon") == {"actual": memory - 32 * MIB}
    device.inflate_to(0)


def test_no_balloon_without_a_driver(bed: Bed) -> None:
    device = bed.device()
    with pytest.raises(QmpError, match="DeviceNotActive"):
        device.qmp.execute("query-balloon")
    guest = bed.guest(device)
    device.qmp.wait_event("VMM_CONNECTED")
    with pytest.raises(QmpError, match="DeviceNotActive"):
        device.qmp.execute("query-balloon")
    guest.load_balloon()
    assert device.qmp.execute("query-balloon") == {"actual": device.memory()}


def test_inflate_frees_memory_on_the_host(bed: Bed) -> None:
    device, guest = bed.pair()
    touch_everything(guest, 160 * MIB)
    free, before = settled(guest.free_memory), settled(guest.resident)
    freed_before = device.query()["freed"]
    assert before > 160 * MIB
    assert abs(device.query()["resident"] - before) < MIB

    device.inflate_to(128 * MIB)
    after, state = settled(guest.resident), device.query()
    assert before - after >= 0.95 * 128 * MIB
    assert abs(state["resident"] - after) < MIB
    assert state["freed"] - freed_before >= 0.95 * 128 * MIB
    assert abs(free - settled(guest.free_memory) - 128 * MIB) <= 4 * MIB
    assert device.qmp.wait_event("BALLOON_CHANGE")["actual"] >= device.memory() - 128 * MIB

    device.inflate_to(0)
    assert abs(free - settled(guest.free_memory)) <= 4 * MIB
    assert device.query()["freed"] == state["freed"]
    # Of what it takes now some was never given away, and is resident all the time.
    touch_everything(guest, 160 * MIB)
    assert guest.resident() >= after + 64 * MIB


def test_deflate_in_part(bed: Bed) -> None:
    # Without deflate-on-oom the driver subtracts the balloon from the guest's total.
    device, guest = bed.pair("--features=no-deflate-on-oom")
    total = guest.meminfo()["MemTotal"]
    for size in (96, 32, 64, 16, 128, 0):
        device.inflate_to(size * MIB)
        assert guest.meminfo()["MemTotal"] == total - size * MIB


def test_target_is_a_multiple_of_64_kib(bed: Bed) -> None:
    device, _ = bed.pair()
    device.qmp.execute("balloon", value=device.memory() - 16 * MIB - 20480)
    reaches_its_target(device, 16 * MIB + 20480)


def test_target_given_at_the_start(bed: Bed) -> None:
    device, guest = bed.pair("--target=48M")
    device.wait_for("the target", lambda now: now["actual"] == now["held"] == 48 * MIB)
    assert device.qmp.execute("query-balloon") == {"actual": device.memory() - 48 * MIB}


def test_target_given_before_the_driver(bed: Bed) -> None:
    device = bed.device()
    guest = bed.guest(device)
    device.qmp.execute("balloon", value=192 * MIB)
    guest.load_balloon()
    reaches_its_target(device, device.memory() - 192 * MIB)


def test_data_around_the_balloon_stays_intact(bed: Bed) -> None:
    device, guest = bed.pair()
    data = GuestData(guest)
    data.write(192 * MIB)
    data.thin_out()
    before = guest.resident()
    for size in (96, 40, 104):
        device.inflate_to(size * MIB)
        assert data.damaged() == []
    # What nobody had touched before is not there to be freed.
    assert before - guest.resident() >= 0.9 * 96 * MIB - (guest.memory - before)

    device.inflate_to(0)
    data.write(64 * MIB)  # into pages that come back from the balloon
    assert data.damaged() == []


@pytest.mark.once(reason="what of its caches it gives up is up to any kernel")
def test_page_cache_gives_way_and_is_read_again(bed: Bed, workdir: pathlib.Path) -> None:
    disk = workdir / "disk"
    disk.write_bytes(os.urandom(128 * MIB))
    want = hashlib.md5(disk.read_bytes()).hexdigest()
    try:
        device, guest = bed.pair(disk=disk)
        name = guest.disk_device
        guest.check(f"sleep 1000 <{name} >/dev/null 2>&1 &")  # a closed disk has no cache
        read = f"md5sum {name} | cut -d' ' -f1"
        assert guest.check(read).strip() == want
        assert guest.meminfo()["Buffers"] > 100 * MIB
        device.inflate_to(176 * MIB)
        assert guest.meminfo()["Buffers"] < 64 * MIB
        assert guest.check(read).strip() == want
        device.inflate_to(0)
        assert guest.check(read).strip() == want
    finally:
        disk.unlink()


@ONCE
def test_info_and_balloon_in_words(bed: Bed) -> None:
    device, guest = bed.pair()
    assert device.human("balloon 192") == ""
    reaches_its_target(device, device.memory() - 192 * MIB)
    text = device.human("info balloon")
    assert text.startswith("balloon: actual=192 ")
    assert f" total-memory={guest.meminfo()['MemTotal']} " in text
