# SPDX-License-Identifier: MIT
"""The device's two processes as the host sees them, while a real guest is served."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import time

import pytest

from conftest import Bed
from vmm import Device, GuestData
from vmm.guest import MIB

ONCE = pytest.mark.once(reason="it is about the device's processes")

COUNTED = "--features=no-deflate-on-oom"
ANY = "the driver has no part in it"


def proc(pid: int, name: str) -> pathlib.Path:
    return pathlib.Path(f"/proc/{pid}/{name}")


def status(pid: int) -> dict[str, list[str]]:
    """/proc/PID/status: the words behind each name."""
    lines = (line.partition(":") for line in proc(pid, "status").read_text().splitlines())
    return {name: words.split() for name, _, words in lines}


@ONCE
@pytest.mark.driver("stock", reason=ANY)
def test_the_worker_is_confined(bed: Bed) -> None:
    device, guest = bed.pair()
    device.inflate_to(32 * MIB)
    for _ in range(2):  # the first one, and one that took over
        worker = device.worker()
        now = status(worker)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(now[name][0], 16) == 0 or (name == "CapBnd" and os.geteuid()), name
        assert now["NoNewPrivs"] == ["1"] and now["Seccomp"] == ["2"]
        assert set(now["Uid"]).isdisjoint({"0"}) and set(now["Gid"]).isdisjoint({"0"})
        if os.geteuid() == 0:
            assert now["Groups"] == []
            assert os.listdir(proc(worker, "root")) == []
        assert os.readlink(proc(worker, "ns/net")) != os.readlink("/proc/self/ns/net")
        assert os.readlink(proc(worker, "ns/mnt")) != os.readlink("/proc/self/ns/mnt")
        device.kill_worker()
        device.again(lambda: device.inflate_to(64 * MIB))
    assert guest.check("echo alive") == "alive\n"


@ONCE
@pytest.mark.driver("stock", reason=ANY)
def test_what_each_process_has_open(bed: Bed) -> None:
    device, guest = bed.pair()
    memory = os.stat(guest.memory_file())
    held = {}
    for name, pid in (("parent", device.pid), ("worker", device.worker())):
        held[name] = [os.readlink(path) for path in proc(pid, "fd").iterdir()]
        held[f"{name} maps"] = [line for line in proc(pid, "maps").read_text().splitlines()
                                if line.split()[4] == str(memory.st_ino)]
    # The worker has nothing by which something else could be reached.
    kinds = ("socket:", "pipe:", "anon_inode:", "/memfd:", "/dev/null", str(device.log))
    for path in held["worker"]:
        assert path.startswith(kinds) or path.endswith(" (deleted)"), held["worker"]
    # The parent keeps the guest's memory for the next worker, and does not look at it.
    assert held["worker maps"] and not held["parent maps"]


@ONCE
@pytest.mark.driver("stock", reason=ANY)
def test_no_worker_without_its_parent(bed: Bed) -> None:
    device, guest = bed.pair()
    device.inflate_to(16 * MIB)
    worker = device.worker()
    bed.forget(device)
    os.kill(device.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while proc(worker, "exe").exists():
        assert time.monotonic() < deadline, "the worker outlives its parent"
        time.sleep(0.01)
    device.kill()
    guest.kill()


def upgrade(device: Device) -> None:
    old = device.worker()
    os.kill(device.pid, signal.SIGHUP)
    deadline = time.monotonic() + 20
    while device.worker() == old:
        assert time.monotonic() < deadline, "the worker stays"
        time.sleep(0.01)


@ONCE
def test_upgrade_while_memory_moves(bed: Bed, workdir: pathlib.Path) -> None:
    """SIGHUP: another program goes on, and neither guest nor operator notices."""
    program = workdir / "vhost-user-balloon"
    shutil.copy(bed.binary, program)
    device, guest = bed.pair(COUNTED, program=program)
    total = guest.meminfo()["MemTotal"]
    data = GuestData(guest)
    data.write(64 * MIB)
    before = device.inflate_to(64 * MIB)
    for round_ in range(4):
        fresh = workdir / "another"
        shutil.copy(bed.binary, fresh)
        fresh.rename(program)
        device.set_balloon((128, 16)[round_ % 2] * MIB)
        upgrade(device)
        # A client that is not in the middle of a command stays.
        state = device.inflate_to((128, 16)[round_ % 2] * MIB)
        assert os.stat(proc(device.worker(), "exe")).st_ino == program.stat().st_ino
        assert state["inflated"] - state["deflated"] == state["held"]
        assert state["freed"] >= before["freed"]
        assert guest.meminfo()["MemTotal"] == total - state["held"]
        assert data.damaged() == []
    assert device.query()["worker-restarts"] == 4
    device.refresh_stats()


@ONCE
@pytest.mark.driver("stock", reason=ANY)
def test_upgrade_to_a_program_that_does_not_run(bed: Bed, workdir: pathlib.Path) -> None:
    program = workdir / "vhost-user-balloon"
    shutil.copy(bed.binary, program)
    device, _ = bed.pair(program=program)
    device.inflate_to(32 * MIB)
    fresh = workdir / "another"
    fresh.write_text("#!/bin/false\n")
    fresh.chmod(0o755)
    fresh.rename(program)
    os.kill(device.pid, signal.SIGHUP)
    time.sleep(0.1)
    device.again(lambda: device.inflate_to(64 * MIB))
    device.again(device.refresh_stats)
