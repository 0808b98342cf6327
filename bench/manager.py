# SPDX-License-Identifier: MIT
"""What the manager is worth and what it costs: memory moved between real guests, and a thousand
machines' monitors that are nothing but monitors."""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import subprocess
import time
from collections.abc import Iterator
from typing import IO

from balancers import BALANCERS, balanced_by
from figure import Figure, figure
from moving_work import BUDGET, GUESTS, MovingWork, Outcome
from vmm.guest import MIB
from vmm.manager import Manager
from vmm.platform import build_platform

OURS = "aerostatd"
STATIC = "equal shares"
PHASES, PHASE_S = 4, 20.0

ENDPOINTS = 1000
VM_SIZE = 1024 * MIB  # of machine.h
SETTLE_S = 5.0
TICKS = os.sysconf("SC_CLK_TCK")


# --- eight guests ---------------------------------------------------------------------------------

@contextlib.contextmanager
def managed_by(name: str, work: MovingWork, manager: pathlib.Path,
               workdir: pathlib.Path) -> Iterator[None]:
    """Everybody has an equal share, and from there on somebody balances, or nobody."""
    work.start_over()
    if name == STATIC:
        yield
    elif name == OURS:
        with Manager(manager, workdir, budget=BUDGET) as host:
            for number, device in enumerate(work.devices):
                host.watch(work.name(number), device.monitor)
            host.wait_for("all guests", lambda vms: len(vms) == GUESTS and all(
                vm["managed"] for vm in vms.values()))
            yield
    else:
        with balanced_by(name, work.devices, BUDGET):
            yield


def eight_guests(build: pathlib.Path, binary: pathlib.Path, workdir: pathlib.Path,
                 rounds: int) -> Iterator[Figure]:
    """Who balances takes turns; the same guests do the same work for each."""
    names = (STATIC, *BALANCERS, OURS)
    seen: dict[str, list[Outcome]] = {name: [] for name in names}
    manager = build / "src" / "aerostatd" / "aerostatd"
    platform = build_platform("aerostat", "uml", "6.1", workdir / "initramfs-balance")
    with MovingWork(binary, workdir, platform) as work:
        for number in range(rounds):
            for name in names if number % 2 == 0 else names[::-1]:
                with managed_by(name, work, manager, workdir):
                    seen[name].append(work.run(PHASES, PHASE_S))
    seconds = PHASES * PHASE_S
    for name in names:
        runs = seen[name]
        yield figure(f"{name}: work", [run.work / seconds for run in runs], "pages/s",
                     better="higher")
        yield figure(f"{name}: least work in a hot phase", [run.least / PHASE_S for run in runs],
                     "pages/s", better="higher")
        yield figure(f"{name}: guests keep, on average", [run.kept / BUDGET for run in runs],
                     "of budget")
        yield figure(f"{name}: guests keep, most", [run.kept_most / BUDGET for run in runs],
                     "of budget")
        yield figure(f"{name}: time above the budget", [100 * run.over for run in runs], "%")
        # Guests in need are released beyond the budget; the host's memory is another matter.
        yield figure(f"{name}: resident, most", [run.resident_most / BUDGET for run in runs],
                     "of budget", bar=1.02 if name == OURS else None)
        yield Figure(f"{name}: programs killed", sum(run.kills for run in runs), "processes",
                     bar=0 if name == OURS else None)
        assert not any(run.wrong for run in runs), "a guest lost what it had written"
    for name in names[:-1]:
        yield figure(f"work with {OURS} / {name}",
                     [ours.work / theirs.work for ours, theirs in zip(seen[OURS], seen[name])],
                     "ratio", bar=1.5 if name == STATIC else 1.0, better="higher")


# --- a thousand monitors --------------------------------------------------------------------------

class Monitors:
    """bench/monitors.c beside a manager, from when it is settled until it has its figures."""

    def __init__(self, build: pathlib.Path, workdir: pathlib.Path, count: int, kind: str,
                 seconds: float) -> None:
        self.latencies: dict[str, tuple[float, float, float, int]] = {}  # p50, p99, most, count
        self.counts: dict[str, int] = {}
        # They were promised more than that, so that there is something to decide. What the disk
        # does to commands that are to be remembered is not the subject.
        with Manager(build / "src" / "aerostatd" / "aerostatd", workdir, "--state=off",
                     budget=count * VM_SIZE * 6 // 10) as host:
            with subprocess.Popen(
                    [build / "bench" / "monitors", host.monitors, str(count), kind, host.control,
                     f"{1000 * SETTLE_S:.0f}", f"{1000 * seconds:.0f}"],
                    stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                try:
                    self._measure(process.stdout, host, seconds)
                finally:
                    process.kill()

    def _measure(self, lines: IO[str], host: Manager, seconds: float) -> None:
        _expect(lines, "listening", 30)
        _expect(lines, "begin", 90)
        cpu, waited, start = cpu_seconds(host.pid), waited_seconds(host.pid), time.monotonic()
        _expect(lines, "end", seconds + 30)
        self.cpu_share = (cpu_seconds(host.pid) - cpu) / (time.monotonic() - start)
        self.waited_share = (waited_seconds(host.pid) - waited) / (time.monotonic() - start)
        self.memory = resident_bytes(host.pid)
        for line in lines:
            words = line.split()
            if len(words) == 5:
                self.latencies[words[0]] = (float(words[1]), float(words[2]), float(words[3]),
                                            int(words[4]))
            else:
                self.counts[words[0]] = int(words[1])


def _expect(lines: IO[str], word: str, timeout: float) -> None:
    ready, _, _ = select.select([lines], [], [], timeout)
    line = lines.readline().strip() if ready else "nothing"
    if line != word:
        raise RuntimeError(f"the monitors say {line or 'nothing more'}, and not {word}")


def cpu_seconds(pid: int) -> float:
    text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def waited_seconds(pid: int) -> float:
    """For how long it could have run, and others had the processors."""
    return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9


def resident_bytes(pid: int) -> int:
    """All that it has in memory, shared or not."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in text.splitlines()
                if line.startswith("Rss:"))


def thousand_endpoints(build: pathlib.Path, workdir: pathlib.Path,
                       quick: bool) -> Iterator[Figure]:
    """Machines that have statistics once a second."""
    rounds, seconds = (1, 10.0) if quick else (5, 20.0)
    for kind in ("aerostat", "qemu"):
        runs = [Monitors(build, workdir, ENDPOINTS, kind, seconds) for _ in range(rounds)]
        what = f"{ENDPOINTS} monitors of {kind}"
        yield figure(f"{what}, statistics", [run.counts["statistics"] / seconds for run in runs],
                     "a second", better="higher")
        yield figure(f"{what}, targets set", [run.counts["targets"] / seconds for run in runs],
                     "a second")
        yield figure(f"{what}, share of a core", [100 * run.cpu_share for run in runs], "%",
                     bar=10)
        yield figure(f"{what}, others had the processors",
                     [100 * run.waited_share for run in runs], "%")
        yield figure(f"{what}, memory", [run.memory / MIB for run in runs], "MiB", bar=64)
        for name in runs[0].latencies:
            yield figure(f"{what}, {name}, p99",
                         [run.latencies[name][1] / 1000 for run in runs], "ms", bar=100)
        if kind == "aerostat":
            yield Figure(f"{what}, events not answered", sum(run.counts["lost"] for run in runs),
                         "events", bar=0)


def pressure_latency(build: pathlib.Path, workdir: pathlib.Path, quick: bool) -> Iterator[Figure]:
    """From a guest's word to the command that gives it memory."""
    rounds = 1 if quick else 5
    for count, seconds in ((1, 30.0 if quick else 120.0), (ENDPOINTS, 10.0 if quick else 20.0)):
        runs = [Monitors(build, workdir, count, "aerostat", seconds)
                for _ in range(rounds if count > 1 else 1)]
        what = f"{count} monitor{'s' if count > 1 else ''}, pressure to target"
        found = [run.latencies["pressure-target"] for run in runs]
        yield figure(f"{what}, p50", [one[0] / 1000 for one in found], "ms")
        yield figure(f"{what}, p99", [one[1] / 1000 for one in found], "ms", bar=2)
        yield figure(f"{what}, longest", [one[2] / 1000 for one in found], "ms")
        yield figure(f"{what}, others had the processors",
                     [100 * run.waited_share for run in runs], "%")
        yield Figure(f"{what}, events", sum(one[3] for one in found), "events", better="higher")
