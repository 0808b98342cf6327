# SPDX-License-Identifier: MIT
"""QEMU's own balloon device and ours, alone: no guest, the same page numbers for both (qtest.py).

A driver of ours sends buffers of 256 page numbers, as the stock driver of Linux does, but 128 of
them a kick. A guest has one buffer under way and kicks for each; here a kick is a command over
a socket, which takes about as long as our device takes for a buffer, and would be most of what is
measured. What that is about has rows of its own: one buffer a kick, and one page a kick.

Time is that from before a kick until the buffers are used. Host CPU is that of QEMU and, for ours,
of the parent and the worker of the device, all of it as the kernel accounts it. System calls are
counted by strace in passes of their own, for each eighth buffer of a stream. Before each pass QEMU
touches all the memory that will be taken. In each round all three machines have their turn.

QEMU's anonymous memory begins in huge pages where the host has them for who asks; what was given
back and touched again is in small ones, so that is what medians are of. A memfd has none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import random
import re
import subprocess
import time
from collections.abc import Iterator, Sequence

from figure import Figure, figure
from qtest import (RING_SIZE, QtestMachine, Ring, VirtioPci, own_balloon, pack, start_balloon,
                   vhost_user_balloon)
from record import MEMORY as RECORDED_MEMORY, recorded, runs
from vmm import Device
from vmm.guest import MIB, PAGE

ROOT = pathlib.Path(__file__).resolve().parent.parent
_RECORDING = ROOT / "build" / "bench-pages-7.2.txt"

GIB = 1024 * MIB
_FIRST = 16 * MIB // PAGE  # above all that a PC has in the first megabytes
_MEMORY = max(_FIRST * PAGE + GIB, RECORDED_MEMORY)
_PAUSE = 0.0001  # seconds between looks at a ring; a full one takes 15 ms or more

QEMU, OURS, ANONYMOUS = "QEMU", "Aerostat", "QEMU, anonymous memory"

_TIME_BARS = {"in order": 6.0, "reversed": 6.0, "recorded": 1.5, "shuffled": 1.3}
_CALL_BARS = {"in order": 8.0, "reversed": 8.0}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a pass took: seconds, and seconds of all processes."""

    seconds: float
    cpu: float


class Bench:
    """A machine of one of the three kinds, and how its device is worked."""

    def __init__(self, machine: QtestMachine, device: Device | None) -> None:
        self._machine = machine
        self._device = device
        self._pci: VirtioPci
        self._inflate: Ring
        self._deflate: Ring
        self._pci, self._inflate, self._deflate = start_balloon(machine)

    def pids(self) -> list[int]:
        ours = [] if self._device is None else [self._device.pid, self._device.worker()]
        return [self._machine.pid, *ours]

    def _cpu(self) -> float:
        # The clock of another process, by the kernel's encoding of its number.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self.pids())

    def touch(self, pages: Sequence[int]) -> None:
        self._machine.touch(min(pages), max(pages))

    def give(self, buffers: Sequence[bytes], a_kick: int = RING_SIZE) -> Cost:
        """Inflate, and make sure that this freed the pages. Not to the last one: in anonymous
        memory khugepaged of the host fills holes between pages that are left with new memory."""
        before = self._machine.resident()
        cost = self._work(self._inflate, buffers, a_kick, _PAUSE if a_kick > 1 else 0)
        freed, named = before - self._machine.resident(), sum(map(len, buffers)) // 4 * PAGE
        if freed < 0.9 * named:
            raise RuntimeError(f"{freed} bytes of {named} were freed")
        return cost

    def take_back(self, buffers: Sequence[bytes]) -> Cost:
        return self._work(self._deflate, buffers, RING_SIZE, 0)

    def _work(self, ring: Ring, buffers: Sequence[bytes], a_kick: int, pause: float) -> Cost:
        cpu, seconds = self._cpu(), 0.0
        for i in range(0, len(buffers), a_kick):
            ring.put(buffers[i:i + a_kick])
            start = time.perf_counter()
            ring.kick()
            ring.wait(pause)
            seconds += time.perf_counter() - start
            self._pci.acknowledge_interrupt()
        return Cost(seconds, self._cpu() - cpu)

    def calls(self, buffers: Sequence[bytes]) -> int:
        """System calls of all processes until these are used."""
        with count_calls(self.pids()) as count:
            self.give(buffers)
        return count[0]


@contextlib.contextmanager
def count_calls(pids: Sequence[int]) -> Iterator[list[int]]:
    """How many system calls processes finish meanwhile, as the one element of a list."""
    count = [0]
    attach = [word for pid in pids for word in ("-p", str(pid))]
    with subprocess.Popen(["strace", "-f", "-c", *attach], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr
        try:
            said = [tracer.stderr.readline() for _ in pids]  # of each that it is attached
            yield count
        finally:
            tracer.terminate()
        text = tracer.stderr.read()
    found = re.search(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+).* total$", text, re.M)
    if not found:
        raise RuntimeError(f"strace: {said} {text}")
    count[0] = int(found[1])


@contextlib.contextmanager
def benches(binary: pathlib.Path, workdir: pathlib.Path) -> Iterator[dict[str, Bench]]:
    """All three, for as long as the context lasts."""
    with contextlib.ExitStack() as stack:
        def machine(shared: bool, options: list[str]) -> QtestMachine:
            return stack.enter_context(QtestMachine(workdir, _MEMORY, shared, options))

        # No other way out for memory than that which is measured.
        device = stack.enter_context(Device(binary, workdir, "--features=no-page-reporting"))
        yield {QEMU: Bench(machine(True, own_balloon()), None),
               OURS: Bench(machine(True, vhost_user_balloon(device.socket)), device),
               ANONYMOUS: Bench(machine(False, own_balloon()), None)}


def streams(workdir: pathlib.Path) -> dict[str, list[list[int]]]:
    """Page numbers by name, in buffers: 1 GiB each, but the recorded ones."""
    rising = list(range(_FIRST, _FIRST + GIB // PAGE))
    shuffled = list(rising)
    random.Random(1).shuffle(shuffled)

    def cut(pages: list[int]) -> list[list[int]]:
        return [pages[i:i + 256] for i in range(0, len(pages), 256)]

    return {"in order": cut(rising), "reversed": cut(rising[::-1]),
            "recorded": recorded(workdir, _RECORDING), "shuffled": cut(shuffled)}


def packed(buffers: Sequence[Sequence[int]]) -> list[bytes]:
    return [pack(pages)[0] for pages in buffers]


def flat(buffers: Sequence[Sequence[int]]) -> list[int]:
    return [page for pages in buffers for page in pages]


class Rows:
    """Values as they come, and the figures of a row from them."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], list[float]] = {}

    def add(self, row: str, who: str, value: float) -> None:
        self._seen.setdefault((row, who), []).append(value)

    def figures(self, row: str, unit: str, bar: float | None = None) -> Iterator[Figure]:
        """A row of the table: each device, and what both of QEMU's are to ours in pairs."""
        name, ours = f"device alone: {row}", self._seen[row, OURS]
        for who in (QEMU, OURS):
            yield figure(f"{name}: {who}", self._seen[row, who], unit)
        yield figure(f"{name}: QEMU / Aerostat",
                     [theirs / own for theirs, own in zip(self._seen[row, QEMU], ours)], "ratio",
                     bar=bar, better="higher")
        anonymous = self._seen.get((row, ANONYMOUS))
        if anonymous:
            yield figure(f"{name}: {ANONYMOUS}", anonymous, unit)
            yield figure(f"{name}: anonymous / Aerostat",
                         [theirs / own for theirs, own in zip(anonymous, ours)], "ratio",
                         better="higher")


def a_round(rows: Rows, bench: Bench, who: str, stream: str, buffers: list[list[int]]) -> None:
    """Touch, give, take back."""
    pages, data = flat(buffers), packed(buffers)
    bench.touch(pages)
    given = bench.give(data)
    back = bench.take_back(data)
    rows.add(f"{stream}, time", who, 1e6 * given.seconds / len(pages))
    rows.add(f"{stream}, host CPU", who, given.cpu * GIB / PAGE / len(pages))
    rows.add(f"{stream}, deflate, time", who, 1e6 * back.seconds / len(pages))


def kicks(rows: Rows, bench: Bench, who: str, buffers: list[list[int]]) -> None:
    """What one kick costs, and what a buffer a kick comes to with it."""
    part = buffers[:len(buffers) // 4]
    pages = flat(part)
    bench.touch(pages)
    cost = bench.give(packed(part), a_kick=1)
    bench.take_back(packed(part))
    rows.add("in order, one buffer a kick, time", who, 1e6 * cost.seconds / len(pages))
    few = [[page] for page in pages[:256]]
    bench.touch(flat(few))
    cost = bench.give(packed(few), a_kick=1)
    bench.take_back(packed(few))
    rows.add("one page a kick, time", who, 1e6 * cost.seconds / len(few))


def count(rows: Rows, bench: Bench, who: str, stream: str, buffers: list[list[int]]) -> None:
    part = packed(buffers[::8])
    pages = flat(buffers[::8])
    bench.touch(pages)
    rows.add(f"{stream}, system calls", who, bench.calls(part) / len(pages))
    bench.take_back(part)


def device_alone(binary: pathlib.Path, workdir: pathlib.Path, rounds: int) -> Iterator[Figure]:
    """The section "device alone"."""
    rows, lists = Rows(), streams(workdir)
    with benches(binary, workdir) as machines:
        turns = list(machines.items())
        for stream, buffers in lists.items():
            for turn in range(rounds):
                for who, bench in turns if turn % 2 == 0 else turns[::-1]:
                    a_round(rows, bench, who, stream, buffers)
            for who, bench in turns:
                count(rows, bench, who, stream, buffers)
            yield from rows.figures(f"{stream}, time", "us/page", _TIME_BARS[stream])
            yield from rows.figures(f"{stream}, host CPU", "s/GiB")
            yield from rows.figures(f"{stream}, system calls", "calls/page",
                                    _CALL_BARS.get(stream))
            yield from rows.figures(f"{stream}, deflate, time", "us/page")
        for _ in range(rounds):
            for who, bench in turns:
                kicks(rows, bench, who, lists["in order"])
        yield from rows.figures("in order, one buffer a kick, time", "us/page")
        yield from rows.figures("one page a kick, time", "us")
    for stream in ("recorded", "shuffled"):  # how fragmented it is, which is the same for both
        for who in (QEMU, OURS):
            yield Figure(f"device alone: {stream}, runs a buffer: {who}",
                         sum(map(runs, lists[stream])) / len(lists[stream]), "runs")
