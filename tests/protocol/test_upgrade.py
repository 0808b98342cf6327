# SPDX-License-Identifier: MIT
"""SIGHUP: another program takes over under a guest that does not notice; and one that is no good
is given up for the one before."""

from __future__ import annotations

import os
import platform
import random
import shutil
import signal
import struct
import threading
import time
from pathlib import Path
from typing import Callable

import pytest

from balloon import DEFLATE, INFLATE, PAGE, Guest, stat
from process import BINARY, Device
from qmp import Client
from vhost_user import (HEADER, NEED_REPLY, SAVE, VERSION, DirtyLog, Req, config, u64, wait_for)

Spawn = Callable[..., Device]


def upgrade(device: Device) -> None:
    device.process.send_signal(signal.SIGHUP)


def upgraded(device: Device) -> int:
    """SIGHUP, and the process id of the worker that came of it."""
    old = device.worker()
    upgrade(device)
    return device.replaced(old)


def install(source: str, place: Path) -> int:
    """As package managers do it: a new file takes the name of the old one. Its inode."""
    fresh = place.with_suffix(".new")
    shutil.copy(source, fresh)
    os.rename(fresh, place)
    return os.stat(place).st_ino


def inode(pid: int) -> int:
    """Of the program that a process runs; 0 if it has just ended."""
    try:
        return os.stat(f"/proc/{pid}/exe").st_ino
    except FileNotFoundError:
        return 0


@pytest.fixture(name="place")
def installed(tmp_path: Path) -> Path:
    place = tmp_path / "vhost-user-balloon"
    install(BINARY, place)
    return place


class Work:
    """A guest that does everything there is while its device is replaced; it counts along."""

    def __init__(self, device: Device, **kwargs: object) -> None:
        self.device = device
        self.guest: Guest = device.guest(**kwargs)
        self.guest.give_stats(stat(4, 0))
        self.inflated = self.deflated = self.messages = self.asked = 0

    def step(self, turn: int) -> None:
        guest = self.guest
        pages = guest.some_pages(40, seed=turn)
        for at in range(0, 40, 8):
            guest.inflate(pages[at:at + 8])
        self.inflated += 40
        batch = b""
        for value in range(5):
            self.messages += 1
            payload = config(0, struct.pack("<II", 0, self.messages % 1000))
            batch += HEADER.pack(Req.SET_CONFIG, VERSION | NEED_REPLY, len(payload)) + payload
            payload = config(4, bytes(4))
            batch += HEADER.pack(Req.GET_CONFIG, VERSION, len(payload)) + payload
        guest.fe.send_raw(batch)
        back = sorted(guest.ballooned)[:35 if len(guest.ballooned) < 500 else 500]
        guest.deflate(back)
        self.deflated += len(back)
        for value in range(self.messages - 4, self.messages + 1):
            assert guest.fe.receive_reply(Req.SET_CONFIG) == u64(0)
            assert (
                struct.unpack("<I", guest.fe.receive_reply(Req.GET_CONFIG)[-4:])[0] == value % 1000)
        assert guest.queues[INFLATE].ring.used() is None, "returned twice"
        assert guest.queues[DEFLATE].ring.used() is None, "returned twice"

    def check(self, monitor: Client) -> None:
        """Nothing was lost, done twice, or discarded."""
        self.guest.check()
        told = monitor.device()
        assert told["held"] == len(self.guest.ballooned) * PAGE
        assert told["inflated"] == self.inflated * PAGE
        assert told["deflated"] == self.deflated * PAGE
        assert told["actual"] == self.messages % 1000 * PAGE
        assert not any(told["driver-errors"].values())
        assert not self.guest.stats_wanted(0), "statistics returned without being asked"
        monitor.cmd("refresh-balloon-stats")
        assert self.guest.stats_wanted()
        self.guest.give_stats(stat(4, self.messages))


@pytest.mark.parametrize("packed", [False, True])
def test_the_same_program_under_load(device: Device, monitor: Client, packed: bool) -> None:
    work = Work(device, packed=packed, event_idx=packed)
    for turn in range(12):
        upgraded(device)
        work.step(turn)
    work.check(monitor)
    assert monitor.device()["worker-restarts"] == 12
    assert device.stderr().count("the worker is replaced") == 12


def test_storm(device: Device, monitor: Client) -> None:
    """Signals at any moment and faster than anything can start, while everything goes on."""
    work = Work(device)
    stop = threading.Event()
    dice = random.Random(5)

    def storm() -> None:
        while not stop.is_set():
            for _ in range(dice.randrange(1, 30)):
                upgrade(device)
            stop.wait(dice.choice([0, 0.001, 0.01, 0.05]))

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        end = time.monotonic() + 1.5
        turn = 0
        while time.monotonic() < end:
            work.step(turn)
            turn += 1
    finally:
        stop.set()
        thread.join()
    work.step(turn)
    device.close(monitor)
    monitor = device.monitor()
    work.check(monitor)
    assert "died" not in device.stderr()


def test_another_file_at_its_place(spawn: Spawn, place: Path) -> None:
    """The new one runs, also as the successor of one that dies; before the signal the old one
    does, although its file is gone."""
    old = os.stat(place).st_ino
    device = spawn(binary=str(place))
    monitor = device.monitor()
    work = Work(device)
    assert inode(device.worker()) == old
    for turn in range(3):
        new = install(BINARY, place)
        assert new != old
        work.step(3 * turn)
        device.replaced(device.kill_worker())
        monitor.event("DEVICE_RESTARTED")
        assert inode(device.worker()) == old, "replaced without being told to"
        work.step(3 * turn + 1)
        assert inode(upgraded(device)) == new
        assert "replaced" in monitor.event("DEVICE_RESTARTED")["reason"]
        work.step(3 * turn + 2)
        device.replaced(device.kill_worker())
        monitor.event("DEVICE_RESTARTED")
        assert inode(device.worker()) == new
        old = new
    work.check(monitor)


def script(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text)
        path.chmod(0o755)
    return write


def machine(code: str) -> Callable[[Path], None]:
    """A program of some x86-64 instructions, without libraries."""
    def write(path: Path) -> None:
        if platform.machine() != "x86_64":
            pytest.skip("machine code for another processor")
        text, base = bytes.fromhex(code), 0x400000
        head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, base + 120, 64, 0, 0,
                           64, 56, 1, 0, 0, 0)
        load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, 120 + len(text), 120 + len(text), PAGE)
        path.write_bytes(head + load + text)
        path.chmod(0o755)
    return write


PAUSE = "b822000000" "0f05" "ebf7"  # mov $34, %eax; syscall; again
WRITE_3 = "b801000000" "bf03000000" "be00004000" "ba40000000" "0f05"  # 64 bytes of itself
EXIT = "b83c000000" "31ff" "0f05"


def cut(path: Path) -> None:
    shutil.copy(BINARY, path)
    os.truncate(path, 5000)


def not_executable(path: Path) -> None:
    shutil.copy(BINARY, path)
    path.chmod(0o644)


def text_file(path: Path) -> None:
    path.write_text("this is no program\n")
    path.chmod(0o755)


def folder(path: Path) -> None:
    path.mkdir()


BROKEN: dict[str, Callable[[Path], object]] = {
    "not-executable": not_executable, "text": text_file, "cut": cut, "folder": folder,
    "exits": script("#!/bin/false\n"), "no-interpreter": script("#!/nonexistent/interpreter\n"),
    "empty": script(""), "loop": lambda path: path.symlink_to(path), "absent": lambda path: None,
    "other-program": lambda path: shutil.copy("/bin/cat", path), "exits-well": machine(EXIT),
    "crashes": machine("0f0b"), "hangs": machine(PAUSE), "talks": machine(WRITE_3 + PAUSE),
}


@pytest.mark.parametrize("kind", list(BROKEN))
def test_a_program_that_is_no_good(spawn: Spawn, place: Path, kind: str) -> None:
    """The guest goes on in the end; the log says why the new one does not run; and a good one can
    come later."""
    old = os.stat(place).st_ino
    device = spawn(binary=str(place))
    device.may_die = True
    work = Work(device)
    os.rename(place, place.with_suffix(".old"))
    BROKEN[kind](place)
    upgrade(device)
    wait_for(lambda: "SIGHUP" in device.stderr(), "a word in the log")
    work.step(0)
    wait_for(lambda: device.find_worker() and inode(device.worker()) == old, "the old program")
    said = device.stderr()
    assert "the worker stays" in said or "going back to the one before" in said, said
    work.step(1)
    if place.is_dir():
        place.rmdir()
    new = install(BINARY, place)
    assert inode(upgraded(device)) == new
    work.step(2)
    work.check(device.monitor())


def test_broken_and_good_in_turn(spawn: Spawn, place: Path) -> None:
    """Another SIGHUP may come while a bad program is tried, or waits to be: the last one counts."""
    device = spawn(binary=str(place))
    device.may_die = True
    work = Work(device)
    for turn in range(6):
        bad = place.with_suffix(".bad")
        BROKEN["exits" if turn % 2 else "text"](bad)
        os.rename(bad, place)
        upgrade(device)
        time.sleep(0.01 * (turn % 3))
        new = install(BINARY, place)
        upgrade(device)
        work.step(turn)
    wait_for(lambda: device.find_worker() and inode(device.worker()) == new, "the last one")
    work.step(6)
    assert inode(device.worker()) == new
    work.check(device.monitor())


def test_clients_stay(device: Device) -> None:
    """Idle ones are told; one with many answers due has them first, or sees the end."""
    device.guest().give_stats(stat(4, 1))
    idle, asking = device.monitor(), device.monitor()
    for number in range(1, 6):
        for _ in range(50):
            asking.send({"execute": "query-status"})
        upgraded(device)
        assert idle.event("DEVICE_RESTARTED")["restarts"] == number
        try:
            for _ in range(50):
                assert "return" in asking.reply()
        except (EOFError, ConnectionError):
            # It was not done in the time that a worker has for leaving.
            device.close(asking)
            asking = device.monitor()
        assert idle.cmd("query-status")["running"]


def test_during_a_transfer_of_state(device: Device) -> None:
    """The transfer fails, and says so; nothing of it stays open."""
    guest = device.guest()
    pages = guest.some_pages(50)
    guest.inflate(pages)
    bases = guest.stop()
    ours, theirs = os.pipe()
    os.write(theirs, bytes(65536))
    assert guest.fe.device_state(SAVE, theirs)
    os.close(theirs)
    upgraded(device)
    assert not guest.fe.check_state()
    with open(ours, "rb") as file:
        assert len(file.read()) == 65536
    guest.cont(bases)
    guest.deflate(pages)
    guest.check()


def test_with_the_dirty_log(device: Device) -> None:
    guest = device.guest()
    log = DirtyLog()
    guest.log_to(log)
    for _ in range(5):
        upgraded(device)
        guest.num_pages()
        log.clear()
        guest.inflate(guest.some_pages(5))
        guest.num_pages()
        assert log.pages()
    log.close()


def test_together_with_the_end(spawn: Spawn) -> None:
    """An upgrade under way does not keep the program."""
    for pause in (0, 0.002, 0.01, 0.05):
        device = spawn()
        work = Work(device)
        work.step(0)
        upgrade(device)
        time.sleep(pause)
        device.process.terminate()
        upgrade(device)
        device.close()
        device.gone()
        device.kill()


def test_deaths_and_upgrades_mixed(device: Device) -> None:
    device.may_die = True
    work = Work(device)
    dice = random.Random(9)
    for turn in range(15):
        for _ in range(dice.randrange(1, 4)):
            if dice.random() < 0.5:
                upgrade(device)
            else:
                device.kill_worker()
            time.sleep(dice.choice([0, 0, 0.005, 0.03]))
        work.step(turn)
    work.check(device.monitor())
