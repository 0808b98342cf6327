# SPDX-License-Identifier: MIT
"""Guests under QEMU that differ in nothing but their balloon: QEMU's own device, or ours.

The processor is emulated, so what the guest itself does costs ten times and more what it costs on
a real one, the same on either side of a comparison, and hides the difference between the devices.
The bars are for guests as Debian boots them, all the same. PLAIN takes away two things that are so
expensive only because they are emulated, and are not part of a balloon's work; what is left of the
guest's work is 0.3 to 0.6 s in an inflation of 1 GiB:

- Debian has its kernel clear what it allocates, which Linux does not by default: the pages that it
  is about to give away as well. That takes 0.3 s, and 1.2 s where the processor has "rep stosb".
- Mitigations guard against a speculation that does not happen, and make each indirect jump of the
  kernel a long way round.

What the host does outside the guest's processors is the same with either, and stands in rows of its
own.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from figure import Figure, figure
from vmm import Device, GuestError, QemuGuest
from vmm.guest import MIB
from vmm.platform import Platform, build_platform
from vmm.qemu import find_kernel

KERNEL = "7.2"
PLAIN = ("init_on_alloc=0", "mitigations=off")

QEMU, OURS, MODULE = "QEMU", "Aerostat", "Aerostat, our driver"
ANONYMOUS = "QEMU, anonymous memory"

#: programs/hog.c until it has everything; by huge pages, which is what takes least time.
USE = """
echo always >/sys/kernel/mm/transparent_hugepage/enabled
rm -f /run/hog # or what the last one said would be taken for this one's
hog {mib} >/run/hog 2>&1 </dev/null & pid=$!
echo $pid >/run/hog.pid
until grep -q grown-us /run/hog; do
    [ -d /proc/$pid ] || exit 1
    usleep 100000
done
"""
FREE = """
pid=$(cat /run/hog.pid)
kill $pid
while grep -qs VmRSS /proc/$pid/status; do usleep 20000; done
"""

TIMEOUT = 240.0  # for what takes a few seconds on a machine that does nothing else


def process_clock(pid: int) -> float:
    """Processor seconds of all threads of a process, those that have ended too. What
    clock_getcpuclockid(3) returns, which Python has not: the scheduler's own nanoseconds, where
    proc(5) stat counts ticks."""
    return time.clock_gettime((~pid << 3) | 2)


def thread_clock(pid: int, thread: int) -> float:
    """Processor seconds of one thread."""
    text = pathlib.Path(f"/proc/{pid}/task/{thread}/schedstat").read_text(encoding="ascii")
    return int(text.split()[0]) / 1e9


def wait_until(what: str, holds: Callable[[], bool], timeout: float = TIMEOUT,
               pause: float = 0.02) -> float:
    """When it first was seen to hold, by the monotonic clock."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise GuestError(f"waited {timeout:.0f} s for {what}")
        time.sleep(pause)
    return time.monotonic()


@dataclasses.dataclass(frozen=True)
class Used:
    """Processor seconds of the host: all of them, and those of the threads that are the guest's
    processors."""

    total: float
    guest: float

    def __sub__(self, before: Used) -> Used:
        return Used(self.total - before.total, self.guest - before.guest)

    @property
    def outside(self) -> float:
        """What the device costs, whichever process it is part of."""
        return self.total - self.guest


class PeerGuest(QemuGuest):
    """A guest whose memory may be anonymous, as QEMU makes it unless told otherwise."""

    anonymous = False

    def _command(self, home: pathlib.Path, channel: int) -> list[str]:
        words = super()._command(home, channel)
        if not self.anonymous:
            return words
        memfd = f"memory-backend-memfd,id=memory,size={self.memory},share=on"
        return [f"memory-backend-ram,id=memory,size={self.memory}" if word == memfd else word
                for word in words]

    def resident(self) -> int:
        if not self.anonymous:
            return super().resident()
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        fields = dict(line.split(":", 1) for line in text.splitlines())
        return int(fields["RssAnon"].split()[0]) * 1024


class Machine:
    """A guest, its balloon and its driver. Sizes in bytes."""

    def __init__(self, name: str, guest: PeerGuest, device: Device | None) -> None:
        self.name = name
        self.guest = guest
        self.device = device
        self._processors: set[int] = set()
        self._processes: list[int] = []

    def begin(self) -> None:
        """Load the driver of this machine into the guest, which has been started."""
        self.guest.load_balloon("aerostat" if self.name == MODULE else "stock")
        self._processors = {int(cpu["thread-id"])
                            for cpu in self.guest.monitor.execute("query-cpus-fast")}
        self._processes = [self.guest.pid]
        if self.device is not None:
            self._processes += [self.device.pid, self.device.worker()]

    def used(self) -> Used:
        """What QEMU and the processes of the device have used so far."""
        return Used(sum(map(process_clock, self._processes)),
                    sum(thread_clock(self.guest.pid, thread) for thread in self._processors))

    def use(self, size: int) -> None:
        """A program takes that much memory and writes a word to each page."""
        self.guest.check(USE.format(mib=size // MIB), timeout=TIMEOUT)

    def free(self) -> None:
        """End that program. All that it had is the guest's again, and still on the host."""
        self.guest.check(FREE, timeout=TIMEOUT)

    def balloon(self) -> int:
        """What the driver says it has."""
        if self.device is not None:
            return int(self.device.query()["actual"])
        return self.guest.memory - int(self.guest.monitor.execute("query-balloon")["actual"])

    def set_balloon(self, size: int) -> float:
        """Seconds until the balloon has that size."""
        start = time.monotonic()
        if self.device is not None:
            self.device.set_balloon(size)
        else:
            self.guest.monitor.execute("balloon", value=self.guest.memory - size)
        return wait_until(f"a balloon of {size} bytes", lambda: self.balloon() == size) - start


@contextmanager
def machines(platform: Platform, binary: pathlib.Path, workdir: pathlib.Path,
             names: Iterable[str], memory: int, features: str = "", own: str = "",
             options: tuple[str, ...] = ()) -> Iterator[list[Machine]]:
    """One running machine for each name. `features` is for our device, `own` has the properties of
    QEMU's; `options` go on the kernel's command line."""
    with ExitStack() as stack:
        started = []
        for name in names:
            device = None
            if name in (OURS, MODULE):
                device = stack.enter_context(
                    Device(binary, workdir, *([f"--features={features}"] if features else [])))
            guest = PeerGuest(find_kernel(KERNEL), platform.initramfs, workdir, memory,
                              device.socket if device is not None else None,
                              kernel_options=options, own_balloon=None if device else own)
            guest.anonymous = name == ANONYMOUS
            stack.enter_context(guest)
            machine = Machine(name, guest, device)
            machine.begin()
            started.append(machine)
        yield started


#: By row, by column: the figures of all rounds.
Table = dict[str, dict[str, list[float]]]


def new_table() -> Table:
    return collections.defaultdict(lambda: collections.defaultdict(list))


def rows(section: str, row: str, unit: str, columns: dict[str, list[float]],
         better: str = "lower", bar: float | None = None, ratio: bool = True) -> Iterator[Figure]:
    """A line of the table: the columns, and QEMU's own over each that stands beside it. Pairs are
    of the same round. The bar is for QEMU's over ours with the same driver."""
    for column, values in columns.items():
        yield figure(f"{section}: {row}: {column}", values, unit, better=better)
    for column in (OURS, MODULE):
        if ratio and QEMU in columns and column in columns:
            pairs = [old / max(new, 1e-9) for old, new in zip(columns[QEMU], columns[column])]
            yield figure(f"{section}: {row}: QEMU / {column}", pairs, "ratio", better="higher",
                         bar=bar if column == OURS else None)


def turn(peers: list[Machine], number: int) -> list[Machine]:
    """Another order each round: nobody is always first."""
    first = number % len(peers)
    return peers[first:] + peers[:first]


def new_platform(workdir: pathlib.Path, name: str) -> Platform:
    return build_platform("aerostat", "qemu", KERNEL, workdir / f"initramfs-{name}")
