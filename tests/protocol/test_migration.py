# SPDX-License-Identifier: MIT
"""A guest moves with its balloon from one device process to another."""

from __future__ import annotations

import struct
import time
from typing import Callable

import pytest

from balloon import (ACTUAL, FREE_PAGE_HINT, HINT_CMD, HINT_STOP, INFLATE, MESSAGE, MESSAGE_VQ, MIB,
                     PAGE, PAGE_POISON, PAGE_REPORTING, POISON, PUSH_INTERVAL, STATS, STATS_PUSH,
                     stat)
from process import Device
from qmp import Client
from rings import Seg
from state_stream import decode
from transfer import ORDERS, arrive, gone, load, migrate, save
from vhost_user import LOG_ALL, DirtyLog, Region, Req, config, u64, wait_for

Spawn = Callable[..., Device]


@pytest.fixture
def pair(spawn: Spawn) -> tuple[Device, Device]:
    return spawn(), spawn()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["split", "packed"])
def test_a_full_balloon(pair: tuple[Device, Device], kind: str, order: str) -> None:
    """It is full there too: what went in here comes out there, and nothing is an error."""
    source, target = pair
    guest = source.guest(packed=kind == "packed", event_idx=True)
    here, there = source.monitor(), target.monitor()
    here.cmd("balloon", {"value": 3 * MIB})
    pages = guest.some_pages(700)
    guest.inflate(pages)
    guest.deflate(pages[:50])
    guest.write_actual()
    before = here.device()
    stream = migrate(source, target, guest, order)
    assert stream.held() == guest.ballooned
    assert stream.device()["negotiated"] == guest.features & ~(1 << 30)
    after = there.device()
    for name in ("held", "actual", "target", "inflated", "deflated", "driver-errors", "queues",
                 "features-negotiated"):
        assert after[name] == before[name], name
    assert guest.num_pages() == 5 * 256 and guest.config_field(ACTUAL) == 650
    guest.check()
    guest.deflate(pages[50:200])
    guest.inflate(guest.some_pages(100, seed=1))
    guest.check()
    there.cmd("balloon", {"value": 8 * MIB})
    assert guest.back.next() and guest.num_pages() == 0
    guest.deflate(sorted(guest.ballooned))
    guest.check()
    assert there.device()["held"] == 0
    assert not any(there.device()["driver-errors"].values())
    source.good_session()
    assert here.device()["held"] == 0


def test_pages_that_came_along_go_back(pair: tuple[Device, Device]) -> None:
    """Migration may have filled them: the destination discards what the balloon holds."""
    source, target = pair
    guest = source.guest()
    guest.inflate(guest.some_pages(600))
    bases = guest.stop()
    data = save(guest)
    source.open.remove(guest)
    target.open.append(guest)
    guest.move(target.sock)
    for pfn in guest.ballooned:
        guest.mem.write(pfn * PAGE, b"\xa5" * PAGE)
    arrive(guest, bases, data)
    wait_for(lambda: gone(guest), "pages discarded at the destination")
    guest.check()


def test_memory_that_lies_otherwise(pair: tuple[Device, Device]) -> None:
    """The same guest memory in other pieces, in another order, at other addresses."""
    source, target = pair
    guest = source.guest()
    pages = guest.some_pages(800)
    guest.inflate(pages)
    regions = [Region(16 * MIB, MIB, uaddr=0x1000_0000), Region(66 * MIB, 2 * MIB, offset=PAGE),
               Region(17 * MIB, 3 * MIB, uaddr=0x3000_0000), Region(64 * MIB, 2 * MIB)]
    migrate(source, target, guest, regions=regions)
    monitor = target.monitor()
    assert monitor.device()["held"] == 800 * PAGE
    guest.deflate(pages)
    assert monitor.device()["held"] == 0
    assert not any(monitor.device()["driver-errors"].values())
    guest.check()


@pytest.mark.parametrize("numbering", ["fixed", "negotiated", "offered"])
def test_however_queues_are_numbered(pair: tuple[Device, Device], numbering: str) -> None:
    """Which ring is which goes along, also where rings tell it no more."""
    source, target = pair
    guest = source.guest(extra=[PAGE_REPORTING], numbering=numbering)
    guest.give_stats(stat(4, 1))
    guest.inflate(guest.some_pages(30))
    free = guest.some_pages(20, seed=1)
    guest.report(guest.ranges(free[:10]))
    before = source.monitor().device()["queues"]
    migrate(source, target, guest)
    assert [{**queue, "buffers": 0} for queue in target.monitor().device()["queues"]] == [
        {**queue, "buffers": 0} for queue in before]
    guest.report(guest.ranges(free[10:]))
    guest.reclaim(free)
    target.monitor().cmd("refresh-balloon-stats")
    assert guest.stats_wanted()
    guest.deflate(sorted(guest.ballooned))
    assert not any(target.monitor().device()["driver-errors"].values())
    guest.check()


def test_with_the_dirty_log_on(pair: tuple[Device, Device]) -> None:
    """As it is done live: the log runs until the rings stop, and the other side has none."""
    source, target = pair
    guest = source.guest()
    log = DirtyLog()
    guest.log_to(log)
    pages = guest.some_pages(200)
    guest.inflate(pages)
    bases = guest.stop()
    assert log.pages()
    data = save(guest)
    guest.features &= ~(1 << LOG_ALL)
    guest.log_at = {}
    source.open.remove(guest)
    target.open.append(guest)
    guest.move(target.sock)
    log.clear()
    arrive(guest, bases, data)
    guest.deflate(pages)
    assert log.pages() == set()
    assert not any(target.monitor().device()["driver-errors"].values())
    guest.check()
    log.close()


def test_messages_that_wait_for_their_answers(spawn: Spawn) -> None:
    """Slowed down here, answered there."""
    source = spawn("--features=message", "--message-limit=1")
    target = spawn("--features=message")
    guest = source.guest(extra=[MESSAGE_VQ])
    sent = [guest.send_message(struct.pack("<II", 1, n % 4)) for n in range(1, 12)]
    assert guest.returned(MESSAGE, sent.pop(0))
    bases = guest.stop()
    while (used := guest.queue(MESSAGE).ring.used()) is not None:
        assert used == (sent.pop(0), 0)
    assert sent, "not slowed down"
    data = save(guest)
    source.open.remove(guest)
    target.open.append(guest)
    guest.move(target.sock)
    arrive(guest, bases, data)
    for ident in sent:
        assert guest.returned(MESSAGE, ident), "a message was lost"
    pressure = target.monitor().device()["pressure"]
    assert pressure["level"] == "critical"


def test_there_and_back_again(pair: tuple[Device, Device]) -> None:
    """Counters go with the guest, and wrap counters and indices through many moves."""
    source, target = pair
    guest = source.guest(packed=True, size=20)
    inflated = 0
    for turn in range(12):
        pages = guest.some_pages(9 + turn, seed=turn)
        for pfn in pages:
            guest.inflate([pfn])
        guest.deflate(pages[:turn])
        inflated += len(pages)
        migrate(source, target, guest, ORDERS[turn % 3])
        source, target = target, source
        told = source.monitor().device()
        assert told["held"] == len(guest.ballooned) * PAGE and told["inflated"] == inflated * PAGE
        assert not any(told["driver-errors"].values())
        source.close(*[item for item in source.open if item is not guest])
    guest.check()


@pytest.mark.parametrize("kind", ["split", "packed"])
def test_in_the_middle_of_a_buffer(pair: tuple[Device, Device], kind: str) -> None:
    """Of a huge array of page numbers one part is done here and the rest there, none of it
    twice."""
    source, target = pair
    here, there = source.monitor(), target.monitor()
    guest = source.guest(packed=kind == "packed")
    pages = guest.pages()
    numbers = pages[256:1280]  # served in batches of so many, each without a duplicate
    guest.mem.write(pages[0] * PAGE, struct.pack("<1024I", *numbers) * 256)
    guest.ballooned.update(pages[:256])  # their content is not the pattern now
    queue = guest.queue(INFLATE)
    total = served = 0
    for size in (64 << 10, 256 << 10, MIB):  # as fast as this machine is
        ident = queue.ring.add([Seg(pages[0] * PAGE, size)] * 100)
        before, total = total, total + 25 * size * PAGE
        queue.kick.signal()
        wait_for(lambda: here.device()["inflated"] > before, "a beginning")
        bases = guest.stop()
        if here.device()["inflated"] < total:
            break
        guest.cont(bases)
        assert guest.returned(INFLATE, ident)
        served += 1
    assert before < here.device()["inflated"] < total, "the buffer is too short for this test"
    data = save(guest)
    source.open.remove(guest)
    target.open.append(guest)
    guest.move(target.sock)
    assert load(guest.fe, data)
    guest.cont(bases)
    assert guest.returned(INFLATE, ident)
    guest.ballooned.update(numbers)
    told = there.device()
    assert told["inflated"] == total and told["held"] == 1024 * PAGE
    assert told["queues"][0]["buffers"] == served + 1
    assert told["driver-errors"]["duplicate-pfn"] == 0
    guest.check()


def test_the_source_may_go_on(device: Device, monitor: Client) -> None:
    """A migration that fails elsewhere leaves no trace."""
    guest = device.guest()
    pages = guest.some_pages(100)
    guest.inflate(pages)
    guest.give_stats(stat(4, 1))
    for turn in range(3):
        bases = guest.stop()
        assert decode(save(guest)).held() == guest.ballooned
        guest.cont(bases)
        guest.deflate(pages[turn * 10:turn * 10 + 10])
    monitor.cmd("refresh-balloon-stats")
    assert guest.stats_wanted()
    assert monitor.device()["held"] == 70 * PAGE
    assert not any(monitor.device()["driver-errors"].values())
    guest.check()


@pytest.mark.parametrize("kind", ["split", "packed"])
def test_statistics_in_hand(pair: tuple[Device, Device], kind: str) -> None:
    """The one buffer is at the device there, and the last figures are known with their age."""
    source, target = pair
    guest = source.guest(packed=kind == "packed")
    guest.give_stats(stat(4, 12345) + stat(5, 67890))
    source.monitor().cmd("query-status")
    wait_for(lambda: source.monitor().get("guest-stats")["stats"], "figures")
    time.sleep(0.05)
    migrate(source, target, guest)
    there = target.monitor()
    stats = there.get("guest-stats")
    assert stats["stats"] == {"stat-free-memory": 12345, "stat-total-memory": 67890}
    assert 50 <= stats["age-ms"] < 30000 and abs(stats["last-update"] - time.time()) < 30
    assert not guest.stats_wanted(0.1), "returned without being asked"
    there.cmd("refresh-balloon-stats")
    assert guest.stats_wanted()
    guest.give_stats(stat(4, 1))
    assert there.event("BALLOON")["stats"] == {"stat-free-memory": 1}


def test_a_request_on_its_way(pair: tuple[Device, Device]) -> None:
    """Asked for here, answered there."""
    source, target = pair
    guest = source.guest()
    guest.give_stats(stat(4, 1))
    source.monitor().cmd("refresh-balloon-stats")
    assert guest.stats_wanted()
    migrate(source, target, guest)
    there = target.monitor()
    guest.give_stats(stat(4, 2))
    assert there.event("BALLOON")["stats"] == {"stat-free-memory": 2}
    assert not guest.stats_wanted(0.1)


def test_polling_goes_on(pair: tuple[Device, Device]) -> None:
    source, target = pair
    guest = source.guest()
    source.monitor().set("guest-stats-polling-interval", 1)
    guest.give_stats(stat(4, 1))
    migrate(source, target, guest)
    assert target.monitor().get("guest-stats-polling-interval") == 1
    if guest.stats_wanted(3):
        guest.give_stats(stat(4, 2))
    assert guest.stats_wanted(3)


def test_pushing_goes_on(spawn: Spawn) -> None:
    """The driver has its interval from the source and hears of no other."""
    source, target = spawn("--features=stats-push"), spawn("--features=stats-push")
    guest = source.guest(extra=[STATS_PUSH])
    source.monitor().cmd("set-stats-push-interval", {"interval-ms": 70})
    assert guest.returned(STATS, guest.submit(STATS, stat(4, 1)))
    bases = guest.stop()
    data = save(guest)
    time.sleep(1.2)  # would be late if it did not stand still
    source.open.remove(guest)
    target.open.append(guest)
    guest.move(target.sock)
    arrive(guest, bases, data)
    there = target.monitor()
    assert there.cmd("query-guest-health")["status"] in ("healthy", "unknown")
    assert guest.config_field(PUSH_INTERVAL) == 70
    assert there.device()["stats-push-interval-ms"] == 70
    assert guest.returned(STATS, guest.submit(STATS, stat(4, 2))), "a pushed buffer was kept"
    assert there.get("guest-stats")["stats"] == {"stat-free-memory": 2}
    assert there.cmd("query-guest-health")["status"] == "healthy"


def test_poison_and_hints_go_along(pair: tuple[Device, Device]) -> None:
    """Poison keeps pages there as here; a hint command goes on under its id, with a bitmap that
    begins anew."""
    source, target = pair
    guest = source.guest(extra=[FREE_PAGE_HINT, PAGE_POISON, PAGE_REPORTING])
    here, there = source.monitor(), target.monitor()
    guest.fe.tell(Req.SET_CONFIG, config(POISON, struct.pack("<I", 0xAAAAAAAA)))
    here.cmd("free-page-hint", {"action": "start"})
    command = guest.config_field(HINT_CMD)
    guest.hint_id(command)
    free = guest.some_pages(40)
    guest.hint(guest.ranges(free[:10]))
    migrate(source, target, guest)
    assert guest.config_field(POISON) == 0xAAAAAAAA
    assert there.device()["poison-value"] == 0xAAAAAAAA
    assert guest.config_field(HINT_CMD) == command
    assert there.cmd("query-free-page-hint")["status"] == "hinting"
    guest.hint(guest.ranges(free[10:20]))
    guest.hint_id(HINT_STOP)
    info = there.cmd("query-free-page-hint")
    assert info["status"] == "finished" and info["id"] == command
    assert there.device()["driver-errors"]["hint-id"] == 0
    guest.report(guest.ranges(free[20:30]))
    guest.inflate(free[30:])
    guest.ballooned.clear()  # poisoned: all of them must still be what they were
    guest.check()
    there.cmd("free-page-hint", {"action": "done"})


def test_inhibitors_stay(pair: tuple[Device, Device]) -> None:
    """They belong to the host: there nothing keeps the pages, and the other way round."""
    source, target = pair
    here, there = source.monitor(), target.monitor()
    here.cmd("balloon-inhibit", {"reason": "vfio"})
    guest = source.guest()
    guest.inflate(guest.some_pages(50))
    assert not gone(guest)
    migrate(source, target, guest)
    assert there.device()["inhibitors"] == []
    wait_for(lambda: gone(guest), "pages discarded where nothing inhibits it")
    for pfn in sorted(guest.ballooned)[:20]:
        guest.mem.write(pfn * PAGE, b"\x11" * PAGE)
    migrate(target, source, guest)
    assert here.device()["inhibitors"] == ["vfio"]
    time.sleep(0.05)
    assert not gone(guest)
    here.cmd("balloon-uninhibit", {"reason": "vfio"})
    wait_for(lambda: gone(guest), "pages discarded when nothing inhibits it any more")
    guest.check()


def test_a_device_that_offers_less(spawn: Spawn) -> None:
    """It says so, and is as it was."""
    source, target = spawn(), spawn("--features=no-stats")
    guest = source.guest()
    guest.inflate(guest.some_pages(10))
    bases = guest.stop()
    data = save(guest)
    fe = target.front_end()
    fe.tell(Req.SET_PROTOCOL_FEATURES, u64(fe.ask_u64(Req.GET_PROTOCOL_FEATURES)))
    assert not load(fe, data)
    assert "features" in target.stderr()
    assert fe.alive() and target.monitor().device()["held"] == 0
    target.close(fe)
    target.good_session(stats=False)
    guest.cont(bases)
    guest.check()


def test_a_guest_that_resets_there(pair: tuple[Device, Device]) -> None:
    source, target = pair
    guest = source.guest()
    guest.inflate(guest.some_pages(100))
    migrate(source, target, guest)
    guest.reset()
    assert target.monitor().device()["held"] == 0
    guest.inflate(guest.some_pages(20))
    guest.check()
    assert target.monitor().device()["held"] == 20 * PAGE


def test_another_guest_after_one_that_never_started(device: Device, monitor: Client) -> None:
    """The state goes with the session."""
    guest = device.guest()
    guest.inflate(guest.some_pages(30))
    guest.stop()
    data = save(guest)
    device.close(guest)
    fe = device.front_end()
    fe.tell(Req.SET_PROTOCOL_FEATURES, u64(fe.ask_u64(Req.GET_PROTOCOL_FEATURES)))
    assert load(fe, data)
    device.close(fe)
    wait_for(lambda: monitor.device()["held"] == 0, "an empty balloon")
    device.good_session()
