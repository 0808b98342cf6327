# SPDX-License-Identifier: MIT
"""A guest with our Linux driver becomes short of memory, and tells the host."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable

import pytest

from conftest import Bed
from in_guest import Program, stuck_tasks
from test_module_push import number
from together import together
from vmm import Device, Guest, GuestData
from vmm.guest import MIB, PAGE

pytestmark = pytest.mark.driver("aerostat", reason="no other driver sends messages")

DEFLATE = ("--on-pressure=deflate", "--pressure-steps=16M,32M,64M")
LEVELS = ("low", "medium", "critical")
#: What the guest has, what of that the balloon, and what the hog wants: more than is left.
MEMORY, BALLOON, HOG = 256, 160, 130


def messages(guest: Guest) -> dict[str, int]:
    counters = guest.counters()
    return {level: number(counters, f"messages_{level}") for level in (*LEVELS, "relieved")}


def told(device: Device) -> list[dict[str, object]]:
    """The messages that the host has had, as events."""
    device.query()  # what comes before its answer is there then
    events = [event["data"] for event in device.qmp.events
              if event["event"] == "GUEST_PRESSURE"]
    device.qmp.events.clear()
    return events


def both_ends_agree(device: Device, guest: Guest) -> None:
    device.wait_for("an answer", lambda now: sum(now["pressure"]["messages"].values())
                    + now["pressure"]["relieved"] == sum(messages(guest).values()))


@dataclasses.dataclass
class Outcome:
    """What became of a guest whose program wanted more than the balloon had left it."""

    driver: str
    features: str
    survived: bool
    oom_kills: int
    values: dict[str, int]
    held: int
    sent: dict[str, int]
    wait_us: int

    def row(self) -> str:
        def ms(name: str, less: str = "") -> str:
            if name not in self.values:
                return "never"
            return f"{(self.values[name] - self.values.get(less, 0)) / 1000:.1f} ms"

        answer = f"{self.wait_us / 1000:.1f} ms" if self.sent else "-"
        sent = " ".join(f"{name}:{count}" for name, count in self.sent.items() if count)
        relief = ms("relief-us", "reclaim-us") if "relief-us" in self.values else "never"
        return (f"{self.driver:9} {self.features:18} {'yes' if self.survived else 'no':9} "
                f"{self.oom_kills:5} {ms('reclaim-us'):>11} {relief:>11} {ms('grown-us'):>11} "
                f"{ms('grow-stall-us'):>11} {answer:>11} {self.held // MIB:4} MiB  {sent or '-'}")

    HEAD = (f"{'driver':9} {'out of memory':18} {'survived':9} {'kills':5} {'reclaim':>11} "
            f"{'relief':>11} {'grown':>11} {'stall':>11} {'answer':>11} {'balloon':8}  messages")


def hogged(bed: Bed, driver: str, features: str, step: str = "256 1") -> Outcome:
    """One run of the scenario; the host gives way as far as it is told."""
    device = bed.device("--features=no-page-reporting,stats-push,message" + features, *DEFLATE)
    guest = bed.guest(device, MEMORY * MIB)
    guest.load_balloon(driver)
    data = GuestData(guest)
    data.write(8 * MIB)
    device.inflate_to(BALLOON * MIB)
    hog = Program(guest, f"hog {HOG} {step}")
    deadline = time.monotonic() + 60
    while hog.status() is None and "grown-us" not in hog.values():
        assert time.monotonic() < deadline, hog.output()
        time.sleep(0.05)
    survived = hog.status() is None
    time.sleep(0.3)
    values = hog.end() if survived else hog.values()
    assert data.damaged() == []
    state = device.query()
    ours = driver == "aerostat"
    outcome = Outcome(driver, "gives pages back" if "no-deflate" not in features else "keeps them",
                      survived, guest.vmstat()["oom_kill"], values, state["held"],
                      messages(guest) if ours else {},
                      number(guest.counters(), "message_wait_us") if ours else 0)
    if ours:
        assert not stuck_tasks(guest)
        both_ends_agree(device, guest)
    return outcome


def test_a_hog_beside_the_stock_driver(bed: Bed) -> None:
    """The host lets go as soon as it is told: no program has to die. What the stock driver makes of
    the same is printed beside it, unless time is short."""
    drivers = ("aerostat",) if bed.platform.brief else ("aerostat", "stock")
    outcomes = [hogged(bed, driver, features) for features in ("", ",no-deflate-on-oom")
                for driver in drivers]
    print("\n".join(["", Outcome.HEAD, *(outcome.row() for outcome in outcomes)]))
    for outcome in outcomes:
        if outcome.driver != "aerostat":
            continue
        assert outcome.survived and outcome.oom_kills == 0, outcome
        assert outcome.values["wrong"] == 0 and outcome.values["rounds"] > 0
        assert outcome.sent["low"] + outcome.sent["medium"] + outcome.sent["critical"] > 0
        assert outcome.held <= (BALLOON - 16) * MIB
        assert 0 < outcome.wait_us < 5_000_000
        # From the first sign of reclaim until pages are back.
        assert outcome.values["relief-us"] - outcome.values["reclaim-us"] < 2_000_000


def test_a_hog_that_does_not_wait(bed: Bed) -> None:
    """It takes all at once; with pages at hand for when memory runs out nobody is killed."""
    outcome = hogged(bed, "aerostat", "", str(HOG * 1024))
    print("\n".join(["", Outcome.HEAD, outcome.row()]))
    assert outcome.survived and outcome.oom_kills == 0, outcome
    assert sum(outcome.sent[level] for level in LEVELS) > 0


def test_a_host_that_gives_way_is_spared_the_worst(bed: Bed) -> None:
    """Memory runs out while the pages that will do are on their way: they are waited for.
    The worst would make the host give more than it takes. A host that is busy may take longer than
    the driver waits, so that one of several tries has to do; without waiting none does."""
    device = bed.device("--features=no-page-reporting,message,no-deflate-on-oom",
                        "--on-pressure=deflate", "--pressure-steps=64M,64M,160M")
    guest = bed.guest(device, MEMORY * MIB)
    guest.load_balloon()
    tries = []
    while 0 not in tries:
        assert len(tries) < 5, f"critical was said each time: {tries}"
        device.inflate_to(BALLOON * MIB)
        before = messages(guest)
        hog = Program(guest, f"hog {HOG} {HOG * 1024}")
        hog.wait_for("grown-us")
        sent = {level: count - before[level] for level, count in messages(guest).items()}
        assert hog.end()["wrong"] == 0
        assert guest.vmstat()["oom_kill"] == 0
        assert sent["low"] + sent["medium"] > 0
        tries.append(sent["critical"])
        time.sleep(1.5)  # it has to find that it is over


def test_relieved_when_it_is_over(bed: Bed) -> None:
    device, guest = bed.pair(*DEFLATE, push_and_messages=True, memory=MEMORY * MIB)
    device.inflate_to(BALLOON * MIB)
    hog = Program(guest, f"hog {HOG} 256 1")
    hog.wait_for("grown-us")
    assert device.qmp.wait_event("GUEST_PRESSURE")["type"] == "pressure"
    hog.end()
    event = device.qmp.wait_event("GUEST_PRESSURE", 30)
    while event["type"] == "pressure":
        event = device.qmp.wait_event("GUEST_PRESSURE", 30)
    assert event["type"] == "relieved"
    device.wait_for("calm", lambda _: guest.counters()["pressure"] == "none")
    both_ends_agree(device, guest)
    # Nothing of it is left: the operator may have the memory now.
    device.inflate_to(BALLOON * MIB)
    device.wait_for("the counters", lambda _: guest.counters()["held"] == BALLOON * MIB // PAGE)


def test_hold(bed: Bed) -> None:
    """What the inflation has not taken when the guest cries out it does not take any more."""
    device, guest = bed.pair("--on-pressure=hold", push_and_messages=True, memory=MEMORY * MIB)
    data = GuestData(guest)
    data.write(16 * MIB)
    device.inflate_to(96 * MIB)
    hog = Program(guest, "hog 80 256 1")
    hog.wait_for("grown-us")
    # There is not so much: reclaim, and with it a message, is a matter of time.
    device.set_balloon(200 * MIB)
    event = device.qmp.wait_event("GUEST_PRESSURE", 30)
    assert event["type"] == "pressure"
    # If its memory runs out, too, it takes back up to 1 MiB at a time, and keeps that then.
    state = device.wait_for("an end", lambda now: now["target"] < 200 * MIB and (
        now["target"] - (16 * MIB if guest.counters()["released_oom"] else 0)
        <= now["held"] == now["actual"] <= now["target"]))
    assert 96 * MIB <= state["target"]
    time.sleep(1)
    # A page that the guest moves is in the balloon twice for a moment.
    device.wait_for("no more than it had", lambda now: now["held"] <= state["target"])
    assert device.query()["target"] == state["target"]
    assert hog.end()["wrong"] == 0
    assert guest.vmstat()["oom_kill"] == 0 and data.damaged() == []
    # The operator has the last word.
    device.inflate_to(180 * MIB)


def test_report(bed: Bed) -> None:
    """Nothing is done for the guest but to tell; an operator may do something."""
    device, guest = bed.pair("--on-pressure=report", push_and_messages=True, memory=MEMORY * MIB)
    device.inflate_to(BALLOON * MIB)
    hog = Program(guest, f"hog {HOG} 256 1")
    event = device.qmp.wait_event("GUEST_PRESSURE", 30)
    assert (event["type"], event["target"]) == ("pressure", BALLOON * MIB)
    device.set_balloon(64 * MIB)
    hog.wait_for("grown-us")
    assert hog.end()["wrong"] == 0
    device.wait_for("the target", lambda now: now["held"] == now["actual"] == 64 * MIB)
    assert guest.vmstat()["oom_kill"] == 0
    both_ends_agree(device, guest)


def test_inflation_waits_for_the_answer(bed: Bed) -> None:
    """While the message is at the host nothing is taken from the guest; the host is deaf for a
    while, and when it has heard what the guest wanted to say it goes on."""
    device, guest = bed.pair("--on-pressure=hold", push_and_messages=True, memory=MEMORY * MIB)
    device.inflate_to(64 * MIB)
    hog = Program(guest, "hog 120 256 1")
    hog.wait_for("grown-us")
    device.set_balloon(220 * MIB)
    device.qmp.wait_event("GUEST_PRESSURE", 30)
    state = device.wait_for("an end", lambda now: now["held"] == now["actual"] == now["target"])
    counters = guest.counters()
    assert number(counters, "message_wait_us") < 5_000_000
    assert counters["message_timeouts"] == 0
    assert state["held"] < 200 * MIB
    hog.end()


def stays_calm(device: Device, guest: Guest) -> None:
    """Not a word about pressure, on either side."""
    assert sum(messages(guest).values()) == 0
    assert guest.counters()["pressure"] == "none"
    assert told(device) == []
    assert sum(device.query()["pressure"]["messages"].values()) == 0


@together
def test_an_idle_guest_says_nothing(bed: Bed) -> None:
    device, guest = bed.pair(*DEFLATE, push_and_messages=True, memory=128 * MIB)
    device.inflate_to(32 * MIB)
    time.sleep(8)
    stays_calm(device, guest)
    assert device.query()["held"] == 32 * MIB


@together
def test_dropped_caches_are_no_pressure(bed: Bed) -> None:
    """Shrinkers run then too, but nobody needs memory."""
    device, guest = bed.pair(*DEFLATE, push_and_messages=True, memory=192 * MIB)
    device.inflate_to(64 * MIB)
    data = GuestData(guest)
    for what in (1, 2, 3, 3, 2, 1):
        guest.check(f"find / -xdev >/dev/null; echo {what} >/proc/sys/vm/drop_caches")
    guest.check("for i in 1 2 3; do echo 1 >/proc/sys/vm/compact_memory; done")
    # Memory that comes and goes, of which there is enough.
    for _ in range(3):
        data.write(48 * MIB)
        data.clear()
    device.inflate_to(96 * MIB)
    device.inflate_to(0)
    time.sleep(1)
    stays_calm(device, guest)


@together
def test_a_dead_host_hangs_no_guest(bed: Bed) -> None:
    """Memory runs out and the host does not answer: the guest helps itself, by the balloon's pages
    or by the usual killing, in bounded time."""
    device, guest = bed.pair(*DEFLATE, push_and_messages=True, memory=MEMORY * MIB)
    device.inflate_to(BALLOON * MIB)
    pids = [device.worker(), device.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        hog = Program(guest, f"hog {HOG} 256 1")
        while hog.status() is None and "grown-us" not in hog.values():
            assert time.monotonic() - began < 40, hog.output()
            time.sleep(0.1)
        took = time.monotonic() - began
        time.sleep(6)
        assert guest.check("echo alive") == "alive\n"
        assert not stuck_tasks(guest)
        counters = guest.counters()
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)
    print(f"{took:.1f} s; hog: {hog.values()}; {counters}")
    assert number(counters, "message_timeouts") + number(counters, "timeouts") > 0
    guest.run("killall hog")
    hog.wait()
    # The host lives again, and learns all that was.
    state = device.wait_for("the same opinion", lambda now: now["actual"] == now["held"]
                            == number(guest.counters(), "held") * PAGE)
    assert state["held"] <= BALLOON * MIB
    both_ends_agree(device, guest)
    device.inflate_to(32 * MIB)
    device.inflate_to(0)


def test_messages_are_limited(bed: Bed, record_property: Callable[[str, object], None]) -> None:
    """One in 100 ms, unless it becomes worse: a guest in trouble is no flood."""
    device, guest = bed.pair("--on-pressure=report", push_and_messages=True, memory=128 * MIB)
    data = GuestData(guest)
    data.write(24 * MIB)
    device.inflate_to(40 * MIB)
    began = time.monotonic()
    # What runs from a file system that is in memory is reclaimed in vain, so it goes on.
    hogs = [Program(guest, "hog 48 64 5")]
    time.sleep(6)
    took, sent = time.monotonic() - began, messages(guest)
    record_property("messages", sent)
    print(f"{sent} in {took:.1f} s")
    assert sum(sent.values()) <= took * 1000 / 100 + 6
    for hog in hogs:
        if hog.status() is None:
            hog.end()
    both_ends_agree(device, guest)
