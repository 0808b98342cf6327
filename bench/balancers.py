# SPDX-License-Identifier: MIT
"""Other hosts' ways to balance, as scripts of theirs would do it over QMP: Proxmox VE's and MOM's.

Written anew from what they do, with their own constants and their own cycles, as sim/proxmox.c and
sim/mom.c are, which say more. Both want a fifth of the host's memory to be free: their host is one
of which four fifths are the budget, and nothing else uses memory there.
"""

from __future__ import annotations

import abc
import collections
import contextlib
import dataclasses
import statistics
import threading
from collections.abc import Iterator

from vmm import Device
from vmm.guest import MIB
from vmm.qmp import QmpClient

GOAL = 0.8  # of the host's memory may be used


@dataclasses.dataclass
class Vm:
    """What a script sees of a machine."""

    monitor: QmpClient
    least: float
    size: float = 0
    keeps: float = 0
    free: float = 0
    resident: float = 0
    wanted: float = 0
    used: collections.deque[float] = dataclasses.field(default_factory=collections.deque)

    def look(self) -> None:
        seen = self.monitor.execute("query-balloon-device")
        self.size, self.resident = seen["memory"], seen["resident"]
        self.keeps = seen["memory"] - seen["actual"]
        stats = self.monitor.execute("qom-get", path="/machine/peripheral/balloon0",
                                     property="guest-stats")["stats"]
        self.free = max(0, stats.get("stat-free-memory", 0))

    def keep(self, size: float) -> None:
        self.monitor.execute("balloon", value=int(size))


class Balancer(abc.ABC):
    """A thread that looks and moves."""

    every: float  # seconds from one step to the next

    def __init__(self, devices: list[Device], budget: int) -> None:
        self.total = budget / GOAL
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None
        # An eighth of it and 32 MiB, which is what aerostatd takes if nobody says anything else.
        self.vms = [Vm(QmpClient(device.monitor), device.memory() / 8 + 32 * MIB)
                    for device in devices]
        for vm in self.vms:
            vm.monitor.execute("qom-set", path="/machine/peripheral/balloon0",
                               property="guest-stats-polling-interval", value=1)

    @abc.abstractmethod
    def step(self) -> None:
        """Look at all, and move."""

    def used(self) -> float:
        """What is used of the host."""
        return sum(vm.resident for vm in self.vms)

    def _run(self) -> None:
        try:
            while not self._over.wait(self.every):
                self.step()
        except Exception as error:  # pylint: disable=broad-except
            self._error = error  # told in the thread that waits for it

    def __enter__(self) -> Balancer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for vm in self.vms:
            vm.monitor.close()
        if self._error is not None:
            raise self._error


class Proxmox(Balancer):
    """Proxmox VE's auto-ballooning: PVE/AutoBalloon.pm, PVE/Service/pvestatd.pm."""

    every = 10.0
    DEAD_BAND = 10 * MIB
    MOST = 100 * MIB  # that one machine is moved by at once
    ENOUGH = 0.25  # of the minimum: free in a guest
    SHARES = 1000.0

    def step(self) -> None:
        for vm in self.vms:
            vm.look()
            vm.wanted = vm.keeps
        goal = self.total * GOAL - self.used()
        if abs(goal) <= self.DEAD_BAND:
            return
        # Who has too little grows first; who has enough shrinks first.
        group = [vm for vm in self.vms if self._has_enough(vm) == (goal < 0)]
        rest = self._spread(group, goal)
        if abs(rest) >= abs(goal):
            self._spread(self.vms, rest)
        for vm in self.vms:
            if vm.wanted != vm.keeps:
                vm.keep(vm.wanted)

    def _has_enough(self, vm: Vm) -> bool:
        return vm.free > vm.least * self.ENOUGH and vm.keeps >= vm.least

    def _spread(self, group: list[Vm], amount: float) -> float:
        """Hand it out to them, or take it if it is negative; what is left over."""
        rest, left = amount, list(group)
        while left and rest:
            room = rest + sum(vm.wanted - vm.least for vm in left)
            share = int(room / (self.SHARES * len(left)) * self.SHARES)
            moved, progress, again = 0.0, 0.0, False
            staying = []
            for vm in left:
                desired = vm.least + share
                again = again or not vm.least <= desired <= vm.size
                change = self._move(vm, min(max(desired, vm.least), vm.size), amount > 0)
                if change is not None:
                    staying.append(vm)
                    moved += change
                    progress += abs(change)
                    again = again or change != 0
            left = staying
            rest -= moved
            if progress < 1 or not again:
                break
        return rest

    def _move(self, vm: Vm, desired: float, growing: bool) -> float | None:
        """Towards what it desires; by how much, None if it is there or beyond."""
        before = vm.wanted
        if growing and desired > vm.keeps:
            vm.wanted = min(desired, vm.keeps + self.MOST)
        elif desired < vm.keeps:
            vm.wanted = max(desired, vm.keeps - self.MOST)
        else:
            return None
        return vm.wanted - before


class Mom(Balancer):
    """oVirt's MOM with its balloon rules: doc/balloon.rules, doc/mom-balloon.conf."""

    every = 5.0  # samples; rules run with every other
    HISTORY = 10  # samples that averages are of
    PRESSURE, CRITICAL = 0.20, 0.05
    GUEST_FREE = 0.20
    MOST, LEAST = 0.05, 0.0025  # change of a balloon, parts of what the machine has

    def __init__(self, devices: list[Device], budget: int) -> None:
        super().__init__(devices, budget)
        self._host: collections.deque[float] = collections.deque(maxlen=self.HISTORY)
        self._rules_due = False
        for vm in self.vms:
            vm.used = collections.deque(maxlen=self.HISTORY)

    def step(self) -> None:
        for vm in self.vms:
            vm.look()
            vm.used.append(vm.keeps - vm.free)
        self._host.append(max(0.0, 1 - self.used() / self.total))
        if self._rules_due:
            free = statistics.mean(self._host)
            for vm in self.vms:
                self._rule(vm, free)
        self._rules_due = not self._rules_due

    def _rule(self, vm: Vm, host_free: float) -> None:
        used = statistics.mean(vm.used)
        if host_free < self.PRESSURE:
            spare = (host_free - self.CRITICAL if host_free <= self.CRITICAL else
                     self.GUEST_FREE * host_free / self.PRESSURE)
            size = max(vm.least, used + spare * vm.keeps, vm.keeps * (1 - self.MOST))
            if size > vm.keeps:
                return
        else:
            size = max(vm.least, used + self.GUEST_FREE * vm.keeps, vm.keeps * (1 + self.MOST))
            size = min(size, vm.size)
        if abs(size - vm.keeps) > self.LEAST * vm.keeps:
            vm.keep(size)


BALANCERS = {"proxmox": Proxmox, "mom": Mom}


@contextlib.contextmanager
def balanced_by(name: str, devices: list[Device], budget: int) -> Iterator[None]:
    """All the time that the block takes."""
    with BALANCERS[name](devices, budget):
        yield
