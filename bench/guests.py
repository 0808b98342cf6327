# SPDX-License-Identifier: MIT
"""Benchmarks with a real kernel under user-mode-linux: the stock driver, and ours beside it."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator

from figure import Figure, figure
from in_guest import Program
from vmm import Device, Guest
from vmm.guest import MIB
from vmm.platform import build_platform

GIB = 1024 * MIB
SIZE = 640 * MIB  # of the balloon; that much memory was touched before

# A guest that reports its free pages too would give memory back at times of its own.
QUIET = "--features=no-page-reporting"


def touch(guest: Guest) -> None:
    guest.check(f"dd if=/dev/zero of=/data/fill bs=1M count={SIZE // MIB} && rm /data/fill",
                timeout=120)


def real_guest(binary: pathlib.Path, workdir: pathlib.Path, rounds: int) -> Iterator[Figure]:
    """A stock kernel gives up touched memory and takes it again."""
    seen: dict[str, list[float]] = {}
    platform = build_platform("stock", "uml", "6.1", workdir / "initramfs")
    for _ in range(rounds):
        with Device(binary, workdir, QUIET) as device, \
                platform.guest(workdir, GIB, device.socket) as guest:
            guest.load_balloon()
            touch(guest)
            cpu, own, before = guest.cpu_seconds(), device.cpu_seconds(), device.query()
            start = time.monotonic()
            after = device.inflate_to(SIZE, timeout=120)
            seconds = time.monotonic() - start
            own = device.cpu_seconds() - own
            start = time.monotonic()
            device.inflate_to(0, timeout=120)
            for name, value in (
                    ("rate", SIZE / MIB / seconds),
                    ("back", SIZE / MIB / (time.monotonic() - start)),
                    ("device", own * GIB / SIZE),
                    ("host", (own + guest.cpu_seconds() - cpu) * GIB / SIZE),
                    ("share", 100 * own / seconds),
                    ("freed", (before["resident"] - after["resident"]) / MIB)):
                seen.setdefault(name, []).append(value)
    yield figure("real guest, inflate", seen["rate"], "MiB/s", better="higher")
    yield figure("real guest, deflate", seen["back"], "MiB/s", better="higher")
    yield figure("real guest, host CPU to inflate", seen["host"], "s/GiB")
    yield figure("real guest, of that the device", seen["device"], "s/GiB")
    yield figure("real guest, share of time in the device", seen["share"], "%")
    yield figure(f"real guest, host got back of {SIZE // MIB} MiB", seen["freed"], "MiB",
                 better="higher")


def until_actual(device: Device, size: int) -> float:
    """Set the balloon's size; the seconds until the guest says it is so."""
    start = time.monotonic()
    device.set_balloon(size)
    while device.query()["actual"] != size:
        time.sleep(0.001)
    return time.monotonic() - start


def drivers(binary: pathlib.Path, workdir: pathlib.Path, rounds: int) -> Iterator[Figure]:
    """Our module and the stock one take turns in the same guest, on the same device."""
    both = ("aerostat", "stock")
    inflate: dict[str, list[float]] = {name: [] for name in both}
    deflate: dict[str, list[float]] = {name: [] for name in both}
    platform = build_platform("aerostat", "uml", "6.1", workdir / "initramfs-drivers")
    with Device(binary, workdir, QUIET) as device, \
            platform.guest(workdir, GIB, device.socket) as guest:
        for _ in range(rounds):
            for driver in both:
                guest.load_balloon(driver)
                touch(guest)
                inflate[driver].append(until_actual(device, SIZE))
                deflate[driver].append(until_actual(device, 0))
                guest.unload_balloon()
    for driver in both:
        yield figure(f"{driver} driver, inflate", [SIZE / MIB / t for t in inflate[driver]],
                     "MiB/s", better="higher")
        yield figure(f"{driver} driver, deflate", [SIZE / MIB / t for t in deflate[driver]],
                     "MiB/s", better="higher")
    for what, times in (("inflate", inflate), ("deflate", deflate)):
        yield figure(f"stock driver / ours, time to {what}",
                     [old / new for new, old in zip(times["aerostat"], times["stock"])],
                     "ratio", bar=1.0, better="higher")


def relief(binary: pathlib.Path, workdir: pathlib.Path, rounds: int) -> Iterator[Figure]:
    """A program in a guest with our module needs what the balloon has."""
    memory, balloon, need = 256, 160, 130  # MiB
    times: dict[str, list[float]] = {}
    kills = 0
    platform = build_platform("aerostat", "uml", "6.1", workdir / "initramfs-relief")
    with Device(binary, workdir, QUIET + ",no-deflate-on-oom,message", "--on-pressure=deflate") \
            as device, platform.guest(workdir, memory * MIB, device.socket) as guest:
        guest.load_balloon()
        for _ in range(rounds):
            device.inflate_to(balloon * MIB)
            hog = Program(guest, f"hog {need} 1024")
            hog.wait_for("grown-us")
            seen = hog.end()
            times.setdefault("answer", []).append(guest.counters()["message_wait_us"])
            times.setdefault("grown", []).append(seen["grown-us"] / 1000)
            if {"reclaim-us", "relief-us"} <= seen.keys():
                times.setdefault("relief", []).append(
                    (seen["relief-us"] - seen["reclaim-us"]) / 1000)
            time.sleep(1.5)  # the driver has to find that it is over
        kills = guest.vmstat()["oom_kill"]
    yield figure("module, message to answer", times["answer"], "us")
    yield figure("module, first reclaim to a page back", times["relief"], "ms")
    yield figure(f"module, until the program has {need} MiB", times["grown"], "ms")
    yield Figure("module, programs killed", kills, "processes", bar=0)
