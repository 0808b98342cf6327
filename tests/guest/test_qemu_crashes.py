# SPDX-License-Identifier: MIT
"""What ends QEMU 11.1, and that our device does not do it (docs/vmm-support.md, "What ends QEMU").

It dies when it is told of a change of the configuration while the rings are not started, and when
its device goes away. So here the configuration changes, and workers die, at all times at which the
rings are not started; a machine that is still there afterwards has not been told.
"""

from __future__ import annotations

import contextlib
import pathlib
import time

import pytest

from conftest import Bed
from documented import DocumentedGuest, words
from vmm import Device, QemuGuest
from vmm.guest import MIB

pytestmark = [pytest.mark.vmm("qemu", reason="it is about QEMU"),
              pytest.mark.driver("stock", reason="it is about the VMM"),
              pytest.mark.once(reason="it is about the VMM")]


@pytest.fixture
def pair(bed: Bed) -> tuple[Device, QemuGuest]:
    """A guest with no driver loaded."""
    device = bed.device("--features=no-page-reporting")
    return device, bed.qemu_guest(device=device)


def change(device: Device, guest: QemuGuest | DocumentedGuest, size: int) -> None:
    """Set the target, which is part of the configuration: to something else before."""
    for other in (8 * MIB, 0):
        device.qmp.execute("balloon", value=guest.memory - size - other)


def alive(guest: QemuGuest | DocumentedGuest) -> None:
    """A signal takes a moment: what QEMU answers after that, it answers alive."""
    time.sleep(0.3)
    with contextlib.suppress(ConnectionError):
        guest.monitor.execute("query-status")
    assert guest.running(), guest.console()


def reaches(device: Device, size: int) -> None:
    device.again(lambda: device.wait_for(
        f"{size} bytes", lambda now: now["actual"] == now["held"] == size))


def test_changes_while_there_is_no_driver(pair: tuple[Device, QemuGuest]) -> None:
    device, guest = pair
    for size in (16 * MIB, 32 * MIB):
        change(device, guest, size)
        alive(guest)
        guest.load_balloon()
        reaches(device, size)
        guest.unload_balloon()
        change(device, guest, 0)
        alive(guest)
    guest.check("true")


def test_changes_while_the_machine_is_stopped(pair: tuple[Device, QemuGuest]) -> None:
    device, guest = pair
    guest.load_balloon()
    for size in (16 * MIB, 48 * MIB, 0):
        guest.stop_machine()
        time.sleep(0.1)
        for step in (1, 2, 3):
            change(device, guest, step * 4 * MIB)
        change(device, guest, size)
        alive(guest)
        guest.continue_machine()
        reaches(device, size)


def test_changes_during_a_reset(bed: Bed, workdir: pathlib.Path) -> None:
    """From when the rings have stopped until the guest is there again. Not before: what QEMU has
    not read when it stops them ends it, and no back end can take that back (docs/vmm-support.md).
    On the other kind of machine, for once."""
    device = bed.device("--features=no-page-reporting")
    command = [word.replace("4G", "512M").replace("q35,", "pc,") for word in words("qemu")]
    with DocumentedGuest(bed.platform, workdir, device, command, 512 * MIB) as guest:
        guest.load_balloon()
        for by_itself in (False, True):
            device.inflate_to(64 * MIB)
            # The firmware resets once more after the first: such an event would be taken for the
            # next one, and changes begin while the rings still run.
            guest.monitor.execute("query-status")
            guest.monitor.events.clear()
            if by_itself:
                guest.run("(usleep 200000; reboot -f) >/dev/null 2>&1 </dev/null &")
            else:
                guest.monitor.execute("system_reset")
            guest.monitor.wait_event("RESET")
            deadline, count = time.monotonic() + 2, 0
            while time.monotonic() < deadline:
                count += 1
                change(device, guest, (count % 8) * 4 * MIB)
            alive(guest)
            guest.wait_booted()
            change(device, guest, 32 * MIB)
            guest.load_balloon()
            reaches(device, 32 * MIB)
            assert count > 20


def test_a_worker_that_dies_while_the_rings_are_not_started(
        pair: tuple[Device, QemuGuest]) -> None:
    """QEMU sees one device process, which is the parent."""
    device, guest = pair
    device.kill_worker()
    alive(guest)
    device.again(lambda: change(device, guest, 16 * MIB))
    guest.load_balloon()
    reaches(device, 16 * MIB)
    guest.stop_machine()
    device.kill_worker()
    alive(guest)
    device.again(lambda: change(device, guest, 32 * MIB))
    guest.continue_machine()
    reaches(device, 32 * MIB)
    guest.unload_balloon()
    device.kill_worker()
    alive(guest)
    guest.load_balloon()
    reaches(device, 32 * MIB)
