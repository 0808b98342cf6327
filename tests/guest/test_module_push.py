# SPDX-License-Identifier: MIT
"""Statistics that our Linux driver pushes on a timer, as the host sees them come."""

from __future__ import annotations

import itertools
import os
import random
import signal
import statistics
import time

import pytest

from conftest import Bed
from test_guest_push import arrivals, pushes, set_interval
from together import together
from vmm import Device, Guest
from vmm.guest import MIB

pytestmark = pytest.mark.driver("aerostat", reason="no other driver pushes")

ONCE = pytest.mark.once(reason="other intervals, the same timer of the same driver")

LONG, BRIEF = 60.0, 20.0  # seconds


def number(counters: dict[str, int | str], name: str) -> int:
    value = counters[name]
    assert isinstance(value, int), (name, value)
    return value


def ticks(guest: Guest) -> int:
    counters = guest.counters()
    return number(counters, "stats_pushed") + number(counters, "stats_skipped")


def sent(guest: Guest) -> int:
    """Buffers with statistics that the guest has sent for any reason."""
    counters = guest.counters()
    return number(counters, "stats_pushed") + number(counters, "stats_requests")


def taken(device: Device) -> int:
    """Buffers that the host has taken out of the queue of statistics."""
    queues = {queue["name"]: queue for queue in device.query()["queues"]}
    return int(queues["stats"]["buffers"])


def guest_has(device: Device, guest: Guest, interval: int) -> None:
    device.wait_for("the interval", lambda _:
                    guest.counters()["stats_interval_ms"] == interval)


def phase(times: list[float], interval: int) -> float:
    """Where in an interval, in ms, those of them come that a busy host does not delay: where the
    delays of all together are least."""
    places = [when * 1000 % interval for when in times]
    return min(places, key=lambda start: sum((place - start) % interval for place in places))


def delay(times: list[float], interval: int) -> float:
    """How late, in ms, the usual one of them comes."""
    start = phase(times, interval)
    return statistics.median((when * 1000 - start) % interval for when in times)


def moved(earlier: list[float], later: list[float], interval: int) -> float:
    """By how much the phase has changed, in ms, to either side."""
    change = (phase(later, interval) - phase(earlier, interval)) % interval
    return change if change <= interval / 2 else change - interval


def keeps_time(bed: Bed, interval: int) -> None:
    """The k-th push stands at start + k * interval, for a minute."""
    seconds = BRIEF if bed.platform.brief else LONG
    device, guest = bed.pair(f"--stats-push-interval={interval}", push_and_messages=True)
    arrivals(device, 2)
    begun = [time.monotonic()]
    first = ticks(guest)
    begun.append(time.monotonic())
    times = arrivals(device, round(seconds * 1000 / interval) - 2)
    ended = [time.monotonic()]
    made = ticks(guest) - first
    ended.append(time.monotonic())
    counters = guest.counters()

    gaps = [(later - earlier) * 1000 for earlier, later in itertools.pairwise(times)]
    middle = statistics.median(gaps)
    tenth = max(len(times) // 10, 3)
    ends = times[:tenth], times[-tenth:]
    drift, late = moved(*ends, interval), max(delay(end, interval) for end in ends)
    print(f"{interval} ms: median {middle:.2f} ms, longest {max(gaps):.1f} ms, "
          f"{made} ticks in {ended[0] - begun[1]:.2f} s, {counters['stats_skipped']} skipped, "
          f"phase moved by {drift:+.2f} ms, late by {late:.2f} ms")
    assert 0.95 * interval <= middle <= 1.05 * interval
    # Late ones are on a busy host's account; a schedule that drifts would lose whole ticks.
    least, most = ((end - begin) * 1000 / interval
                   for begin, end in ((begun[1], ended[0]), (begun[0], ended[1])))
    assert least - 1.5 <= made <= most + 1.5
    assert abs(drift) < max(0.05 * interval, 4) + late
    assert number(counters, "stats_skipped") <= made // 10


@ONCE
@together
def test_cadence_at_10_ms(bed: Bed) -> None:
    keeps_time(bed, 10)


@together
def test_cadence_at_100_ms(bed: Bed) -> None:
    keeps_time(bed, 100)


@ONCE
@together
def test_cadence_at_1000_ms(bed: Bed) -> None:
    keeps_time(bed, 1000)


def test_pushed_statistics_are_the_guests_own(bed: Bed) -> None:
    device, guest = bed.pair("--stats-push-interval=50", push_and_messages=True)
    arrivals(device, 2)
    pushed = device.qmp.wait_event("BALLOON")["stats"]
    meminfo = guest.meminfo()
    assert pushed["stat-total-memory"] == meminfo["MemTotal"]
    assert abs(pushed["stat-free-memory"] - meminfo["MemFree"]) < 4 * MIB
    set_interval(device, 0)
    guest_has(device, guest, 0)
    # The same tags, whoever asks for them.
    assert set(device.refresh_stats()["stats"]) == set(pushed)


def pulled(device: Device, guest: Guest) -> None:
    """It pushes no more; one buffer is at the device, and comes back for each request."""
    guest_has(device, guest, 0)
    before = guest.counters()
    time.sleep(0.15)
    assert guest.counters()["stats_pushed"] == before["stats_pushed"]
    for _ in range(3):
        asked = time.monotonic()
        device.refresh_stats()
        assert time.monotonic() - asked < 2
    after = guest.counters()
    assert after["stats_pushed"] == before["stats_pushed"]
    assert number(after, "stats_requests") == number(before, "stats_requests") + 3
    assert taken(device) == sent(guest)


def pushed(device: Device, guest: Guest, interval: int, at_once: bool) -> None:
    changed = time.time()
    times = pushes(device, interval)
    if at_once:
        assert times[0] - changed < 0.5 * interval / 1000 + 0.2, "the first push is immediate"
    assert times[3] - changed <= 0.0045 * interval + 0.5
    guest_has(device, guest, interval)


@ONCE
def test_all_switches(bed: Bed) -> None:
    """Between any two intervals, in both directions, and from each to itself."""
    device, guest = bed.pair(push_and_messages=True)
    device.refresh_stats()
    before = 0
    # Every ordered pair of the four is somewhere in this, and each twice in succession.
    for interval in (0, 0, 10, 10, 0, 40, 40, 0, 300, 300, 10, 40, 10, 300, 40, 300, 0):
        assert set_interval(device, interval) == interval
        if interval:
            pushed(device, guest, interval, before == 0)
        else:
            pulled(device, guest)
        before = interval
    for wish in (1, 9):
        assert set_interval(device, wish) == 10
        pushed(device, guest, 10, False)


def test_a_thousand_switches(bed: Bed) -> None:
    """No buffer is lost and none is doubled, whenever the interval changes."""
    device, guest = bed.pair(push_and_messages=True)
    dice = random.Random(1)
    begun, times = time.monotonic(), 300 if bed.platform.brief else 1000
    for count in range(times):
        set_interval(device, dice.choice([0, 0, 10, 10, 11, 13, 20, 100, 1000]))
        time.sleep(dice.choice([0, 0, 0.001, 0.005, 0.02, 0.03]))
        if count % 100 == 99:
            set_interval(device, 0)
            pulled(device, guest)
            device.qmp.events.clear()
    print(f"{times} switches in {time.monotonic() - begun:.1f} s: {sent(guest)} buffers")
    set_interval(device, 10)
    pushed(device, guest, 10, True)
    set_interval(device, 0)
    pulled(device, guest)
    counters = guest.counters()
    assert counters["timeouts"] == 0 and number(counters, "stats_pushed") > times // 5


def test_switches_beside_requests(bed: Bed) -> None:
    """A request that meets a change of the interval is answered, or the pushes answer it."""
    device, guest = bed.pair(push_and_messages=True)
    dice = random.Random(2)
    for _ in range(150):
        device.qmp.execute("refresh-balloon-stats")
        time.sleep(dice.choice([0, 0.001, 0.003]))
        set_interval(device, dice.choice([0, 0, 10, 20]))
        device.qmp.execute("refresh-balloon-stats")
        device.qmp.events.clear()
    set_interval(device, 0)
    guest_has(device, guest, 0)
    device.refresh_stats()
    pulled(device, guest)


def test_unload_and_load_while_it_pushes(bed: Bed) -> None:
    device, guest = bed.pair("--stats-push-interval=10", push_and_messages=True)
    for _ in range(10):
        arrivals(device, 5)
        guest.unload_balloon()
        device.query()
        device.qmp.events.clear()
        guest.load_balloon()
    arrivals(device, 5)
    assert guest.counters()["stats_interval_ms"] == 10


@together
def test_ticks_that_find_no_buffer_are_skipped(bed: Bed) -> None:
    """The host does not return the last one: nothing is written into what it may be reading, and
    the schedule goes on."""
    interval, stopped = 50, 1.5
    device, guest = bed.pair(f"--stats-push-interval={interval}", push_and_messages=True)
    times, before = arrivals(device, 20), guest.counters()
    worker, begun = device.worker(), time.monotonic()
    os.kill(worker, signal.SIGSTOP)
    try:
        time.sleep(stopped / 3)
        last = sent(guest)
        time.sleep(stopped * 2 / 3)
        assert sent(guest) == last, "it writes into what the host may be reading"
    finally:
        os.kill(worker, signal.SIGCONT)
    device.query()  # what came until here is read now
    ended = time.monotonic()
    late = arrivals(device, 20)
    after = guest.counters()
    skipped = number(after, "stats_skipped") - number(before, "stats_skipped")
    assert 0.8 * stopped * 1000 / interval <= skipped <= 1.3 * (ended - begun) * 1000 / interval + 2
    assert after["timeouts"] == 0
    assert abs(moved(times, late, interval)) < 0.25 * interval, "the schedule is not what it was"
    gaps = [(later - earlier) * 1000 for earlier, later in itertools.pairwise(late)]
    assert 0.8 * interval < statistics.median(gaps) < 1.2 * interval
