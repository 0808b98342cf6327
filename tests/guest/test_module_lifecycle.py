# SPDX-License-Identifier: MIT
"""Our Linux driver comes and goes, is suspended, loses its host, and leaves nothing behind.

The driver's freeze and restore are not called on user-mode-linux, whose transport has no power
management of its own: a suspended guest keeps its device as it was. They are for QEMU's guests."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from conftest import Bed
from in_guest import Program, is_loaded, stuck_tasks
from test_guest_push import arrivals
from test_module_push import number
from together import together
from vmm import Device, Guest, GuestData, GuestError
from vmm.guest import MIB, PAGE

pytestmark = [pytest.mark.driver("aerostat", reason="by the counters of our driver"),
              pytest.mark.vmm("uml", reason="by signals to its processes")]

EVERYTHING = ("--stats-push-interval=10",)
GIVES_WAY = (*EVERYTHING, "--on-pressure=deflate", "--pressure-steps=8M,16M,32M")
#: rmmod with a host that is dead or deaf: it waits for that a little, and not for ever.
BOUND = 30.0


def free_again(guest: Guest, before: dict[str, int]) -> None:
    """The guest has all of its memory, but for what its kernel keeps in caches."""
    deadline = time.monotonic() + 20
    while True:
        now = guest.meminfo()
        if now["MemTotal"] == before["MemTotal"] and now["MemFree"] > before["MemFree"] - 4 * MIB:
            return
        assert time.monotonic() < deadline, (before["MemFree"], now["MemFree"])
        time.sleep(0.1)


def plain(guest: Guest) -> dict[str, int]:
    """Its memory before there was a driver."""
    guest.check("insmod /lib/modules/aerostat/virtio_balloon.ko && rmmod virtio_balloon; "
                "echo 3 >/proc/sys/vm/drop_caches")
    return guest.meminfo()


COME_AND_GO = """{{
i=0
while [ $i -lt {times} ]; do
    insmod /lib/modules/aerostat/virtio_balloon.ko || echo no-insmod
    usleep $(((i * 7919) % 47000))
    rmmod virtio_balloon || echo no-rmmod
    i=$((i + 1))
done
echo $i times
}}"""


def test_two_hundred_times_under_load(bed: Bed) -> None:
    """The target moves, statistics are pushed, and a hog makes messages, whatever is loaded."""
    device = bed.device("--features=no-page-reporting,stats-push,message", *GIVES_WAY)
    guest, times = bed.guest(device), 60 if bed.platform.brief else 200
    data = GuestData(guest)
    data.write(48 * MIB)
    data.thin_out()
    before = plain(guest)
    hogs = Program(guest, "while [ ! -e /run/enough ]; do "
                          "(hog 110 1024 1 & sleep 1; kill $!); done")
    load = Program(guest, COME_AND_GO.format(times=times))
    dice, begun = random.Random(1), time.monotonic()
    while load.status() is None:
        assert time.monotonic() - begun < 120, load.output()
        for _ in range(20):
            # What is in the balloon is never more than the data and the hog leave.
            device.qmp.execute("balloon", value=(256 - dice.choice([0, 8, 32, 64, 96])) * MIB)
            time.sleep(dice.choice([0, 0.002, 0.01, 0.03]))
        device.qmp.events.clear()
    assert load.output().split() == [str(times), "times"], load.output()
    guest.check("touch /run/enough")
    hogs.wait()
    state = device.query()
    print(f"{times} times in {time.monotonic() - begun:.1f} s, {state['inflated'] // MIB} MiB in "
          f"and {state['deflated'] // MIB} out, {state['pressure']['messages']}")
    assert state["held"] == 0 and state["inflated"] > times * 2 * MIB
    assert state["inflated"] == state["deflated"], "each page was handed back in order"
    guest.check("echo 3 >/proc/sys/vm/drop_caches")
    free_again(guest, before)
    assert guest.vmstat()["oom_kill"] == 0 and data.damaged() == []
    guest.load_balloon()
    device.inflate_to(64 * MIB)
    assert guest.counters()["timeouts"] == 0


def test_a_target_that_oscillates_at_full_speed(bed: Bed) -> None:
    device, guest = bed.pair(*EVERYTHING, push_and_messages=True)
    data = GuestData(guest)
    data.write(48 * MIB)
    data.thin_out()
    memory, changes, dice = device.memory(), 0, random.Random(4)
    until = time.monotonic() + 6
    while time.monotonic() < until:
        for _ in range(50):
            device.qmp.execute("balloon", value=memory - dice.choice([0, 1, 64, 128]) * MIB)
            changes += 1
        device.qmp.events.clear()
        time.sleep(dice.choice([0, 0.001, 0.01]))
    device.inflate_to(96 * MIB)
    state, counters = device.query(), guest.counters()
    print(f"{changes} changes, {state['inflated'] // MIB} MiB in, {state['deflated'] // MIB} out")
    # Both have counted every page the same.
    released = sum(number(counters, f"released_{cause}") for cause in ("target", "oom", "close"))
    assert number(counters, "inflated") + number(counters, "migrated") == state["inflated"] // PAGE
    assert released + number(counters, "migrated") == state["deflated"] // PAGE
    assert counters["held"] == counters["actual"] == counters["target"] == 96 * MIB // PAGE
    assert changes > 1000 and counters["timeouts"] == 0
    assert data.damaged() == []


@contextlib.contextmanager
def suspended(guest: Guest) -> Iterator[None]:
    """The guest suspends about when this begins, unless the host wants something of it, and is
    awake at the end."""
    pid = guest.pid  # type: ignore[attr-defined]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        command = pool.submit(guest.run, "echo freeze >/sys/power/state; echo awake")
        try:
            yield
        finally:
            # One that finds it awake, or not quite asleep, does nothing.
            while not command.done():
                os.kill(pid, signal.SIGUSR1)
                time.sleep(0.1)
    assert command.result().text.endswith("awake\n")


@together
def test_suspend_while_it_pushes(bed: Bed) -> None:
    device, guest = bed.pair("--stats-push-interval=50", push_and_messages=True, memory=96 * MIB)
    device.inflate_to(32 * MIB)
    for _ in range(3):
        arrivals(device, 3)
        with suspended(guest):
            device.wait_for("silence", lambda _: device.guest_stats()["age-ms"] > 1500)
        # No burst of what was missed, and it goes on.
        times = arrivals(device, 10)
        assert 0.3 < times[9] - times[0] < 3, times
    assert guest.counters()["held"] == 32 * MIB // PAGE
    device.inflate_to(48 * MIB)
    device.inflate_to(0)


@together
def test_suspend_in_the_middle_of_an_inflation(bed: Bed) -> None:
    device, guest = bed.pair(push_and_messages=True, memory=256 * MIB)
    data = GuestData(guest)
    data.write(32 * MIB)
    dice = random.Random(5)
    for size in (160, 16, 144, 0, 152, 8):
        with suspended(guest):
            time.sleep(dice.choice([0, 0.01, 0.05]))
            device.set_balloon(size * MIB)
            time.sleep(0.5)
        # What the device says to a guest that sleeps this transport does not hear: said again.
        device.set_balloon((size + 1) * MIB)
        device.inflate_to(size * MIB)
        assert data.damaged() == []


@pytest.mark.parametrize("how", ["poweroff", "reboot"])
def test_the_end_of_a_guest_with_work_at_hand(bed: Bed, how: str) -> None:
    """Pushing, inflating and under pressure."""
    device, guest = bed.pair(*GIVES_WAY, push_and_messages=True)
    GuestData(guest).write(16 * MIB)
    device.inflate_to(96 * MIB)
    Program(guest, "hog 110 256 1")
    begun = time.monotonic()
    guest.run(f"(sleep 0.4; {how} -f) >/dev/null 2>&1 &")
    device.set_balloon(176 * MIB)
    device.qmp.wait_event("VMM_DISCONNECTED", 15)
    took = time.monotonic() - begun
    assert took < 8, "it waits for what it does not need"
    assert device.query()["held"] == 0
    if how == "poweroff":
        return
    device.qmp.wait_event("VMM_CONNECTED", 60)
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(GuestError):
            if guest.run("echo alive", timeout=2).text == "alive\n":
                break
        assert time.monotonic() < deadline, guest.console()
    guest.load_balloon()
    device.wait_for("the target", lambda now: now["held"] == now["actual"] == now["target"] > 0)
    arrivals(device, 3)


def busy_pair(bed: Bed) -> tuple[Device, Guest, GuestData, dict[str, int]]:
    """A guest with everything under way, and what it had before."""
    device = bed.device("--features=stats-push,message", *EVERYTHING)
    guest = bed.guest(device, memory=384 * MIB)
    data = GuestData(guest)
    data.write(48 * MIB)
    data.thin_out()
    before = plain(guest)
    guest.load_balloon()
    device.inflate_to(96 * MIB)
    device.qmp.execute("free-page-hint", action="start")
    return device, guest, data, before


def no_task_is_stuck(guest: Guest) -> None:
    """A task may be seen at a moment when it waits; one that hangs is there each time."""
    seen = set(stuck_tasks(guest))
    for _ in range(5):
        time.sleep(0.2)
        seen &= set(stuck_tasks(guest))
    assert not seen


def killed_at_work(bed: Bed, size: int) -> None:
    """No task hangs, the driver lets itself be removed, and the guest has all its memory again."""
    device, guest, data, before = busy_pair(bed)
    bed.forget(device)
    worker = device.worker()
    device.set_balloon(size * MIB)
    time.sleep(0.004)
    os.kill(device.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    time.sleep(6)
    no_task_is_stuck(guest)
    assert data.damaged() == []
    began = time.monotonic()
    guest.run("rmmod virtio_balloon", timeout=BOUND)
    print(f"rmmod: {time.monotonic() - began:.1f} s")
    assert not is_loaded(guest)
    no_task_is_stuck(guest)
    guest.check("echo 3 >/proc/sys/vm/drop_caches")
    free_again(guest, before)
    assert data.damaged() == []


@together
def test_device_killed_while_the_guest_inflates(bed: Bed) -> None:
    killed_at_work(bed, 192)


@together
def test_device_killed_while_the_guest_deflates(bed: Bed) -> None:
    killed_at_work(bed, 16)


def deaf_at_work(bed: Bed, size: int) -> None:
    """All its processes are stopped, so it is alive and says nothing; then it has it all to do.
    (A message of user-mode-linux to the device stops the guest until it is answered, so nothing
    is unloaded meanwhile.)"""
    device, guest, data, before = busy_pair(bed)
    pids = [device.worker(), device.pid]
    device.set_balloon(size * MIB)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(7)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)
    no_task_is_stuck(guest)
    device.wait_for("the size", lambda now: now["actual"] == now["held"] == size * MIB)
    assert guest.counters()["held"] == size * MIB // PAGE
    assert data.damaged() == []
    began = time.monotonic()
    guest.unload_balloon()
    assert time.monotonic() - began < 10
    device.wait_for("nothing", lambda now: now["held"] == 0)
    guest.check("echo 3 >/proc/sys/vm/drop_caches")
    free_again(guest, before)
    assert data.damaged() == []


@together
def test_device_deaf_while_the_guest_inflates(bed: Bed) -> None:
    deaf_at_work(bed, 192)


@together
def test_device_deaf_while_the_guest_deflates(bed: Bed) -> None:
    deaf_at_work(bed, 16)
