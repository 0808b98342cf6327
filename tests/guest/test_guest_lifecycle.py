# SPDX-License-Identifier: MIT
"""Drivers that come and go, guests that die, and many of them at once."""

from __future__ import annotations

import concurrent.futures
import time

import pytest

from conftest import Bed
from together import together
from vmm import Device, Guest, GuestData, QmpError
from vmm.guest import MIB, PAGE


def reaches(device: Device, size: int) -> None:
    device.wait_for(f"{size} bytes", lambda now: now["actual"] == now["held"] == size)


def test_unload_and_load_again(bed: Bed) -> None:
    device, guest = bed.pair("--target=64M")
    data = GuestData(guest)
    data.write(64 * MIB)
    for _ in range(3):
        reaches(device, 64 * MIB)
        guest.unload_balloon()
        reaches(device, 0)
        assert device.query()["target"] == 64 * MIB
        assert data.damaged() == []
        guest.load_balloon()
    reaches(device, 64 * MIB)


def test_unload_in_the_middle_of_an_inflation(bed: Bed) -> None:
    device, guest = bed.pair()
    data = GuestData(guest)
    data.write(64 * MIB)
    for size in (128, 112, 144):
        device.set_balloon(size * MIB)
        guest.unload_balloon()
        reaches(device, 0)
        guest.load_balloon()
        reaches(device, size * MIB)
        assert data.damaged() == []


@together
def test_memory_of_an_unloaded_driver_is_left_alone(bed: Bed) -> None:
    """User-mode-linux does not say that rings are gone: the guest has other things there soon."""
    device, guest = bed.pair()
    device.refresh_stats()
    guest.unload_balloon()
    guest.pause()
    before = guest.memory_file().read_bytes()
    device.set_polling_interval(1)  # which would return the buffer of the statistics
    time.sleep(1.3)
    device.kill_worker()  # a new one serves all rings
    device.again(device.query)
    time.sleep(0.1)
    after = guest.memory_file().read_bytes()
    written = [page for page in range(0, len(after), PAGE)
               if before[page:page + PAGE] != after[page:page + PAGE]]
    guest.resume()
    assert [hex(page) for page in written] == []
    guest.load_balloon()
    assert device.refresh_stats()["stats"]


def kill_in_the_middle(device: Device, guest: Guest, size: int) -> int:
    """Kill the guest while its balloon grows to `size`; return how far it came."""
    for _ in range(5):
        device.inflate_to(0)
        device.set_balloon(size)
        while (held := device.query()["held"]) < size:
            if held > 0:
                guest.kill()
                return held
    raise AssertionError("every inflation was over before the guest could be killed")


@pytest.mark.once(reason="it is about what a guest leaves to the device")
def test_guest_killed_while_it_inflates(bed: Bed) -> None:
    device, guest = bed.pair(memory=768 * MIB)
    GuestData(guest).write(128 * MIB)
    for _ in range(2):
        assert 0 < kill_in_the_middle(device, guest, 512 * MIB) < 512 * MIB
        device.qmp.wait_event("VMM_DISCONNECTED")
        state = device.query()
        assert (state["actual"], state["held"], state["resident"]) == (0, 0, 0)
        assert state["target"] == 512 * MIB
        with pytest.raises(QmpError, match="DeviceNotActive"):
            device.qmp.execute("query-balloon")

        guest = bed.guest(device, memory=768 * MIB)
        data = GuestData(guest)
        data.write(128 * MIB)
        guest.load_balloon()
        reaches(device, 512 * MIB)
        assert data.damaged() == []


def test_guest_killed_while_it_stands_still(bed: Bed) -> None:
    device, guest = bed.pair("--target=64M")
    reaches(device, 64 * MIB)
    guest.pause()
    guest.kill()
    device.qmp.wait_event("VMM_DISCONNECTED")
    bed.guest(device).load_balloon()
    reaches(device, 64 * MIB)


def test_device_ends_in_order_with_a_guest_attached(bed: Bed) -> None:
    device, guest = bed.pair("--target=64M")
    reaches(device, 64 * MIB)
    bed.forget(device)
    device.stop()
    assert guest.check("echo alive") == "alive\n"
    guest.kill()  # it could not power off: the driver would wait for the device


@pytest.mark.vmm("uml", reason="QEMU would have 40 processors to emulate")
def test_twenty_guests_at_once(bed: Bed) -> None:
    def one(number: int) -> float:
        size = (8 + number % 3) * MIB
        device, guest = bed.pair(memory=64 * MIB)
        data = GuestData(guest)
        data.write(16 * MIB)
        data.thin_out()
        before = guest.resident()
        device.inflate_to(size, timeout=60)
        given_back = before - guest.resident()
        assert data.damaged() == []
        assert set(device.refresh_stats(60)["stats"]) > {"stat-total-memory"}
        device.inflate_to(0, timeout=60)
        data.write(8 * MIB)
        assert data.damaged() == []
        return given_back / size

    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        shares = list(pool.map(one, range(20)))
    print(f"{time.monotonic() - started:.1f} s; given back of what was asked: {min(shares):.0%} "
          f"to {max(shares):.0%}")
    # Besides the 8 MiB of removed files a fresh guest's free memory is partly untouched.
    assert min(shares) > 0.5
