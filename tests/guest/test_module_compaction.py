# SPDX-License-Identifier: MIT
"""Compaction moves pages of our Linux driver: the host learns of each, and no data is lost."""

from __future__ import annotations

import random
import threading
import time

import pytest

from conftest import Bed
from in_guest import Program
from test_module_push import number
from vmm import Device, Guest, GuestData
from vmm.guest import MIB, PAGE

pytestmark = pytest.mark.driver("aerostat", reason="by the counters of our driver")

COMPACT = "echo 1 >/proc/sys/vm/compact_memory"
#: Without deflate-on-oom the guest's own total shows what its driver believes is in the balloon.
COUNTED = "--features=no-deflate-on-oom"


def fragment(guest: Guest, size: int) -> GuestData:
    """Data of which every second 64 KiB is gone: holes all over the memory."""
    data = GuestData(guest, pages_per_file=16)
    data.write(size)
    data.thin_out()
    return data


def books_agree(device: Device, guest: Guest, size: int, total: int) -> None:
    """Host, driver and kernel count the same pages."""
    state = device.wait_for("the size", lambda now: now["actual"] == now["held"] == size)
    assert state["inflated"] - state["deflated"] == size
    assert guest.counters()["held"] == size // PAGE
    assert guest.meminfo()["MemTotal"] == total - size


def test_after_an_inflation_in_pieces(bed: Bed) -> None:
    device, guest = bed.pair(COUNTED)
    total = guest.meminfo()["MemTotal"]
    data = fragment(guest, 160 * MIB)
    device.inflate_to(96 * MIB)
    before = number(guest.counters(), "migrated")
    for _ in range(3):
        guest.check(COMPACT)
        books_agree(device, guest, 96 * MIB, total)
        assert data.damaged() == []
        # Other holes: what was moved once moves again.
        data.write(16 * MIB)
        data.thin_out()
    moved = number(guest.counters(), "migrated")
    assert moved > before
    assert moved <= guest.vmstat()["balloon_migrate"] <= number(guest.counters(), "migrated")
    # Each move puts one page into the balloon and takes one out, for the host too.
    state = device.query()
    assert state["deflated"] >= moved * PAGE
    print(f"{moved} pages moved")
    device.inflate_to(0)
    books_agree(device, guest, 0, total)
    assert data.damaged() == []


def test_while_it_inflates_and_deflates(bed: Bed) -> None:
    device, guest = bed.pair(COUNTED)
    total = guest.meminfo()["MemTotal"]
    data = fragment(guest, 96 * MIB)
    compact = Program(guest, f"while [ ! -e /run/enough ]; do {COMPACT}; done")
    dice = random.Random(3)
    sizes = [dice.choice([16, 48, 80, 112, 128]) * MIB for _ in range(25)]
    for size in sizes:
        device.set_balloon(size)
        time.sleep(dice.choice([0, 0.003, 0.03, 0.1]))
        if dice.random() < 0.3:
            data.write(MIB)
            data.thin_out()
    device.inflate_to(112 * MIB)
    guest.check("touch /run/enough")
    assert compact.wait() == 0
    books_agree(device, guest, 112 * MIB, total)
    assert data.damaged() == []
    counters = guest.counters()
    print(f"{counters['migrated']} pages moved")
    assert number(counters, "migrated") > 0 and counters["timeouts"] == 0
    device.inflate_to(0)
    books_agree(device, guest, 0, total)
    assert data.damaged() == []


def test_while_workers_die(bed: Bed) -> None:
    """A page is between two places, and the host is another all of a sudden."""
    device, guest = bed.pair(COUNTED)
    total = guest.meminfo()["MemTotal"]
    data = fragment(guest, 128 * MIB)
    device.inflate_to(80 * MIB)
    compact = Program(guest, f"while [ ! -e /run/enough ]; do {COMPACT}; done")
    end = threading.Event()

    def kill() -> None:
        while not end.wait(0.1):
            device.kill_worker()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for size in (96, 32, 112, 64, 96, 80):
            time.sleep(0.2)
            device.again(lambda size=size: device.set_balloon(size * MIB))
    finally:
        end.set()
        killer.join()
    guest.check("touch /run/enough")
    assert compact.wait() == 0
    device.again(lambda: device.inflate_to(80 * MIB))
    books_agree(device, guest, 80 * MIB, total)
    assert number(guest.counters(), "migrated") > 0
    assert data.damaged() == []
    device.inflate_to(0)
    assert data.damaged() == []
