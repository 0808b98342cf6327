# SPDX-License-Identifier: MIT
"""What docs/vmm-support.md says is true: its command lines are started, and do what it says.

Nothing here depends on the guest's kernel or driver, so one driver is enough.
"""

from __future__ import annotations

import json
import pathlib
import shlex

import pytest

from conftest import Bed
from documented import (DEVICE_MONITOR, ROOT, SOCKET, DocumentedGuest, DocumentedUmlGuest, block,
                        tell, words)
from vmm import Device, GuestData, QmpError
from vmm.guest import MIB

GIB = 1 << 30
LEAST_WITH_A_HOLE = "2816M"  # q35 puts what is beyond 2 GiB above 4 GiB then, and else nothing
KINDS = {"K": 1 << 10, "M": MIB, "G": GIB}

on_qemu = pytest.mark.vmm("qemu", reason="it is about QEMU")
on_uml = pytest.mark.vmm("uml", reason="it is about user-mode-linux")
pytestmark = [pytest.mark.driver("stock", reason="it is about the VMM"),
              pytest.mark.once(reason="it is about the VMM")]


def size(text: str) -> int:
    return int(text[:-1]) * KINDS[text[-1]]


def with_memory(command: list[str], memory: str) -> list[str]:
    """The command of a machine that has so much, "1G", and not what the document has."""
    documented = command[command.index("-m") + 1]
    return [word.replace(documented, memory) for word in command]


def documented_device(bed: Bed) -> Device:
    """Started with the document's options."""
    command = words("device")
    paths = [f"--socket-path={SOCKET}", f"--qmp={DEVICE_MONITOR}"]
    assert command[0] == "vhost-user-balloon" and set(paths) < set(command)
    return bed.device("--features=no-page-reporting",
                      *(word for word in command[1:] if word not in paths))


def touch_and_free(guest: DocumentedGuest, count: int) -> None:
    """Make the guest use so many MiB and let go of them: the host has them, nobody needs them."""
    guest.check(f"dd if=/dev/zero of=/data/touched bs=1M count={count} && rm /data/touched", 180)


@on_qemu
def test_the_command_line_for_qemu(bed: Bed, workdir: pathlib.Path) -> None:
    device = documented_device(bed)
    command = words("qemu")
    # More than there is above the hole that machines have under 4 GiB, which Linux takes first; and
    # in the machine that is documented also more than there is below it.
    memory, most = size(command[command.index("-m") + 1]), 2 * GIB + 256 * MIB
    if bed.platform.brief:
        command, memory = with_memory(command, LEAST_WITH_A_HOLE), size(LEAST_WITH_A_HOLE)
        most = memory - 2 * GIB + 96 * MIB
    with DocumentedGuest(bed.platform, workdir, device, command, memory) as guest:
        guest.load_balloon()
        assert device.memory() == memory
        data = GuestData(guest)
        data.write(32 * MIB)
        touch_and_free(guest, 256)
        full = guest.resident()
        device.inflate_to(most, 120)
        assert guest.resident() < full - 200 * MIB
        device.inflate_to(0, 60)
        assert data.damaged() == []
        not_qemus_own(guest)
        # As for saving it:
        blocked = guest.monitor.execute("query-migrate")["blocked-reasons"]
        assert len(blocked) == 1 and "vhost-user-test-device" in blocked[0]
        with pytest.raises(QmpError, match="non-migratable"):
            guest.monitor.execute("migrate", uri="file:state")
        said = guest.monitor.execute("human-monitor-command", command_line="savevm x")
        assert "non-migratable" in said


def not_qemus_own(guest: DocumentedGuest) -> None:
    """QEMU's monitor, and so all that asks it, knows of no balloon."""
    with pytest.raises(QmpError, match="DeviceNotActive"):
        guest.monitor.execute("query-balloon")
    with pytest.raises(QmpError, match="DeviceNotActive"):
        guest.monitor.execute("balloon", value=GIB)


def plug(guest: DocumentedGuest, device: Device) -> None:
    tell(guest.monitor, "plug", device.socket)
    device.wait_for("a guest", lambda state: bool(state["queues"]))


@on_qemu
def test_plugged_and_unplugged_at_run_time(bed: Bed, workdir: pathlib.Path) -> None:
    device = documented_device(bed)
    command = words("qemu")
    first = next(index for index, word in enumerate(command) if SOCKET in word) - 1
    assert command[first] == "-chardev" and command[first + 2] == "-device"
    del command[first:first + 4]
    more = words("qemu-plug")
    place = command.index("-m") + 1
    command, memory = with_memory(command, "1G"), GIB  # to be quicker
    command[place:place + 1] = [f"{command[place]},{more[1]}"]
    command += more[2:]
    with DocumentedGuest(bed.platform, workdir, device, command, memory, 1) as guest:
        guest.check(f"insmod /lib/modules/{guest.driver}/virtio_balloon.ko")
        plug(guest, device)
        data = GuestData(guest)
        data.write(32 * MIB)
        device.inflate_to(512 * MIB, 120)
        # Memory that comes while the balloon is full becomes part of what it may take.
        plugged = [json.loads(line)["arguments"] for line in block("memory").splitlines()]
        dimm = int(plugged[0]["size"])
        tell(guest.monitor, "memory", device.socket)
        guest.check(f"""tries=0
            until [ $(awk '/^MemTotal/ {{ print $2 }}' /proc/meminfo) -gt {dimm // 1024} ]; do
                for state in /sys/devices/system/memory/memory*/state; do
                    echo online_movable >$state 2>/dev/null
                done
                usleep 100000; [ $((tries += 1)) -lt 300 ] || exit 1
            done""")
        assert device.memory() == memory + dimm
        device.inflate_to(memory + 128 * MIB, 120)
        assert data.damaged() == []
        device.inflate_to(256 * MIB, 60)
        tell(guest.monitor, "unplug", device.socket)
        # The guest has its pages again, the device knows it, and may be given the guest again.
        device.wait_for("no balloon", lambda state: state["actual"] == state["held"] == 0)
        while "device" not in guest.monitor.wait_event("DEVICE_DELETED"):
            pass  # what is inside of it goes first, and has no name
        tell(guest.monitor, "unplugged", device.socket)
        assert guest.monitor.execute("query-migrate") == {}
        plug(guest, device)
        device.wait_for("its target", lambda state: state["held"] == 256 * MIB)
        assert data.damaged() == []


@on_uml
def test_the_command_line_for_user_mode_linux(bed: Bed, workdir: pathlib.Path) -> None:
    device = documented_device(bed)
    memory = next(size(word[4:]) for word in words("user-mode-linux") if word.startswith("mem="))
    with DocumentedUmlGuest(bed.platform, workdir, device, memory) as guest:
        guest.load_balloon()
        device.inflate_to(64 * MIB)
        device.inflate_to(0)


@on_uml
def test_the_readme_agrees() -> None:
    """No guest is needed for that; it runs where all tests run."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    options = next(word for word in words("qemu") if word.startswith("vhost-user-test-device-pci"))
    rest = [part for part in options.split(",") if not part.startswith(("id=", "chardev="))]
    lines = [line for line in readme.splitlines() if "-device vhost-user" in line]
    assert lines and "docs/vmm-support.md" in readme
    for line in lines:
        words_there = shlex.split(line)
        told = words_there[words_there.index("-device") + 1].split(",")
        assert [part for part in told if not part.startswith(("id=", "chardev="))] == rest
