# SPDX-License-Identifier: MIT
"""How old the newest statistics are that a host can have of a guest, and what that costs.

QEMU asks its guest at most once a second (guest-stats-polling-interval counts seconds), a second
after the last answer came, and says in whole seconds when that was. Here their age counts from
when a reader that looks every 20 ms first saw them, which is up to 20 ms in QEMU's favour; ours say
their age themselves (age-ms).

Statistics that are asked for are at most as old as the question, so the whole round trip counts as
their age. Ours have a command for that (refresh-balloon-stats) and an event when they are there.
QEMU has neither; but when its polling is switched off and on again it asks at once, and the index
of the virtqueue tells (x-query-virtio-queue-status) when the answer is there. No client that we
know does so, and last-update would not tell it; it stands beside ours for what an update costs.

CPU is that of QEMU, with the guest's emulated processors, and of the device's two processes, less
what the same takes before and after with statistics off. That is 1 % of a core or so, most of it
the emulated guest's timer, and moves by some 0.1 %: more than an update a second can cost.
"""

from __future__ import annotations

import pathlib
import random
import time
from collections.abc import Iterator
from typing import Any

from figure import Figure, figure
from peer_machine import (MODULE, OURS, QEMU, Machine, Table, machines, new_platform, new_table,
                          rows, wait_until)
from vmm.guest import MIB

BALLOON = "/machine/peripheral/balloon0"
MEMORY = 256 * MIB
QUIET, POLLED, PUSHED, ASKED = 3.0, 5.0, 2.0, 2.0  # seconds of a measurement

AGE, CPU, EACH = "ms", "% of a core", "ms of CPU"


class Reader:
    """What a host sees that reads a machine's statistics again and again."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.monitor = (machine.guest.monitor if machine.device is None else machine.device.qmp)
        self.ages: list[float] = []  # ms
        self.told: list[float] = []  # what the answers say, ms
        self._last: Any = None
        self._came: float | None = None

    def read(self) -> None:
        answer = self.monitor.execute("qom-get", path=BALLOON, property="guest-stats")
        if self.machine.device is not None:
            if "age-ms" in answer:
                self.ages.append(float(answer["age-ms"]))
                self.told.append(float(answer["age-ms"]))
            return
        now = time.monotonic()
        if answer != self._last:
            # When the first ones came is not known.
            self._came = None if self._last is None else now
            self._last = answer
        if self._came is not None:
            self.ages.append((now - self._came) * 1000)
            self.told.append((time.time() - int(answer["last-update"])) * 1000)


def read_for(peers: list[Machine], seconds: float) -> dict[str, Reader]:
    """What a reader sees of each of them in that time. Its pauses vary, or it would keep step with
    what it looks at."""
    readers = [Reader(machine) for machine in peers]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for reader in readers:
            reader.read()
        time.sleep(random.uniform(0.01, 0.03))
    return {reader.machine.name: reader for reader in readers}


def shares(peers: list[Machine], seconds: float) -> dict[str, float]:
    """Per cent of a core that each of them uses while nobody reads anything."""
    before, start = [machine.used() for machine in peers], time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - start
    return {machine.name: 100 * (machine.used() - used).total / took
            for machine, used in zip(peers, before)}


def poll(machine: Machine, seconds: int) -> None:
    """Statistics every so many seconds; 0: none."""
    monitor = machine.guest.monitor if machine.device is None else machine.device.qmp
    monitor.execute("qom-set", path=BALLOON, property="guest-stats-polling-interval",
                    value=seconds)


def note(table: Table, way: str, name: str, ages: list[float], share: float,
         rate: float = 0.0) -> None:
    """`share` is the CPU beyond that of an idle machine, `rate` in updates a second if that is
    enough of them to say what one costs."""
    table[f"{way}, age"][name] += ages
    table[f"{way}, age, worst"][name] = [max(ages + table[f"{way}, age, worst"][name])]
    table[f"{way}, CPU"][name].append(share)
    if rate:
        table[f"{way}, CPU an update"][name].append(10 * share / rate)


def taken(machine: Machine) -> int:
    """How many buffers QEMU's device has taken from the guest's queue of statistics."""
    answer = machine.guest.monitor.execute("x-query-virtio-queue-status", queue=2,
                                           path=f"{BALLOON}/virtio-backend")
    return int(answer["last-avail-idx"])


def ask(machine: Machine) -> None:
    """Returns when statistics have come, or have been asked for where the device is QEMU's."""
    if machine.device is not None:
        machine.device.refresh_stats()
    else:
        poll(machine, 0)
        poll(machine, 1)


def asked(machine: Machine, idle: float, table: Table) -> None:
    """Ask every 10 ms, as long as each answer has come by then."""
    first = taken(machine) if machine.device is None else 0
    ages: list[float] = []
    before, start = machine.used(), time.monotonic()
    while (begin := time.monotonic()) < start + ASKED:
        ask(machine)
        ages.append((time.monotonic() - begin) * 1000)
        time.sleep(max(begin + 0.01 - time.monotonic(), 0))
    took, used = time.monotonic() - start, (machine.used() - before).total
    updates = len(ages)
    if machine.device is None:
        # Neither does it say when they have come, nor would it be cheap to look all the time.
        updates = (taken(machine) - first) % 65536
        ages = [waited(machine) for _ in range(50)]
        poll(machine, 0)
    share = 100 * used / took - idle
    note(table, "asked for every 10 ms", machine.name, ages, share, updates / took)


def waited(machine: Machine) -> float:
    """Milliseconds until the guest has answered QEMU's device."""
    begin, before = time.monotonic(), taken(machine)
    ask(machine)
    return (wait_until("statistics", lambda: taken(machine) != before, pause=0) - begin) * 1000


def pushed(machine: Machine, interval: int, idle: float, table: Table) -> None:
    """The guest sends them every `interval` ms."""
    device = machine.device
    assert device is not None
    device.qmp.execute("set-stats-push-interval", interval_ms=interval)
    device.qmp.events.clear()
    device.qmp.wait_event("BALLOON", 30)
    before, start, updates = machine.used(), time.monotonic(), 0
    while time.monotonic() < start + PUSHED:
        device.qmp.wait_event("BALLOON", 30)
        updates += 1
    took = time.monotonic() - start
    share = 100 * (machine.used() - before).total / took - idle
    ages = read_for([machine], PUSHED)[machine.name].ages
    device.qmp.execute("set-stats-push-interval", interval_ms=0)
    note(table, f"pushed every {interval} ms", machine.name, ages, share, updates / took)


def one_round(peers: list[Machine], table: Table) -> None:
    quiet = [shares(peers, QUIET)]
    for machine in peers:
        poll(machine, 1)
    time.sleep(1)
    busy, seen = shares(peers, POLLED), read_for(peers, POLLED)
    for machine in peers:
        poll(machine, 0)
    time.sleep(1)
    quiet.append(shares(peers, QUIET))
    for machine in peers:
        name = machine.name
        idle = sum(share[name] for share in quiet) / len(quiet)
        note(table, "polled each second", name, seen[name].ages, busy[name] - idle)
        told = table["polled each second, age that the answer tells, worst"]
        told[name] = [max(seen[name].told + told[name])]
        asked(machine, idle, table)
        if name == MODULE:
            for interval in (100, 10):
                pushed(machine, interval, idle, table)


def statistics_freshness(binary: pathlib.Path, workdir: pathlib.Path,
                         rounds: int) -> Iterator[Figure]:
    """A round has many updates in it, and takes half a minute: there are a third of them."""
    table = new_table()
    with machines(new_platform(workdir, "statistics"), binary, workdir, (QEMU, OURS, MODULE),
                  MEMORY, "no-page-reporting,stats-push") as peers:
        time.sleep(2)  # a kernel goes on for a while after it has booted
        for _ in range(max(rounds // 3, 1)):
            one_round(peers, table)
    for row, columns in sorted(table.items(), key=lambda item: item[0].split(",")[0]):
        unit = AGE if ", age" in row else CPU if row.endswith("CPU") else EACH
        yield from rows("statistics", row, unit, columns, ratio=False)
    # What each has a way to know of: QEMU's interval, and our command.
    freshest = {QEMU: table["polled each second, age"][QEMU],
                OURS: table["asked for every 10 ms, age"][OURS],
                MODULE: table["asked for every 10 ms, age"][MODULE]}
    found = {name: figure(f"statistics: freshest, age: {name}", ages, AGE)
             for name, ages in freshest.items()}
    yield from found.values()
    for name in (OURS, MODULE):
        yield Figure(f"statistics: freshest, age: QEMU / {name}",
                     found[QEMU].value / found[name].value, "ratio", better="higher")
