#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Benchmarks: each figure that an issue set a bar for is a ratio within one run, or a count.

A table goes to standard output, and build/bench.json holds the same: a list of {name, value, unit,
spread, bar, better, holds}. The spread is the distance between the quartiles, of three values or
less that between all; bar and holds are null where nobody has set a bar. Beside it bench.about.json
says when, where and with what. Exit status: 0 if every bar holds, 1 if not, 2 wrong usage.

With --peer=qemu our device takes turns with QEMU's own balloon. The figures' names then have three
pieces, "SECTION: ROW: COLUMN", of which tables.py makes the tables of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "bench"), str(ROOT / "tests" / "guest"), str(ROOT / "tests" / "protocol")]

from balloon import ARENA, Guest as FakeGuest  # noqa: E402
from figure import Figure, figure  # noqa: E402
from guests import GIB, drivers, real_guest, relief  # noqa: E402
from manager import eight_guests, pressure_latency, thousand_endpoints  # noqa: E402
from peer_device import device_alone  # noqa: E402
from peer_guest import guest_end_to_end, page_reporting  # noqa: E402
from peer_pressure import pressure_relief  # noqa: E402
from peer_statistics import statistics_freshness  # noqa: E402
from vhost_user import Region  # noqa: E402
from vmm import Device, DriverGuest, MissingPackage  # noqa: E402
from vmm.guest import MIB  # noqa: E402
from vmm.qemu import find_kernel, find_qemu  # noqa: E402

Parts = dict[str, Callable[[], Iterator[Figure]]]
SHARED = "/memfd:aerostat-"
PAGES = GIB // 4096


def device_path(build: pathlib.Path, rounds: int) -> Iterator[Figure]:
    """Time of the device path, in turns with the kernel alone."""
    for stream in ("in-order", "reverse", "shuffled"):
        text = subprocess.run([build / "bench" / "device", "time", stream, str(rounds)],
                              check=True, capture_output=True, text=True).stdout
        runs = [[float(word) for word in line.split()] for line in text.splitlines()]
        yield figure(f"device, {stream}", [1e9 * run[0] / PAGES for run in runs], "ns/page")
        if stream == "shuffled":
            yield figure(f"device / one punch a page, {stream}", [r[0] / r[2] for r in runs],
                         "ratio", bar=1.05)
            continue
        yield figure(f"device / bare punch of the same ranges, {stream}",
                     [r[0] / r[1] for r in runs], "ratio", bar=1.15)
        yield figure(f"one punch a page / device, {stream}", [r[2] / r[0] for r in runs],
                     "ratio", bar=4.0, better="higher")


def instructions(build: pathlib.Path) -> Iterator[Figure]:
    """Instructions a PFN with a discard that does nothing, counted by callgrind."""
    pages = 65536
    for stream, bar in (("in-order", 40.0), ("reverse", 40.0), ("shuffled", 200.0)):
        run = subprocess.run(
            ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
             "--toggle-collect=balloon_queue_run", build / "bench" / "device", "run", stream,
             str(pages)], check=True, capture_output=True, text=True)
        found = re.search(r"Collected : (\d+)", run.stderr)
        assert found, run.stderr
        yield Figure(f"instructions, {stream}", int(found[1]) / pages, "a PFN", bar=bar)


def served(build: pathlib.Path, binary: pathlib.Path, quick: bool) -> Iterator[Figure]:
    """The whole program from the guest's side: latency of messages, cost of statistics, crashes."""
    def run(mode: str, n: int) -> list[list[str]]:
        text = subprocess.run([build / "bench" / "served", binary, mode, str(n)], check=True,
                              capture_output=True, text=True).stdout
        return [line.split() for line in text.splitlines()]

    before, device, after = ([float(word) for word in row[1:]]
                             for row in run("message", 10000 if quick else 100000))
    for i, name in enumerate(("p50", "p99")):
        trip = (before[i] + after[i]) / 2
        yield Figure(f"eventfd round trip, {name}", trip / 1000, "us",
                     abs(before[i] - after[i]) / 1000)
        yield Figure(f"message to acknowledged, {name}", device[i] / 1000, "us")
        yield Figure(f"device adds to a round trip, {name}", (device[i] - trip) / trip, "ratio",
                     bar=3.0)
    for mode, who in (("stats", ""), ("alone", ", no monitor client")):
        cpu = [float(row[1]) for row in run(mode, 5 if quick else 20)]
        yield figure(f"CPU at 100 statistics a second{who}", cpu, "% of a core",
                     bar=None if who else 0.5)
    p50, p99, most = (float(word) for word in run("crash", 20 if quick else 200)[0][1:])
    yield Figure("crash to serving again, p50", p50, "ms", bar=20.0)
    yield Figure("crash to serving again, p99", p99, "ms", bar=20.0)
    yield Figure("crash to serving again, longest", most, "ms")


def pressure(binary: pathlib.Path, workdir: pathlib.Path, rounds: int) -> Iterator[Figure]:
    """A program in a guest of our own driver needs what the balloon has."""
    memory, balloon, need = 256, 192, 128
    times: dict[str, list[float]] = {}
    with Device(binary, workdir, "--features=no-page-reporting,message", "--on-pressure=deflate",
                f"--pressure-steps={need}M,{need}M,{need}M") as device, \
            DriverGuest(binary, device.socket, memory) as guest:
        for _ in range(rounds):
            device.inflate_to(balloon * MIB)
            guest.run(f"use {memory - balloon - 2}")
            time.sleep(0.15)  # else the driver would be told to wait with the next message
            for name, value in guest.run(f"hog {need}").items():
                times.setdefault(name, []).append(float(value))
            guest.run("check")
            guest.run(f"free {memory - balloon - 2 + need}")
    yield figure("pressure told to answer", times["answered-us"], "us")
    yield figure("pressure told to first page released", times["first-page-us"], "us")
    yield figure(f"pressure told to {need} MiB in use", times["all-ms"], "ms")


class LargeGuest(FakeGuest):
    """16 GiB that nobody touches."""

    def _touch(self) -> None:
        self.mem.write(self.arena, bytes(ARENA))


def private_mib(pid: int) -> float:
    """What a process has for itself, without the memory that parent and worker share."""
    kib, ours = 0, False
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as smaps:
        for line in smaps:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                ours = SHARED not in line
            elif ours and line.startswith("Private_"):
                kib += int(line.split()[1])
    return kib / 1024


def shared_mib(parent: int) -> float:
    """The memory that parent and worker share, in files that have no other name."""
    blocks = {}
    for path in pathlib.Path(f"/proc/{parent}/fd").iterdir():
        if os.readlink(path).startswith(SHARED):
            stat = path.stat()
            blocks[stat.st_ino] = stat.st_blocks
    return sum(blocks.values()) * 512 / MIB


def device_mib(pids: list[int]) -> float:
    return sum(map(private_mib, pids)) + shared_mib(pids[0])


def switches(pids: list[int]) -> int:
    texts = [pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii") for pid in pids]
    return sum(int(n) for text in texts for n in re.findall(r"ctxt_switches:\s+(\d+)", text))


def process(binary: pathlib.Path, workdir: pathlib.Path, seconds: float) -> Iterator[Figure]:
    """Memory of parent and worker together, and their wake-ups, while a driver is at work and a
    client connected."""
    with Device(binary, workdir) as device:
        pids = [device.pid, device.worker()]
        guest = LargeGuest(str(device.socket), regions=[Region(0, 16 * GIB)]).start()
        try:
            device.wait_for("the rings", lambda state: len(state["queues"]) == 3)
            for name, pid in (("parent", pids[0]), ("worker", pids[1])):
                yield Figure(f"private memory, 16 GiB guest, {name}", private_mib(pid), "MiB")
            yield Figure("private memory, 16 GiB guest, all", device_mib(pids), "MiB", bar=1.5)
            # A page in each 128 MiB: all of the bitmap is in use.
            guest.inflate([pfn + 16 for pfn in range(0, 16 * GIB // 4096, 32768)][1:])
            yield Figure("private memory, all of the bitmap in use", device_mib(pids), "MiB",
                         bar=3.5)
            device.query()
            time.sleep(1)
            before = switches(pids)
            time.sleep(seconds)
            yield Figure(f"wake-ups in {seconds:g} s", switches(pids) - before, "wake-ups", bar=0)
            yield Figure(f"system calls in {seconds:g} s (strace -c)", strace(pids, seconds),
                         "calls", bar=0)
        finally:
            guest.close()


def strace(pids: list[int], seconds: float) -> int:
    """System calls that processes finish in that time."""
    attach = [word for pid in pids for word in ("-p", str(pid))]
    with subprocess.Popen(["strace", "-f", "-c", *attach], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as tracer:
        time.sleep(seconds)
        tracer.terminate()
        assert tracer.stderr
        text = tracer.stderr.read()
    found = re.search(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+).* total$", text, re.M)
    return int(found[1]) if found else 0


def own_parts(build: pathlib.Path, binary: pathlib.Path, workdir: pathlib.Path,
              quick: bool) -> Parts:
    """What we measure of ourselves."""
    rounds = 3 if quick else 7
    return {
        "device": lambda: device_path(build, rounds),
        "instructions": lambda: instructions(build),
        "guest": lambda: real_guest(binary, workdir, 2 if quick else 5),
        "drivers": lambda: drivers(binary, workdir, 2 if quick else 7),
        "relief": lambda: relief(binary, workdir, 2 if quick else 7),
        "process": lambda: process(binary, workdir, 10),
        "served": lambda: served(build, binary, quick),
        "pressure": lambda: pressure(binary, workdir, 5 if quick else 20),
        "balance": lambda: eight_guests(build, binary, workdir, 1 if quick else 3),
        "endpoints": lambda: thousand_endpoints(build, workdir, quick),
        "latency": lambda: pressure_latency(build, workdir, quick),
    }


def parts_beside_qemu(binary: pathlib.Path, workdir: pathlib.Path, quick: bool) -> Parts:
    """QEMU's own balloon and ours, in turns."""
    rounds = 3 if quick else 7
    return {
        "device": lambda: device_alone(binary, workdir, rounds),
        "guest": lambda: guest_end_to_end(binary, workdir, rounds),
        "reporting": lambda: page_reporting(binary, workdir, rounds),
        "statistics": lambda: statistics_freshness(binary, workdir, rounds),
        "pressure": lambda: pressure_relief(binary, workdir, rounds),
    }


def about(peer: str) -> dict[str, str]:
    """When, where and with what was measured."""
    def said(*command: str | pathlib.Path) -> str:
        if shutil.which(command[0]) is None:
            return ""  # a system without git
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        return (run.stdout.splitlines() or [""])[0].strip()

    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text("utf-8"))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{len(os.sched_getaffinity(0))} processors ({model[1] if model else '?'}), "
                   f"{memory / GIB:.0f} GiB",
        "host kernel": platform.release(),
        "compiler": said("gcc", "--version"),
        "aerostat": said("git", "describe", "--always", "--dirty") or "?",
    }
    if peer == "qemu":
        facts["QEMU"] = said(*find_qemu(), "--version")
        facts["guest kernel"] = find_kernel("7.2").release
        facts["accelerator"] = os.environ.get("AEROSTAT_ACCEL") or "tcg"
    return facts


def save(path: pathlib.Path, figures: list[Figure], told: dict[str, str]) -> None:
    rows = [dataclasses.asdict(row) | {"holds": row.holds} for row in figures]
    for place, content in ((path, rows), (path.with_suffix(".about.json"), told)):
        place.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def choose(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, required=True, help="release build directory")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the figures too")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--peer", choices=["qemu"], default="", help="measure beside this device")
    parser.add_argument("--only", metavar="PART", help="one part of it")
    return parser.parse_args(arguments)


def interrupt(number: int, frame: object) -> None:
    """SIGTERM is taken as Ctrl-C is: guests and devices are ended, files removed."""
    raise KeyboardInterrupt(number)


def main() -> int:
    args = choose(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    binary = args.build / "src" / "vhost-user-balloon" / "vhost-user-balloon"
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="aerostat-bench-") as name:
        workdir = pathlib.Path(name)
        parts = (parts_beside_qemu(binary, workdir, args.quick) if args.peer else
                 own_parts(args.build, binary, workdir, args.quick))
        if args.only not in (None, *parts):
            print(f"run bench: no part '{args.only}'; there are: {', '.join(parts)}",
                  file=sys.stderr)
            return 2
        told = about(args.peer)
        for part, measure in parts.items():
            if args.only in (None, part):
                for row in measure():
                    figures.append(row)
                    print(row.row(), flush=True)
                if args.json:  # after each part: a run that is ended has not been for nothing
                    save(args.json, figures, told)
    missed = [row.name for row in figures if row.holds is False]
    for row_name in missed:
        print(f"bar missed: {row_name}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MissingPackage as error:
        sys.exit(f"run bench: {error}")
    except KeyboardInterrupt as by:
        sys.exit(128 + (by.args[0] if by.args else signal.SIGINT))
