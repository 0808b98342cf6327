#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Real Linux guests give memory back to their host, and get it again; a manager shares it out.

`./run demo` builds the device and starts this with AEROSTAT_BALLOON naming it. Exit status 0 only
if memory really came back and the guest's data is what it was; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "guest"))
sys.dont_write_bytecode = True

from demo_host import play_host  # noqa: E402
from demo_screen import WIDTH, Failed, Screen, require  # noqa: E402
from in_guest import Program  # noqa: E402
from vmm import (Device, DeviceError, Guest, GuestData, GuestError, MissingPackage,  # noqa: E402
                 QmpClient, QmpError)
from vmm.data import pattern  # noqa: E402
from vmm.guest import MIB  # noqa: E402
from vmm.manager import ManagerError  # noqa: E402
from vmm.platform import Platform, build_platform  # noqa: E402

MEMORY = 384 * MIB
DATA = 192 * MIB
DISK = 256 * MIB  # more than there is room for: what the data leaves becomes page cache
FREE = DATA // 2  # every second file is deleted, so that the balloon comes to lie between the rest
CACHE = 112 * MIB
BALLOON = FREE + CACHE

# What must have worked, as shares of what was asked.
FREED_AT_LEAST = 0.9
USED_AGAIN_AT_LEAST = 0.9

INTRO = f"""\
A Linux guest with {MEMORY // MIB} MiB of memory boots, with the balloon driver that every
Linux has. We fill its memory, take {BALLOON // MIB} MiB from it, and give them back. In MiB:

  guest    what the guest says of itself (the statistics of its balloon driver)
  balloon  what the host wants, and what the guest says that it handed over
  host     what the guest's memory occupies on the host, as the host kernel counts
"""
HEADER = ("                                       guest           balloon     host\n"
          " time  step                      total  free avail   wanted taken  in use")

DRIVER_INTRO = """\
A second guest has loaded our own module virtio_balloon in the stock one's place. It pushes its
statistics on a timer, and tells the host when memory is short."""
DRIVER_MEMORY = 256  # MiB, like what follows
DRIVER_BALLOON = 160
NEED = 130
INTERVAL_MS = 100
PUSH_SECONDS = 2


class Interrupted(Exception):
    """The user, or a signal, wants us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Table:
    """A row for every step of the demo. On a terminal the row of the running step is alive."""

    def __init__(self, screen: Screen, device: Device, guest: Guest, start: float) -> None:
        self._screen = screen
        self._device = device
        self._guest = guest
        self._start = start

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        enough = threading.Event()
        painter = threading.Thread(target=self._paint, args=(name, enough), daemon=True)
        if self._screen.terminal:
            painter.start()
        try:
            yield
        finally:
            enough.set()
            if self._screen.terminal:
                painter.join()
        with QmpClient(self._device.monitor) as qmp:
            self._device.refresh_stats()
            self._screen.line(self._row(qmp, name))

    def _paint(self, name: str, enough: threading.Event) -> None:
        # A monitor of its own; what goes wrong here the step itself will tell.
        with contextlib.suppress(OSError, QmpError, GuestError, DeviceError), \
                QmpClient(self._device.monitor) as qmp:
            while not enough.wait(0.1):
                self._screen.live(self._screen.paint(self._row(qmp, name), "1"))
                qmp.execute("refresh-balloon-stats")

    def _row(self, qmp: QmpClient, name: str) -> str:
        balloon = qmp.execute("query-balloon-device")
        stats = qmp.execute("qom-get", path="/machine/peripheral/balloon0",
                            property="guest-stats")["stats"]
        resident = self._guest.resident()
        row = f"{time.monotonic() - self._start:4.1f}s  {name:25}"
        for key in ("total", "free", "available"):
            value = stats.get(f"stat-{key}-memory")
            row += f"{value // MIB:6}" if value is not None else f"{'-':>6}"
        row += f"{balloon['target'] // MIB:9}{balloon['actual'] // MIB:6}{resident // MIB:8}  "
        bar = self._screen.bar(resident, self._guest.memory, self._screen.columns() - WIDTH - 1)
        return (row + bar).rstrip()


def make_disk(path: pathlib.Path) -> str:
    """Write the disk whose contents fill the page cache; return its checksum."""
    digest = hashlib.md5()
    with path.open("wb") as disk:
        for number in range(DISK // MIB):
            block = pattern(f"disk-{number}", MIB // 4096)
            digest.update(block)
            disk.write(block)
    return digest.hexdigest()


def require_data(data: GuestData, when: str) -> None:
    damaged = data.damaged()
    require(not damaged, f"{when} the guest's data is damaged:\n  " + "\n  ".join(damaged))


def move(device: Device, size: int) -> float:
    """Set the balloon's size; return the seconds until the guest had done it."""
    start = time.monotonic()
    device.inflate_to(size)
    return time.monotonic() - start


def rate(size: int, seconds: float) -> str:
    return f"{size / MIB:.0f} MiB in {seconds:.2f} s = {size / MIB / seconds:.0f} MiB/s"


def wait_for_health(device: Device, status: str) -> float:
    """The seconds until the device says that of its guest."""
    start = time.monotonic()
    while (health := device.qmp.execute("query-guest-health"))["status"] != status:
        require(time.monotonic() - start < 30, f"the guest is not {status}, but {health}")
        time.sleep(0.01)
    return time.monotonic() - start


def show_memory(screen: Screen, device: Device, guest: Guest, disk_sum: str,
                start: float) -> None:
    """Take memory from the guest, and give it back."""
    kernel = guest.check("uname -r").strip()
    screen.line(screen.paint(HEADER, "2"))
    table = Table(screen, device, guest, start)
    with table.step(f"Linux {kernel} is up"):
        # A disk that nobody has open has no page cache.
        guest.check("sleep 1000 </dev/ubda >/dev/null 2>&1 &")
    data = GuestData(guest)
    with table.step("write data to memory"):
        data.write(DATA)
    with table.step("fill up with page cache"):
        guest.check("cat /dev/ubda >/dev/null")
    with table.step("delete half of the data"):
        data.thin_out()
    full = guest.resident()

    with table.step(f"take {FREE // MIB} MiB: free memory"):
        seconds_free = move(device, FREE)
    freed_free = full - guest.resident()
    with table.step(f"take {CACHE // MIB} MiB: page cache"):
        seconds_cache = move(device, BALLOON)
    freed = full - guest.resident()
    with table.step("compare checksums"):
        require_data(data, "with the balloon full")
    with table.step("give them back"):
        seconds_back = move(device, 0)
    with table.step("fill up again"):
        data.write(FREE)
        got = guest.check("md5sum /dev/ubda").split()[0]
    used_again = guest.resident()
    with table.step("compare checksums"):
        require_data(data, "after the balloon was emptied")
    require(got == disk_sum, "the guest reads its disk wrongly")

    screen.line()
    screen.fact("The host really got back", f"{freed / MIB:.0f} MiB, {freed / BALLOON:.1%} of what "
                "was asked", "1")
    screen.fact("from the guest's free memory", rate(freed_free, seconds_free), "1")
    screen.fact("from its page cache",
                rate(freed - freed_free, seconds_cache) + ", at the guest's own pace")
    screen.fact("The guest had it again in", f"{seconds_back:.2f} s, and used it")
    screen.fact("The guest's data", f"{data.size // MIB} MiB in memory, {DISK // MIB} MiB on its "
                "disk: checksums right")
    require(freed >= FREED_AT_LEAST * BALLOON, "the host got too little memory back")
    require(used_again >= USED_AGAIN_AT_LEAST * full, "the guest could not use its memory again")


def show_health(screen: Screen, device: Device, guest: Guest) -> None:
    """Does the guest hang? The host can tell."""
    device.set_polling_interval(1)
    wait_for_health(device, "healthy")
    guest.pause()
    try:
        screen.live("  We stop the guest's processor ...")
        hung = wait_for_health(device, "unresponsive")
    finally:
        guest.resume()
    well = wait_for_health(device, "healthy")
    screen.line()
    screen.fact("Guest stopped (SIGSTOP)", f"unresponsive, says the device {hung:.1f} s later",
                "31")
    screen.fact("Guest goes on (SIGCONT)", f"healthy, {well * 1000:.0f} ms later", "32")


def show_crash(screen: Screen, device: Device) -> None:
    """Does the device die? The guest does not notice."""
    before = device.query()
    start = time.monotonic()
    device.kill_worker()
    device.again(device.refresh_stats)
    took = time.monotonic() - start
    after = device.query()
    require(after["worker-restarts"] == 1, "the device's worker was not replaced")
    require(all(before[name] == after[name] for name in ("target", "actual", "held", "freed")),
            f"the device has forgotten something: {before}, then {after}")
    screen.fact("Device killed (SIGKILL)", f"another serves the same guest, {took * 1000:.0f} ms "
                "later")


def show_push(screen: Screen, device: Device) -> None:
    """Statistics at the cadence that the host sets."""
    device.qmp.execute("set-stats-push-interval", interval_ms=INTERVAL_MS)
    device.qmp.wait_event("BALLOON")
    device.qmp.events.clear()
    start, count = time.monotonic(), 0
    while time.monotonic() - start < PUSH_SECONDS:
        device.qmp.wait_event("BALLOON")
        count += 1
        screen.live(f"  Statistics are pushed: {count}")
    require(count >= 10, f"only {count} statistics in {PUSH_SECONDS} s")
    wait_for_health(device, "healthy")
    screen.fact(f"Push interval of {INTERVAL_MS} ms", f"{count} statistics in {PUSH_SECONDS} s, "
                "and nobody asked", "1")


def show_pressure(screen: Screen, device: Device, guest: Guest) -> None:
    """A program needs what the balloon has."""
    device.qmp.execute("set-stats-push-interval", interval_ms=0)
    device.inflate_to(DRIVER_BALLOON * MIB)
    free = guest.meminfo()["MemFree"] // MIB
    device.qmp.events.clear()
    hog = Program(guest, f"hog {NEED} 1024")
    hog.wait_for("grown-us")
    times = hog.end()
    device.query()  # what was told before its answer is there then
    levels = [event["data"]["level"] for event in device.qmp.events
              if event["event"] == "GUEST_PRESSURE" and event["data"]["type"] == "pressure"]
    kills = guest.vmstat()["oom_kill"]
    require(bool(levels), "the guest told nothing")
    require(kills == 0 and times["wrong"] == 0, f"the guest came to harm: {times}, {kills} killed")
    screen.fact("A program needs", f"{NEED} MiB, with {free} MiB free and {DRIVER_BALLOON} MiB in "
                "the balloon")
    answered = guest.counters()["message_wait_us"]
    screen.fact("The guest tells", f"{', '.join(levels)}: answered after {answered} us", "1")
    if {"reclaim-us", "relief-us"} <= times.keys():
        relief = (times["relief-us"] - times["reclaim-us"]) / 1000
        screen.fact("The first page is back", f"{relief:.1f} ms after memory had run short", "1")
    screen.fact("The program has its memory", f"after {times['grown-us'] / 1000:.0f} ms; nothing "
                "was killed", "1")


def play_driver(screen: Screen, workdir: pathlib.Path, binary: pathlib.Path,
                platform: Platform) -> None:
    screen.line()
    screen.line(DRIVER_INTRO)
    screen.line()
    screen.live("The guest boots ...")
    # Without deflate-on-oom whatever comes back is the host's doing.
    features = "--features=no-page-reporting,no-deflate-on-oom,stats-push,message"
    with Device(binary, workdir, features, "--on-pressure=deflate") as device, \
            platform.guest(workdir, DRIVER_MEMORY * MIB, device.socket) as guest:
        guest.load_balloon("aerostat")
        show_push(screen, device)
        show_pressure(screen, device, guest)


def play(screen: Screen, workdir: pathlib.Path, binary: pathlib.Path) -> None:
    screen.line(screen.paint("Aerostat: a real Linux guest gives memory back", "1"))
    screen.line()
    screen.line(INTRO)
    start = time.monotonic()
    screen.live("The guest boots ...")
    platform = build_platform("aerostat", "uml", "6.1", workdir / "initramfs")
    disk = workdir / "disk"
    disk_sum = make_disk(disk)
    # A guest that reports its free pages too would give memory back at times of its own.
    with Device(binary, workdir, "--features=no-page-reporting") as device, \
            platform.guest(workdir, MEMORY, device.socket, disk) as guest:
        guest.load_balloon("stock")
        show_memory(screen, device, guest, disk_sum, start)
        show_health(screen, device, guest)
        show_crash(screen, device)
        state = device.query()
        require(state["held"] == state["actual"] == 0, f"the balloon is not empty: {state}")
        require(not any(state["driver-errors"].values()), f"the device found errors: {state}")
    play_driver(screen, workdir, binary, platform)
    screen.line()
    play_host(screen, workdir, binary, platform)
    screen.line()
    screen.line(screen.paint("It all worked.", "1;32"))


def interrupt(number: int, _frame: object) -> None:
    # Cleaning up comes next; a second Ctrl-C must not end that half way.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def main() -> int:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    binary = os.environ.get("AEROSTAT_BALLOON")
    if not binary or not os.access(binary, os.X_OK):
        print("demo: AEROSTAT_BALLOON must name the vhost-user-balloon program; ./run demo builds "
              "it and sets that", file=sys.stderr)
        return 1
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, interrupt)
    screen = Screen()
    try:
        with tempfile.TemporaryDirectory(prefix="aerostat-demo-") as name:
            play(screen, pathlib.Path(name), pathlib.Path(binary).resolve())
    except Interrupted as signalled:
        screen.line("Interrupted; the guest and the device are gone.")
        return 128 + signalled.number
    except MissingPackage as missing:
        print(f"demo: {missing}", file=sys.stderr)
        return 1
    except (Failed, DeviceError, GuestError, ManagerError, QmpError, OSError) as error:
        screen.line(screen.paint("FAILED", "1;31") + f": {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
