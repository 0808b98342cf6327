# SPDX-License-Identifier: MIT
"""What a front end does to move a device's state (vhost-user specification, "Migrating back-end
state")."""

from __future__ import annotations

import fcntl
import os
import select
from typing import Optional

from balloon import PAGE, Guest
from process import Device
from state_stream import Stream, decode
from vhost_user import LOAD, SAVE, TIMEOUT, FrontEnd, Region, Req, u64

# In which order the front end of the destination does things.
ORDERS = ["state-first", "memory-first", "rings-first"]
F_SETPIPE_SZ = 1031


def read_end(fd: int) -> bytes:
    """All that comes until the other side closes; closes too."""
    data = b""
    while True:
        assert select.select([fd], [], [], TIMEOUT)[0], "the stream does not end"
        part = os.read(fd, 65536)
        if not part:
            os.close(fd)
            return data
        data += part


def save(guest: Guest) -> bytes:
    """The state of the device, whose rings are stopped."""
    ours, theirs = os.pipe()
    assert guest.fe.device_state(SAVE, theirs)
    os.close(theirs)
    data = read_end(ours)
    assert guest.fe.check_state()
    return data


def load(fe: FrontEnd, data: bytes) -> bool:
    """Gives the device a state; true if it says that it has it."""
    theirs, ours = os.pipe()
    assert fe.device_state(LOAD, theirs)
    os.close(theirs)
    try:
        os.write(ours, data)
    except BrokenPipeError:
        pass  # it has seen enough
    os.close(ours)
    return fe.check_state()


def set_up(guest: Guest, bases: dict[int, int]) -> None:
    """All that comes before ENABLE."""
    guest.fe.tell(Req.SET_FEATURES, u64(guest.features))
    guest.send_memory()
    for index in guest.queue_numbers():
        guest.start_queue(index, bases[index])


def arrive(guest: Guest, bases: dict[int, int], data: bytes, order: str = "state-first") -> None:
    """The front end of the destination. QEMU loads the state before anything else."""
    if order == "state-first":
        assert load(guest.fe, data)
        guest.cont(bases)
        return
    if order == "memory-first":
        guest.fe.tell(Req.SET_FEATURES, u64(guest.features))
        guest.send_memory()
        assert load(guest.fe, data)
        guest.cont(bases)
        return
    set_up(guest, bases)
    assert load(guest.fe, data)
    guest.enable(*guest.queues)


def migrate(source: Device, target: Device, guest: Guest, order: str = "state-first",
            regions: Optional[list[Region]] = None) -> Stream:
    """Moves the guest; what its state was."""
    bases = guest.stop()
    data = save(guest)
    source.open.remove(guest)
    target.open.append(guest)
    guest.move(target.sock, regions)
    arrive(guest, bases, data, order)
    return decode(data)


def gone(guest: Guest) -> bool:
    """True if the host holds none of the pages that are in the balloon."""
    return all(not any(guest.mem.read(pfn * PAGE, PAGE)) for pfn in guest.ballooned)


def full_pipe() -> tuple[int, int]:
    """A pipe that takes nothing more: its ends, and our half of it does not block."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, F_SETPIPE_SZ, 4096)
    os.write(theirs, bytes(4096))
    return ours, theirs
