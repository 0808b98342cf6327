# SPDX-License-Identifier: MIT
"""The worker dies and another goes on: a real guest must not notice, hundreds of times."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import Bed
from together import together
from vmm import Device, Guest, GuestData
from vmm.guest import MIB, PAGE

ONCE = pytest.mark.once(reason="it is about the device's processes, of which no guest knows")

#: Without deflate-on-oom the guest's own total shows what its driver believes is in the balloon.
COUNTED = "--features=no-deflate-on-oom"


class Killer(threading.Thread):
    """Kills one worker after the other, each at a random moment of its life."""

    def __init__(self, device: Device, longest: float) -> None:
        super().__init__()
        self._device, self._longest = device, longest
        self._end = threading.Event()
        self.killed = 0

    def run(self) -> None:
        dice, longest = random.Random(1), self._longest
        # Some die before they are ready.
        while not self._end.wait(dice.choice([0.2, 1.0, 1.0]) * dice.uniform(0, longest)):
            begun = time.monotonic()
            self._device.kill_worker()
            # But not all of them, on a host that is too busy to start one in such a time.
            longest = max(self._longest, 5 * (time.monotonic() - begun))
            self.killed += 1

    def end(self) -> None:
        self._end.set()
        self.join()


@contextlib.contextmanager
def killed(device: Device, times: int, longest: float = 0.06) -> Iterator[Iterator[int]]:
    """For a loop that goes on until so many workers have been killed in it."""
    killer = Killer(device, longest)

    def rounds() -> Iterator[int]:
        deadline, count = time.monotonic() + 120, 0
        while killer.killed < times:
            assert killer.is_alive() and time.monotonic() < deadline, f"{killer.killed} killed"
            yield count
            count += 1

    killer.start()
    try:
        yield rounds()
    finally:
        killer.end()
    nothing_was_wrong(device, killer.killed)


def nothing_was_wrong(device: Device, kills: int) -> None:
    state = device.again(device.query)
    assert state["worker-restarts"] == kills
    assert not any(state["driver-errors"].values()), state


def kill_while_it_discards(device: Device, guest: Guest, begin: float = 1.0) -> int:
    """Kill workers just when they have given some memory back, the first of which happens within
    `begin` seconds; how many."""
    memory, kills = guest.memory_file(), 0
    high, deadline = os.stat(memory).st_blocks, time.monotonic() + begin
    while time.monotonic() < deadline:
        now = os.stat(memory).st_blocks
        high = max(high, now)
        if now < high - 4 * MIB // 512:
            device.kill_worker()
            kills += 1
            deadline = time.monotonic() + 0.2
            high = os.stat(memory).st_blocks
        time.sleep(0.0002)
    return kills


def fresh_stats(device: Device) -> dict[str, Any]:
    """Statistics that were asked for; again when a worker has taken the event with it."""
    while True:
        try:
            return device.again(lambda: device.refresh_stats(1.0))["stats"]
        except TimeoutError:
            continue


def test_while_memory_moves(bed: Bed) -> None:
    """Every page is counted once, by the guest as by the device, and none is lost."""
    device, guest = bed.pair(COUNTED)
    total = guest.meminfo()["MemTotal"]
    data = GuestData(guest, pages_per_file=64)
    data.write(96 * MIB)
    data.thin_out()
    with killed(device, 120) as rounds:
        for count in rounds:
            size = (96, 16, 128, 0, 64)[count % 5] * MIB
            state = device.again(lambda: device.inflate_to(size))
            assert state["inflated"] - state["deflated"] == size
            assert guest.meminfo()["MemTotal"] == total - size
    assert data.damaged() == []
    device.inflate_to(0)
    data.write(64 * MIB)
    data.thin_out()
    device.inflate_to(96 * MIB)
    assert data.damaged() == []


@ONCE
def test_in_the_middle_of_an_inflation(bed: Bed) -> None:
    device, guest = bed.pair(COUNTED)
    total = guest.meminfo()["MemTotal"]
    data, kept = GuestData(guest), GuestData(guest)
    kept.write(32 * MIB)
    kills = 0
    for _ in range(4):
        data.write(96 * MIB)
        data.clear()
        device.again(lambda: device.set_balloon(128 * MIB))
        kills += kill_while_it_discards(device, guest)
        state = device.again(lambda: device.inflate_to(128 * MIB))
        assert state["inflated"] - state["deflated"] == 128 * MIB
        assert guest.meminfo()["MemTotal"] == total - 128 * MIB
        assert kept.damaged() == []
        device.again(lambda: device.inflate_to(0))
    assert kills >= 8
    nothing_was_wrong(device, kills)


@ONCE
@together
def test_while_pages_are_reported(bed: Bed) -> None:
    # While it reports up to 128 MiB, Linux has so much less for others.
    device, guest = bed.pair(reporting=True, memory=512 * MIB)
    kept, data = GuestData(guest), GuestData(guest)
    kept.write(32 * MIB)
    kills = 0
    for _ in range(3):
        data.write(128 * MIB)
        full = guest.resident()
        data.clear()
        # Linux reports what is free every two seconds, up to 128 MiB at once.
        kills += kill_while_it_discards(device, guest, 3.0)
        device.again(lambda: device.wait_for("reported pages", lambda _:
                                             guest.resident() < full - 100 * MIB))
        assert kept.damaged() == []
    assert kills >= 3
    nothing_was_wrong(device, kills)


@ONCE
def test_while_statistics_are_asked_for(bed: Bed) -> None:
    device, guest = bed.pair()
    with killed(device, 60) as rounds:
        for _ in rounds:
            stats = fresh_stats(device)
            assert abs(stats["stat-free-memory"] - guest.meminfo()["MemFree"]) < 8 * MIB


@ONCE
def test_while_free_pages_are_hinted(bed: Bed) -> None:
    device, guest = bed.pair()
    data = GuestData(guest)
    data.write(64 * MIB)
    free = guest.free_memory()

    def status() -> str:
        return str(device.qmp.execute("query-free-page-hint")["status"])

    def round_trip() -> None:
        if status() in ("idle", "done"):
            device.qmp.execute("free-page-hint", action="start")
        device.wait_for("hints", lambda state: state["hint"]["status"] == "finished")

    def done() -> None:
        if status() != "done":
            device.qmp.execute("free-page-hint", action="done")

    with killed(device, 60) as rounds:
        for _ in rounds:
            device.again(round_trip)
            hints = device.again(device.hints)
            assert hints.state == "finished" and 0.5 * free < len(hints.pages) * PAGE <= free
            device.again(done)
            has_its_pages_back(guest, free)
    assert data.damaged() == []


def has_its_pages_back(guest: Guest, free: int) -> None:
    deadline = time.monotonic() + 20
    while guest.free_memory() < free - 8 * MIB:
        assert time.monotonic() < deadline, "the guest did not get its pages back"
        time.sleep(0.01)


def test_while_the_driver_comes_and_goes(bed: Bed) -> None:
    """Messages of the front end, for whose answers the guest stands still."""
    device, guest = bed.pair(COUNTED, "--target=32M")

    def reached() -> None:
        device.wait_for("the target", lambda state:
                        state["actual"] == state["held"] == 32 * MIB)

    reached()
    less = guest.meminfo()["MemTotal"]
    with killed(device, 60) as rounds:
        for _ in rounds:
            guest.unload_balloon()
            guest.load_balloon()
    device.again(reached)
    assert guest.meminfo()["MemTotal"] == less


@ONCE
def test_in_quick_succession(bed: Bed) -> None:
    """Workers that live for no time at all: the last one serves."""
    device, guest = bed.pair(COUNTED)
    total = guest.meminfo()["MemTotal"]
    device.set_balloon(128 * MIB)
    for _ in range(8):
        device.kill_worker()
    device.again(lambda: device.inflate_to(128 * MIB))
    assert guest.meminfo()["MemTotal"] == total - 128 * MIB
    nothing_was_wrong(device, 8)
