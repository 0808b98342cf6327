# SPDX-License-Identifier: MIT
"""Real guests with QEMU's own balloon, and with ours: inflation and page reporting."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator

from figure import Figure
from peer_machine import (ANONYMOUS, MODULE, OURS, PLAIN, QEMU, Machine, Table, Used, machines,
                          new_platform, new_table, rows, turn, wait_until)
from vmm.guest import MIB

GIB = 1024 * MIB
MEMORY = 1536 * MIB
TOUCHED = 1280 * MIB  # before each inflation: as much of it as leaves room for the guest itself
BACK = 0.9  # of what a guest has freed: the last of it may never be reported


def inflate_and_deflate(machine: Machine, table: Table) -> None:
    """One round of one machine."""
    machine.use(TOUCHED)
    machine.free()
    time.sleep(0.3)  # what the end of a large program leaves to be done
    before = machine.guest.resident()
    for what, size in (("inflate", GIB), ("deflate", 0)):
        used = machine.used()
        seconds = machine.set_balloon(size)
        used = machine.used() - used
        table[f"{what}, host CPU"][machine.name].append(used.total)
        table[f"{what}, of that outside the guest's processors"][machine.name].append(used.outside)
        table[f"{what}, time"][machine.name].append(seconds)
        if size:
            back = (before - machine.guest.resident()) / MIB
            table["host got back of 1024 MiB"][machine.name].append(back)


def guest_end_to_end(binary: pathlib.Path, workdir: pathlib.Path,
                     rounds: int) -> Iterator[Figure]:
    """A stock kernel gives up 1 GiB that it has used, and takes it again. The second set of rows
    is of guests with the options that peer_machine.py speaks of."""
    platform = new_platform(workdir, "end-to-end")
    for prefix, options, names, times in (
            ("", (), (QEMU, OURS, MODULE, ANONYMOUS), min(rounds, 5)),
            ("no clearing of pages, ", PLAIN, (QEMU, OURS), max(min(rounds, 5) // 2, 1))):
        table = new_table()
        with machines(platform, binary, workdir, names, MEMORY, "no-page-reporting",
                      options=options) as peers:
            for number in range(times):
                for machine in turn(peers, number):
                    inflate_and_deflate(machine, table)
        bars = {} if prefix else {"inflate, host CPU": 2.0, "deflate, host CPU": 1.0}
        for row, columns in table.items():
            back = row.startswith("host got back")
            if not back or not prefix:
                yield from rows("guest", prefix + row, "MiB" if back else "s", columns,
                                "higher" if back else "lower", bars.get(row), not back)


class Watch:
    """A machine from when its guest has freed 1 GiB until the host has most of it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._full = machine.guest.resident()
        machine.free()
        self._start, self._before = time.monotonic(), machine.used()
        self.seconds = 0.0
        self.used: Used | None = None

    def over(self) -> bool:
        back = self._full - self.machine.guest.resident()
        if self.used is None and back >= BACK * GIB:
            self.seconds = time.monotonic() - self._start
            self.used = self.machine.used() - self._before
        return self.used is not None


def page_reporting(binary: pathlib.Path, workdir: pathlib.Path, rounds: int) -> Iterator[Figure]:
    """Nobody asks the guest for anything. How soon it reports what is free is its kernel's
    business: it waits for 2 s, reports a part, waits again. So the machines are watched side by
    side, and what one uses is its own. Rounds are long: there are half as many."""
    table = new_table()
    with machines(new_platform(workdir, "reporting"), binary, workdir, (QEMU, OURS, MODULE),
                  MEMORY, own="free-page-reporting=on") as peers:
        for number in range((rounds + 1) // 2):
            for machine in peers:
                machine.use(GIB)
            watched = [Watch(machine) for machine in turn(peers, number)]
            wait_until("reported pages", lambda: all([watch.over() for watch in watched]))
            for watch in watched:
                name, used = watch.machine.name, watch.used
                if used is None:
                    raise AssertionError("over() of all of them was true")
                table["time"][name].append(watch.seconds)
                table["host CPU"][name].append(used.total)
                table["of that outside the guest's processors"][name].append(used.outside)
    for row, columns in table.items():
        yield from rows("page reporting", f"1 GiB freed until {BACK:.0%} are on the host, {row}",
                        "s", columns)
