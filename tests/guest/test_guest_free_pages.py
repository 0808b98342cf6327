# SPDX-License-Identifier: MIT
"""Free pages: reported ones come back to the host, hinted ones are marked, poisoned ones stay."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from conftest import Bed
from together import together
from vmm import Device, Guest, GuestData, QmpError
from vmm.guest import MIB, PAGE

HINT, POISON, REPORTING = 3, 4, 5  # feature bits


def without_linux(test: Callable[[Bed], None]) -> Callable[[Bed], None]:
    """For a guest that is made of our portable driver: neither Linux nor its monitor."""
    monitor = pytest.mark.vmm("uml", reason="no monitor")
    return pytest.mark.driver("stock", reason="no Linux")(monitor(test))


ONCE = pytest.mark.once(reason="it is about what the device leaves alone")

#: Linux takes up to 128 MiB out of its free memory while it reports them.
ROOM = 512 * MIB


def fill_and_clear(guest: Guest, size: int) -> None:
    data = GuestData(guest)
    data.write(size)
    data.clear()


@together
def test_freed_memory_comes_back_by_itself(bed: Bed) -> None:
    """Reporting: nobody asks for anything, and the host has its memory again."""
    device, guest = bed.pair(reporting=True, memory=ROOM)
    assert REPORTING in guest.features()
    kept, data = GuestData(guest), GuestData(guest)
    kept.write(32 * MIB)
    data.write(128 * MIB)
    full, before = guest.resident(), device.query()
    assert full > 160 * MIB
    data.clear()
    device.wait_for("reported pages", lambda _: guest.resident() < full - 100 * MIB, 60)
    state = device.query()
    assert state["reported"] - before["reported"] >= 100 * MIB
    assert state["freed"] - before["freed"] >= 100 * MIB
    assert state["held"] == state["kept"] == 0
    assert kept.damaged() == []
    data.write(96 * MIB)  # into pages that were reported
    assert data.damaged() == [] and kept.damaged() == []


@together
def test_reporting_beside_the_balloon(bed: Bed) -> None:
    device, guest = bed.pair(reporting=True, memory=ROOM)
    data = GuestData(guest)
    data.write(48 * MIB)
    data.thin_out()
    for size in (64, 16, 0):
        device.inflate_to(size * MIB)
        fill_and_clear(guest, 32 * MIB)
        assert data.damaged() == []
        time.sleep(0.3)
    assert data.damaged() == []


@together
def test_a_guest_that_clears_what_it_frees(bed: Bed) -> None:
    """It relies on zeros in free pages, and zeros are what the host gives back."""
    device, guest = bed.pair(reporting=True, memory=ROOM,
                             kernel_options=("init_on_free=1",), boots=True)
    assert {POISON, REPORTING} <= guest.features()
    assert device.query()["poison-value"] == 0
    data = GuestData(guest)
    data.write(32 * MIB)
    fill_and_clear(guest, 64 * MIB)
    device.wait_for("reported pages", lambda now: now["reported"] >= 48 * MIB, 60)
    device.inflate_to(64 * MIB)
    device.inflate_to(0)
    state = device.query()
    assert state["kept"] == 0 and state["freed"] >= 48 * MIB
    assert data.damaged() == []


@without_linux
def test_poison_that_is_not_zero(bed: Bed) -> None:
    """Zeros in free pages would be damage: nothing is given back, and all is counted."""
    device, guest = bed.driver_pair(memory=64 * MIB, poison=0xAAAAAAAA)
    assert device.query()["poison-value"] == 0xAAAAAAAA
    guest.run("report")
    device.wait_for("a report", lambda now: now["reported"] > 0)
    guest.run("check")
    device.inflate_to(32 * MIB)
    state = device.query()
    assert state["freed"] == 0 and state["kept"] == state["reported"] + 32 * MIB
    assert state["resident"] > 64 * MIB
    device.inflate_to(0)
    guest.run("check")


@without_linux
def test_poison_of_zeros(bed: Bed) -> None:
    device, guest = bed.driver_pair(memory=64 * MIB, poison=0)
    guest.run("use 8")
    guest.run("report")
    device.wait_for("a report", lambda now: now["freed"] > 32 * MIB)
    guest.run("check")
    device.inflate_to(32 * MIB)
    device.inflate_to(0)
    assert device.query()["kept"] == 0
    guest.run("check")


def start_hinting(device: Device) -> None:
    device.qmp.execute("free-page-hint", action="start")
    device.wait_for("hints", lambda now: now["hint"]["status"] == "finished")


def pages_come_back(guest: Guest, free: int) -> None:
    deadline = time.monotonic() + 20
    while guest.free_memory() < free - 8 * MIB:
        assert time.monotonic() < deadline, "the guest did not get its pages back"
        time.sleep(0.02)


def places(guest: Guest, data: GuestData) -> dict[bytes, set[int]]:
    """Where in the guest's memory each page of the data is: user-mode-linux has a page at the
    offset of its guest physical address. In more than one place, where the kernel has moved it and
    nobody has used the old one since."""
    found: dict[bytes, set[int]] = {}
    memory = guest.memory_file().read_bytes()
    for at in range(0, len(memory), PAGE):
        if data.owns(memory[at:at + 64]):
            found.setdefault(memory[at:at + 64], set()).add(at // PAGE)
    return found


def test_hints(bed: Bed) -> None:
    device, guest = bed.pair()
    assert HINT in guest.features()
    data = GuestData(guest)
    data.write(96 * MIB)
    data.thin_out()
    free, before = guest.free_memory(), guest.resident()
    for _ in range(3):
        start_hinting(device)
        hints = device.hints()
        # Blocks of 4 MiB: most of what is free, and nothing of what is in use.
        assert 0.5 * free < len(hints.pages) * PAGE <= free
        where = places(guest, data)
        assert len(where) == 48 * MIB // PAGE
        assert all(some - hints.pages for some in where.values())
        assert sum(count for _, count in hints.regions) * PAGE == device.memory()
        assert hints.state == "finished"
        state = device.query()["hint"]
        assert (state["id"], state["hinted-bytes"]) == (hints.id, len(hints.pages) * PAGE)
        device.qmp.execute("free-page-hint", action="done")
        pages_come_back(guest, free)
        assert device.hints().state == "done"
    assert guest.resident() >= before - MIB, "hinted pages were discarded"
    assert data.damaged() == []


def test_hints_that_are_stopped(bed: Bed) -> None:
    device, guest = bed.pair()
    bed.harmless.add("hint-id")  # the driver begins with a command that is stopped already
    free = guest.free_memory()
    for _ in range(5):
        device.qmp.execute("free-page-hint", action="start")
        with contextlib.suppress(QmpError):  # refused, unless the guest is through already
            device.qmp.execute("free-page-hint", action="start")
        device.qmp.execute("free-page-hint", action="stop")
        device.qmp.execute("free-page-hint", action="done")
        pages_come_back(guest, free)
    # The next command is served as if nothing had been.
    start_hinting(device)
    assert len(device.hints().pages) * PAGE > 0.5 * free
    device.qmp.execute("free-page-hint", action="done")


def test_hints_and_an_upgrade(bed: Bed) -> None:
    """The file stays where it is, and what is in it."""
    device, guest = bed.pair()
    start_hinting(device)
    before, path = device.hints(), device.qmp.execute("query-free-page-hint")["path"]
    device.kill_worker()
    assert device.again(device.hints) == before and before.pages
    assert device.qmp.execute("query-free-page-hint")["path"] == path
    device.qmp.execute("free-page-hint", action="done")
    assert guest.check("echo alive") == "alive\n"


@ONCE
def test_inhibited_the_balloon_keeps_its_memory(bed: Bed) -> None:
    # A kernel that clears free memory has all of it on the host from its boot on: what a balloon
    # gives up then is as much as it holds.
    device, guest = bed.pair(kernel_options=("init_on_free=1",))
    fill_and_clear(guest, 160 * MIB)
    before = guest.resident()
    for reason in ("snapshot", "vfio"):
        device.qmp.execute("balloon-inhibit", reason=reason)
    device.inflate_to(96 * MIB)
    state = device.query()
    assert guest.resident() > before - 4 * MIB
    assert (state["inflated"], state["freed"], state["kept"]) == (96 * MIB, 0, 96 * MIB)
    device.inflate_to(64 * MIB)
    device.qmp.execute("balloon-uninhibit", reason="vfio")
    device.kill_worker()
    assert device.again(device.query)["inhibitors"] == ["snapshot"]
    assert guest.resident() > before - 4 * MIB
    device.qmp.execute("balloon-uninhibit", reason="snapshot")
    device.wait_for("discarded pages", lambda _: guest.resident() < before - 0.95 * 64 * MIB)
    assert guest.resident() > before - 68 * MIB, "pages went that it does not hold"
    data = GuestData(guest)
    data.write(96 * MIB)
    assert data.damaged() == []
    device.inflate_to(0)


@ONCE
@together
def test_inhibited_reports_are_only_counted(bed: Bed) -> None:
    device, guest = bed.pair(reporting=True, memory=ROOM)
    device.qmp.execute("balloon-inhibit", reason="post-copy")
    data = GuestData(guest)
    data.write(64 * MIB)
    full, before = guest.resident(), device.query()
    data.clear()
    device.wait_for("reported pages", lambda now:
                    now["reported"] >= before["reported"] + 48 * MIB, 60)
    state = device.query()
    assert state["kept"] - before["kept"] >= 48 * MIB and state["freed"] == before["freed"]
    assert guest.resident() >= full - MIB
