# SPDX-License-Identifier: MIT
"""Guests whose need for memory moves between them, on a host that has not enough for all at once.

Each guest runs programs/worker.c: in its hot phases it works on a set of pages of its disk and of
its own memory that is larger than its equal share of the budget, and in cold ones on next to
nothing. A piece of work is a page that was hashed, one chosen by chance once all have been read.
With too little memory a guest reads pages again from its disk and gets others back from its swap
(zram: that is in its own memory), and so does less work in the same time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import threading
import time

from in_guest import Program
from vmm import Device, Guest
from vmm.guest import MIB
from vmm.platform import Platform

GUESTS = 8
MEMORY = 256 * MIB
SHARE = MEMORY * 6 // 10 // MIB * MIB
BUDGET = GUESTS * SHARE

HOT = 3  # guests that are hot at a time
FILE, OWN, COLD = 110, 40, 16  # MiB: hot, of the disk and of its own memory; and cold
SWAP = 64  # MiB

# No memory goes to a guest that nobody has given it.
FEATURES = "--features=no-page-reporting,no-deflate-on-oom,stats-push,message"
_SAMPLE_S = 0.5
_PATIENCE_S = 180.0


@dataclasses.dataclass
class Outcome:
    """What came of one run."""

    work: int = 0  # pieces, by all guests
    hot: int = 0  # of these, in hot phases
    least: int = 0  # the fewest that one hot phase saw
    kills: int = 0
    wrong: int = 0  # pages that had lost what was written to them
    kept: float = 0  # bytes, by all guests together, on average
    kept_most: int = 0
    resident: float = 0  # the same of what they had of the host's memory, on average
    resident_most: int = 0
    over: float = 0  # part of the time in which they kept more than the budget, by over a percent


def phases_of(guest: int, n: int) -> str:
    """What a guest does in each of n phases: three are hot at a time, and none twice in a row."""
    return "".join("h" if (guest - HOT * phase) % GUESTS < HOT else "c" for phase in range(n))


class Watch:
    """Samples what the guests keep, in a thread of its own."""

    def __init__(self, devices: list[Device]) -> None:
        self._devices = devices
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kept: list[int] = []
        self.resident: list[int] = []
        self.error: BaseException | None = None

    def _run(self) -> None:
        try:
            while not self._over.wait(_SAMPLE_S):
                seen = [device.query() for device in self._devices]
                self.kept.append(sum(one["memory"] - one["actual"] for one in seen))
                self.resident.append(sum(one["resident"] for one in seen))
        except (OSError, KeyError) as error:
            self.error = error

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class MovingWork:
    """The guests and their devices. Use it as a context manager; runs may follow each other."""

    def __init__(self, binary: pathlib.Path, workdir: pathlib.Path, platform: Platform) -> None:
        self._binary = binary
        self._workdir = workdir
        self._platform = platform
        self._stack = contextlib.ExitStack()
        self.devices: list[Device] = []
        self.guests: list[Guest] = []

    @staticmethod
    def name(number: int) -> str:
        return f"guest{number}"

    def __enter__(self) -> MovingWork:
        with contextlib.ExitStack() as stack:
            disk = self._workdir / "moving-work"
            with open(disk, "wb") as file:
                for _ in range(FILE):
                    file.write(os.urandom(MIB))
            stack.callback(disk.unlink)
            for number in range(GUESTS):
                device = stack.enter_context(Device(self._binary, self._workdir, FEATURES,
                                                    f"--name={self.name(number)}"))
                guest = self._platform.guest(self._workdir, MEMORY, device.socket, disk)
                self.devices.append(device)
                self.guests.append(stack.enter_context(guest))
                guest.load_balloon()
                guest.check(f"load zram; echo {SWAP}M >/sys/block/zram0/disksize; "
                            "mkswap /dev/zram0; swapon /dev/zram0")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def start_over(self) -> None:
        """Equal shares to everybody, and nothing in them."""
        for device in self.devices:
            # Whoever wants statistics orders them, and nobody else does.
            device.qmp.execute("set-stats-push-interval", interval_ms=0)
            device.set_polling_interval(0)
            device.qmp.execute("balloon", value=SHARE)
        for device, guest in zip(self.devices, self.guests):
            guest.check("swapoff /dev/zram0; swapon /dev/zram0; echo 3 >/proc/sys/vm/drop_caches")
            device.wait_for("its equal share", lambda state: state["actual"] == state["target"])

    def run(self, phases: int, seconds: float) -> Outcome:
        """Let all work for so many phases of that length."""
        before = sum(guest.vmstat()["oom_kill"] for guest in self.guests)
        with Watch(self.devices) as watch:
            programs = [Program(guest, f"worker {guest.disk_device} {FILE} {OWN} {COLD} "
                                f"{seconds * 1000:.0f} {phases_of(number, phases)}")
                        for number, guest in enumerate(self.guests)]
            time.sleep(phases * seconds)
        # One that swaps all the time is in no hurry to look at the clock.
        ends = [program.wait(_PATIENCE_S) for program in programs]
        if watch.error is not None:
            raise watch.error
        outcome = Outcome(kept=sum(watch.kept) / len(watch.kept), kept_most=max(watch.kept),
                          resident=sum(watch.resident) / len(watch.resident),
                          resident_most=max(watch.resident),
                          over=sum(kept > 1.01 * BUDGET for kept in watch.kept) / len(watch.kept))
        hot_phases = []
        for number, (program, end) in enumerate(zip(programs, ends)):
            # One that was killed has done the phases that it told of.
            values = program.values()
            assert end in (0, 137), program.output()
            done = [values.get(f"phase-{phase}", 0) for phase in range(phases)]
            hot = [n for n, kind in zip(done, phases_of(number, phases)) if kind == "h"]
            outcome.work += sum(done)
            outcome.hot += sum(hot)
            outcome.wrong += values.get("wrong", 0)
            hot_phases += hot
        outcome.least = min(hot_phases)
        outcome.kills = sum(guest.vmstat()["oom_kill"] for guest in self.guests) - before
        return outcome
