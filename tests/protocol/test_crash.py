# SPDX-License-Identifier: MIT
"""threats.md 16 and the promise behind it: the worker may die at any moment, and the guest, the
front end and the operator go on as if nothing had happened."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import struct
import threading
import time
from typing import Callable, Iterator

import pytest

from balloon import DEFLATE, INFLATE, MIB, PAGE, STATS, stat
from process import BINARY, Device
from qmp import Client, QMPError
from rings import NEXT, Seg
from vhost_user import (HEADER, NEED_REPLY, VERSION, EventFd, Region, Req, config, one_region,
                        u64, wait_for)

Spawn = Callable[..., Device]


class Killer(threading.Thread):
    """Kills workers at random moments, so many times; most of them after they began to serve."""

    def __init__(self, device: Device, times: int, seed: int) -> None:
        super().__init__()
        device.may_die = True
        self.device, self.times = device, times
        self.dice = random.Random(seed)
        self.give_up = False
        self.killed = 0

    def run(self) -> None:
        last = 0
        while self.killed < self.times and not self.give_up:
            pid = self.device.find_worker()
            if pid in (0, last):
                time.sleep(0.001)
                continue
            # Before it is ready, while it takes over, and at work.
            early = self.dice.random() < 0.2
            time.sleep(self.dice.uniform(0, 0.01) if early else self.dice.uniform(0.05, 0.25))
            try:
                os.kill(pid, signal.SIGKILL)
                self.killed += 1
                last = pid
            except ProcessLookupError:
                pass

    def __enter__(self) -> "Killer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_up = True
        self.join()


def again(device: Device, what: Callable[[Client], object]) -> object:
    """Something that an operator does; who is cut off in the middle of it comes again."""
    while True:
        try:
            client = device.monitor()
            try:
                return what(client)
            finally:
                device.close(client)
        except (EOFError, ConnectionError):
            continue


def seen(device: Device) -> dict:
    return again(device, lambda client: client.device())  # type: ignore[return-value]


@pytest.fixture
def mortal(spawn: Spawn) -> Iterator[Device]:
    """A device that must be as good as new after its worker has died."""
    device = spawn()
    device.may_die = True
    yield device
    device.close()
    device.good_session()


@pytest.mark.parametrize("kind", ["split", "packed", "event-idx", "indirect"])
def test_16_killed_while_inflating(mortal: Device, kind: str) -> None:
    """No buffer is lost or acknowledged twice, nothing is discarded that must not be, and every
    counter is exact."""
    guest = mortal.guest(packed=kind == "packed", event_idx=kind != "split",
                         indirect=kind == "indirect")
    taken = given = buffers = 0
    with Killer(mortal, 60, len(kind)) as killer:
        while killer.killed < killer.times:
            pages = guest.some_pages(500, seed=taken)
            for at in range(0, len(pages), 25):
                guest.inflate(pages[at:at + 25])
                buffers += 1
            taken += len(pages)
            guest.write_actual()
            # Nothing more is returned than was given.
            assert guest.queues[INFLATE].ring.used() is None
            back = random.Random(taken).sample(sorted(guest.ballooned), 400)
            guest.deflate(back)
            given += len(back)
            guest.check()
            if len(guest.ballooned) > 1000:
                given += len(guest.ballooned)
                guest.deflate(sorted(guest.ballooned))
    told = seen(mortal)
    assert told["held"] == len(guest.ballooned) * PAGE
    assert told["inflated"] == taken * PAGE and told["deflated"] == given * PAGE
    assert told["queues"][0]["buffers"] == buffers
    assert not any(told["driver-errors"].values())
    assert 0 < told["worker-restarts"] <= killer.killed
    guest.check()


def test_16_killed_in_a_long_buffer(mortal: Device) -> None:
    """A buffer that takes many turns is gone on with, not begun again."""
    guest = mortal.guest(size=256)
    pages = guest.pages()
    data = guest.buffer(b"".join(struct.pack("<I", pfn) for pfn in pages[:1024]))
    queue = guest.queues[INFLATE]
    guest.ballooned.update(pages[:1024])
    for round_ in range(6):
        for index in range(256):  # the same page numbers again and again
            queue.ring.set_desc(index, Seg(data, 4080, NEXT if index < 255 else 0, index + 1))
        before = seen(mortal)["queues"][0]["buffers"]
        queue.ring.publish(0)
        queue.kick.signal()
        for _ in range(round_):
            time.sleep(0.02)
            mortal.kill_worker()
        wait_for(lambda: seen(mortal)["queues"][0]["buffers"] == before + 1, "the buffer served")
        assert queue.ring.mem.r16(queue.ring.device + 2) == round_ + 1
    assert seen(mortal)["held"] == 1020 * PAGE
    guest.check()


def test_16_killed_between_statistics(mortal: Device) -> None:
    """The one buffer is at the device or at the driver, always, and each request is answered."""
    guest = mortal.guest()
    guest.give_stats(stat(4, 0))
    asked = 0
    with Killer(mortal, 40, 1) as killer:
        while killer.killed < killer.times:
            again(mortal, lambda client: client.cmd("refresh-balloon-stats"))
            assert guest.stats_wanted(), "a request was lost"
            asked += 1
            guest.give_stats(stat(4, asked))
    wait_for(lambda: again(mortal, lambda client: client.get("guest-stats"))
             ["stats"].get("stat-free-memory") == asked, "the last figures")  # type: ignore[index]
    assert guest.queues[STATS].next_used(0.2) is None, "returned without being asked"
    assert not any(seen(mortal)["driver-errors"].values())


def test_16_killed_between_messages(mortal: Device) -> None:
    """Each message is handled once and answered once, in order."""
    guest = mortal.guest()
    fe = guest.fe
    fe.tell(Req.SET_PROTOCOL_FEATURES, u64(guest.proto))
    count = 0
    with Killer(mortal, 40, 2) as killer:
        while killer.killed < killer.times:
            batch = b""
            for _ in range(10):
                count += 1
                payload = config(0, struct.pack("<II", 0, count))
                batch += HEADER.pack(Req.SET_CONFIG, VERSION | NEED_REPLY, len(payload)) + payload
                payload = config(4, bytes(4))
                batch += HEADER.pack(Req.GET_CONFIG, VERSION, len(payload)) + payload
            fe.send_raw(batch)
            for number in range(count - 9, count + 1):
                assert fe.receive_reply(Req.SET_CONFIG) == u64(0)
                reply = fe.receive_reply(Req.GET_CONFIG)
                assert struct.unpack("<I", reply[-4:])[0] == number
    assert not select.select([fe.sock], [], [], 0.2)[0], "one reply too many"
    assert seen(mortal)["actual"] == count * PAGE


def test_16_killed_while_memory_comes_and_goes(mortal: Device) -> None:
    """What is held survives a change of the table that is cut short, and no descriptor is lost."""
    regions = [Region(16 * MIB, 4 * MIB), Region(64 * MIB, 2 * MIB)]
    guest = mortal.guest(regions=regions)
    more = Region(256 * MIB, 2 * MIB)
    pages = guest.some_pages(200)
    guest.inflate(pages)
    before = mortal.fds()
    try:
        with Killer(mortal, 30, 3) as killer:
            while killer.killed < killer.times:
                guest.fe.tell(Req.ADD_MEM_REG, one_region(more), [more.fd])
                call = EventFd()
                guest.fe.vring_fd(Req.SET_VRING_CALL, INFLATE, call.fd)
                guest.queues[INFLATE].call.close()
                guest.queues[INFLATE].call = call
                some = guest.some_pages(5)
                guest.inflate(some)
                guest.fe.tell(Req.REM_MEM_REG, one_region(more))
                guest.deflate(some)
        assert seen(mortal)["held"] == len(guest.ballooned) * PAGE
        wait_for(lambda: mortal.fds() == before, "descriptors as before")
        guest.check()
    finally:
        more.close()


def test_16_killed_with_a_message_on_its_way(mortal: Device) -> None:
    """The worker has the message, and dies before it looks at it."""
    guest = mortal.guest()
    for number in range(1, 6):
        worker = mortal.worker()
        os.kill(worker, signal.SIGSTOP)
        payload = config(0, struct.pack("<II", 0, number))
        guest.fe.send(Req.SET_CONFIG, payload, [], VERSION | NEED_REPLY)
        ident = guest.submit(INFLATE, struct.pack("<I", guest.pages()[number]))
        time.sleep(0.05)
        os.kill(worker, signal.SIGKILL)
        assert guest.fe.receive_reply(Req.SET_CONFIG) == u64(0)
        assert guest.returned(INFLATE, ident)
        guest.ballooned.add(guest.pages()[number])
        assert seen(mortal)["actual"] == number * PAGE
    guest.check()


def test_16_connections_come_and_go_meanwhile(mortal: Device) -> None:
    with Killer(mortal, 20, 4) as killer:
        while killer.killed < killer.times:
            mortal.good_session()


def test_16_twice_in_quick_succession(mortal: Device) -> None:
    guest = mortal.guest()
    for _ in range(5):
        mortal.replaced(mortal.kill_worker())
        mortal.kill_worker()
        guest.inflate(guest.some_pages(10))
    assert guest.freed() == 50 * PAGE
    guest.check()


def test_16_kicks_while_there_is_no_worker(mortal: Device) -> None:
    guest = mortal.guest()
    pages = guest.some_pages(300)
    for pfn in pages[:20]:
        mortal.kill_worker()
        guest.inflate([pfn])
    assert guest.freed() == 20 * PAGE


# Operators


def test_idle_clients_do_not_notice(mortal: Device) -> None:
    """... but that they are told. One that has only been greeted can still negotiate."""
    idle, fresh = mortal.monitor(), mortal.monitor(negotiate=False)
    idle.cmd("query-status")
    for number in range(1, 4):
        time.sleep(0.05)  # it knows by then that its last answer is out
        mortal.kill_worker()
        told = idle.event("DEVICE_RESTARTED")
        assert told["restarts"] == number and "9" in told["reason"], told
        assert idle.device()["worker-restarts"] == number
    with pytest.raises(QMPError):
        fresh.cmd("query-status")
    fresh.cmd("qmp_capabilities")
    fresh.cmd("query-status")


def test_clients_in_the_middle_see_the_end(mortal: Device) -> None:
    """Whether the command was run is not known: so the connection is closed."""
    guest = mortal.guest()
    guest.give_stats(stat(4, 1))
    typing, waiting = mortal.monitor(), mortal.monitor()
    typing.send_raw(b'{"execute": "query-')
    waiting.send({"execute": "human-monitor-command",
                  "arguments": {"command-line": "info balloon"}})
    assert guest.stats_wanted()
    typing.wait_until_read()
    mortal.kill_worker()
    for client in (typing, waiting):
        with pytest.raises((EOFError, ConnectionError)):
            while True:
                client.receive()
    assert mortal.monitor().cmd("query-status")["running"]


def test_what_nobody_has_read_is_read_by_the_next(mortal: Device) -> None:
    """A client that was idle to the worker, and had begun to type to a socket."""
    client = mortal.monitor()
    client.cmd("query-status")
    time.sleep(0.05)  # it knows by then that its last answer is out
    os.kill(mortal.worker(), signal.SIGSTOP)
    client.send_raw(b'{"execute": "query-')
    mortal.kill_worker()
    client.event("DEVICE_RESTARTED")
    client.send_raw(b'status"}')
    assert "running" in client.receive()["return"]


def test_what_was_set_survives(mortal: Device) -> None:
    guest = mortal.guest()
    client = mortal.monitor()
    client.cmd("balloon", {"value": 5 * MIB})
    client.set("guest-stats-polling-interval", 1)
    client.cmd("balloon-inhibit", {"reason": "vfio"})
    pages = guest.some_pages(50)
    guest.inflate(pages)
    mortal.kill_worker()
    client.event("DEVICE_RESTARTED")
    told = client.device()
    assert told["target"] == 3 * MIB and told["inhibitors"] == ["vfio"]
    assert client.get("guest-stats-polling-interval") == 1
    assert told["held"] == 50 * PAGE and guest.freed() == 0
    guest.give_stats(stat(4, 1))
    assert guest.stats_wanted(), "nobody asks"
    client.cmd("balloon-uninhibit", {"reason": "vfio"})
    wait_for(lambda: guest.freed() == 50 * PAGE, "what was kept")


# Faults that come again


def test_a_buffer_that_kills_breaks_its_queue(spawn: Spawn) -> None:
    """Three workers die of the same buffer; the fourth lets it be, and serves the rest."""
    options = os.environ.get("ASAN_OPTIONS", "")
    device = spawn(environment={"ASAN_OPTIONS": f"{options}:handle_segv=0"})
    guest = device.guest(size=1024)
    page_numbers = b"".join(struct.pack("<I", pfn) for pfn in guest.pages()[:1024])
    queue = guest.queues[INFLATE]
    # 3 GiB of page numbers: seconds of work, so that it is what a worker is at.
    for index in range(1024):
        queue.ring.set_desc(index, Seg(guest.arena + MIB, 3 * MIB, NEXT if index < 1023 else 0,
                                       index + 1))
    guest.mem.write(guest.arena + MIB, page_numbers * 768)
    queue.ring.publish(0)
    queue.kick.signal()
    deaths = 0
    while not guest.broke(INFLATE, 0.05):
        assert deaths < 12 and queue.ring.used() is None, "the queue is never given up"
        if cpu_busy(device):
            device.replaced(device.kill_worker(signal.SIGSEGV))
            deaths += 1
    assert deaths >= 3, "given up too early"
    told = seen(device)
    assert told["queues"][0]["broken"] and told["queues"][0]["error"] == "crashed-the-device"
    assert told["driver-errors"]["queue-broken"] == 1
    ident = guest.submit(DEFLATE, struct.pack("<I", guest.pages()[0]))
    assert guest.returned(DEFLATE, ident), "the other queues suffer"
    device.close(guest)
    device.good_session()


def cpu_busy(device: Device) -> bool:
    """Does the worker compute?"""
    pid = device.find_worker()
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "R"
    except (FileNotFoundError, ProcessLookupError):
        return False


# Upgrades


def test_sighup_replaces_the_worker(device: Device, monitor: Client) -> None:
    guest = device.guest()
    pages = guest.some_pages(100)
    guest.inflate(pages)
    for number in range(1, 4):
        old = device.worker()
        device.process.send_signal(signal.SIGHUP)
        device.replaced(old)
        told = monitor.event("DEVICE_RESTARTED")
        assert told["restarts"] == number and "replaced" in told["reason"]
        guest.deflate(pages[number * 10:number * 10 + 10])
        assert monitor.device()["held"] == (100 - 10 * number) * PAGE
    guest.check()
    assert "died" not in device.stderr()


@pytest.mark.parametrize("how", ["garbage", "refuses", "missing"])
def test_an_upgrade_that_fails_is_undone(spawn: Spawn, tmp_path: object, how: str) -> None:
    """The binary at its place is no good: the one that ran goes on."""
    place = os.path.join(str(tmp_path), "device")
    shutil.copy(BINARY, place)
    device = spawn(binary=place)
    device.may_die = True
    guest = device.guest()
    client = device.monitor()
    guest.inflate(guest.some_pages(10))
    os.unlink(place)
    if how != "missing":
        with open(place, "w", encoding="ascii") as file:
            file.write("#!/bin/false\n" if how == "refuses" else "nothing to run\n")
        os.chmod(place, 0o755)
    device.process.send_signal(signal.SIGHUP)
    if how == "missing":
        wait_for(lambda: "the worker stays" in device.stderr(), "a word about it")
    else:
        client.event("DEVICE_RESTARTED")
        assert "going back" in device.stderr()
    guest.inflate(guest.some_pages(10))
    assert guest.freed() == 20 * PAGE and client.device()["held"] == 20 * PAGE
    # Also later, when that worker dies.
    device.kill_worker()
    guest.inflate(guest.some_pages(10))
    guest.check()


# The parent


def ended(pid: int) -> bool:
    """It may wait to be reaped by whoever has adopted it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_16_killed_parent(spawn: Spawn) -> None:
    """Nothing of it is left, and what guests and operators have is an end of file."""
    device = Device()
    try:
        guest, client, worker = device.guest(), device.monitor(), device.worker()
        device.process.kill()
        assert guest.fe.ended()
        with pytest.raises((EOFError, ConnectionError)):
            while True:
                client.receive()
        wait_for(lambda: ended(worker), "the worker gone")
    finally:
        device.kill()
    spawn().good_session()


def test_signals_to_the_whole_group(device: Device) -> None:
    """As a terminal and some service managers do it: the end is as orderly as otherwise."""
    client = device.monitor()
    device.guest()
    worker = device.worker()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(worker, number)
    time.sleep(0.1)
    assert device.worker() == worker
    os.kill(worker, signal.SIGTERM)
    device.process.terminate()
    assert client.event("VMM_DISCONNECTED")["reason"]
    device.gone()
    device.kill()


def test_a_worker_that_hangs_does_not_keep_the_program(device: Device) -> None:
    device.guest()
    device.may_die = True
    os.kill(device.worker(), signal.SIGSTOP)
    device.process.terminate()
    device.gone()
    device.kill()

