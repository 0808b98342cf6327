# SPDX-License-Identifier: MIT
"""The demo's third part: a host that has less memory than its guests were promised."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import time

from demo_screen import Failed, Screen, require
from vmm import Device, Guest
from vmm.guest import MIB
from vmm.manager import Manager
from vmm.platform import Platform

NAMES = ("web", "db", "batch")
MEMORY = 160  # MiB of each, like what follows
BUDGET = 280
WORK = 80  # written by one guest after the other
PATIENCE = 30.0  # seconds

INTRO = f"""\
Three guests were promised {MEMORY} MiB each, on a host that has {BUDGET} MiB for them.
aerostatd finds their monitors and moves memory to where it is used. In MiB, what each guest
may keep and what it uses:
"""


class Host:
    """The manager, and the guests that it has."""

    def __init__(self, screen: Screen, manager: Manager, guests: dict[str, Guest]) -> None:
        self._screen = screen
        self._manager = manager
        self._guests = guests
        self._start = time.monotonic()

    def header(self) -> None:
        self._screen.line(" time  step                     " +
                          "".join(f"{name:>12}" for name in NAMES) + "    all may keep")

    def row(self, step: str) -> None:
        vms = self._manager.vms()
        cells = "".join(f"{vms[name]['target'] // MIB:7} {vms[name].get('used', 0) // MIB:4}"
                        for name in NAMES)
        self._screen.line(f"{time.monotonic() - self._start:4.1f}s  {step:25}{cells}"
                          f"{self._manager.promised():12.0f} of {BUDGET}")

    def settle(self) -> None:
        """Until all fits: promised to all is no more than the host has."""
        deadline = time.monotonic() + PATIENCE
        while self._manager.promised() > BUDGET:
            require(time.monotonic() < deadline, f"too much is promised: {self._manager.vms()}")
            time.sleep(0.1)

    def work(self, name: str) -> None:
        self._guests[name].check(f"dd if=/dev/zero of=/data/work bs=1M count={WORK}")
        time.sleep(1.2)  # for statistics that know of it
        self.row(f"{name} writes {WORK} MiB")

    def rest(self, name: str) -> None:
        self._guests[name].check("rm /data/work")


def run_cli(manager: Manager, *words: str) -> str:
    """What `aerostat` says."""
    command = [os.environ["AEROSTAT_CLI"], f"--control={manager.control}", "--table", *words]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if run.returncode != 0:
        raise Failed(f"{' '.join(words)}: exit status {run.returncode}: {run.stderr}")
    return run.stdout


def show_cli(screen: Screen, manager: Manager, *words: str) -> None:
    screen.line()
    screen.line(screen.paint(f"$ aerostat {' '.join(words)}", "1"))
    for line in run_cli(manager, *words).splitlines():
        screen.line(line)


def play_host(screen: Screen, workdir: pathlib.Path, binary: pathlib.Path,
              platform: Platform) -> None:
    screen.line(INTRO)
    screen.live("The guests boot ...")
    features = "--features=no-page-reporting,no-deflate-on-oom,stats-push,message"
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(Manager(pathlib.Path(os.environ["AEROSTAT_MANAGER"]),
                                              workdir, "--interval=500", budget=BUDGET * MIB))
        guests: dict[str, Guest] = {}
        for name in NAMES:
            device = stack.enter_context(Device(binary, workdir, features, f"--name={name}"))
            guests[name] = stack.enter_context(
                platform.guest(workdir, MEMORY * MIB, device.socket))
            guests[name].load_balloon("aerostat")
            manager.watch(name, device.monitor)
        host = Host(screen, manager, guests)
        manager.wait_for("the guests", lambda vms: len(vms) == len(NAMES) and all(
            "target" in vm for vm in vms.values()))
        host.header()
        host.settle()
        host.row("what is idle was taken")
        host.work("db")
        host.rest("db")
        host.work("batch")
        host.settle()
        show_cli(screen, manager, "list")
        show_cli(screen, manager, "explain", "batch")
        kills = sum(guest.vmstat()["oom_kill"] for guest in guests.values())
        require(kills == 0, f"{kills} programs were killed")
