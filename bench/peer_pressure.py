# SPDX-License-Identifier: MIT
"""A program needs memory that the balloon has: how soon it gets it, and whether it lives to see it.

The guest has 512 MiB beyond what its kernel takes, the balloon holds 320 MiB of that, and a program
takes 260 MiB, some 110 MiB more than is free. Nothing else in the guest could be given up: there is
no swap and next to no file in memory. Three ways to get memory back take turns, on a Debian kernel
7.2 in QEMU, with two emulated processors:

- "polling script": QEMU's own balloon, the kernel's own driver, and a script on the host that looks
  at the guest's statistics each second, as operators have it today (see PollingScript);
- "push, 100 ms": our device and driver with statistics pushed every 100 ms, and the same script, to
  which each event BALLOON is an occasion to look (`--features=stats-push`);
- "messages": our device and driver, no script; the guest says that it is short and the device gives
  way (`--features=message --on-pressure=deflate`, with the steps that are the default).

No driver may release pages of its own accord when memory runs out, as that is QEMU's default
(deflate-on-oom=off; ours has `no-deflate-on-oom`). With deflate-on-oom=on the first of them is
measured once more, in rows that say so. Transparent huge pages are on, as in any Debian guest that
is larger than 512 MiB when it boots: the fast program takes memory at the speed of a real one. The
slow one takes 1 MiB every 12 ms and more, which is what polling each second can cope with.

What is measured, all by the guest's kernel and on its clock:

- Short of memory: the kernel begins to reclaim (its function shrink_slab is called, by kswapd or by
  who allocates; there a driver first hears of it too).
- A page is back: from then on the first page leaves the list of the balloon
  (balloon_page_list_dequeue or balloon_page_dequeue), which either driver does when it obeys a
  smaller target. One answer of the host later that page is the system's. Rounds in which memory
  never was short have no such time; how many were short is a row of its own. With none back when
  the program has everything, or time is over, that is the moment that counts.
- A program that was killed is started again 100 ms later, as a service manager does by default;
  time goes on from the first start. Pages that were back and could not save it were no relief: that
  is not before the start of the run that lived. After 30 s nobody waits any more, and 30 s are what
  counts.
- Waiting for memory: what the kernel's pressure stall information says ("some" of memory).
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator

from figure import Figure, figure
from vmm import Device, Guest, QemuGuest
from vmm.guest import MIB, GuestError
from vmm.platform import Platform, build_platform
from vmm.qmp import QmpClient

MEMORY, BALLOON, NEED = 512, 320, 260  # MiB
PATIENCE = 30  # seconds for a program to get what it needs, in the guest

#: How a program grows, as arguments of tests/guest/programs/hog.c; it need not look by itself.
FAST = f"{NEED} {NEED * 1024} 1 600000"
SLOW = f"{NEED} 1024 12 600000"

BALLOON_PATH = "/machine/peripheral/balloon0"
QUIET = "--features=no-page-reporting,no-deflate-on-oom"

POLLING, POLLING_OOM, PUSH, MESSAGES = ("polling script", "polling script, deflate-on-oom",
                                        "push, 100 ms", "messages")

#: How the kernel is watched: two traces, each of which keeps what came first. Pages that come back
#: are traced from the moment that memory is short.
WATCH = """
set -e
echo always >/sys/kernel/mm/transparent_hugepage/enabled
mount -t tracefs tracefs /sys/kernel/tracing
cd /sys/kernel/tracing
echo 'p:short shrink_slab' >>kprobe_events
echo 'p:back balloon_page_list_dequeue' >>kprobe_events
echo 'p:back_each balloon_page_dequeue' >>kprobe_events
for trace in short back; do
    mkdir instances/$trace
    echo mono >instances/$trace/trace_clock
    echo 0 >instances/$trace/options/overwrite
    echo 16 >instances/$trace/buffer_size_kb
done
echo 1 >instances/short/events/kprobes/short/enable
for event in back back_each; do
    echo enable_event:kprobes:$event >>instances/back/events/kprobes/short/trigger
done
"""

RUN = """
stall() { read -r _ _ _ _ total </proc/pressure/memory; echo "$1=${total#total=}"; }
cd /sys/kernel/tracing/instances
echo 0 >back/events/kprobes/back/enable
echo 0 >back/events/kprobes/back_each/enable
echo >back/trace
echo >short/trace
rm -f /run/enough
(sleep PATIENCE; touch /run/enough; killall hog) 2>/dev/null &
grep oom_kill /proc/vmstat
stall stall-before
(until hog ARGUMENTS || [ -e /run/enough ]; do usleep 100000; done) 2>/dev/null |
while read -r line; do
    echo "$line"
    # It keeps what it has for a second more.
    case $line in grow-stall-us=*)
        stall stall-after
        sleep 1
        touch /run/enough
        killall hog
    esac
done
kill $!
grep oom_kill /proc/vmstat
for trace in short back; do
    echo "$trace: $(grep -v '^#' $trace/trace | head -n 1)"
done
"""


class PollingScript(threading.Thread):
    """What operators run: it looks at a guest's statistics and gives memory back.

    If the guest can still use (stat-available-memory) less than 20 % of the memory it has been left
    with, it gets as much as makes that 30 %, and no less than 5 % more than it has. With less than
    5 %, or when its kernel has killed since the last look (stat-oom-kills), it gets all there is at
    once. Nothing is taken back, nor is a step cut short that the guest is still busy with. For
    comparison: MOM's rules keep 20 % in steps of 5 %, every 10 s, and know nothing of kills."""

    LOW, WANTED, CRITICAL, STEP = 0.20, 0.30, 0.05, 0.05

    def __init__(self, monitor: QmpClient, whole: int) -> None:
        """`whole` is the guest's memory with nothing in the balloon, in bytes."""
        super().__init__(daemon=True)
        self.monitor = monitor
        self.looked = 0.0  # when it looked last
        self.first_look = threading.Event()
        self._whole = whole
        self._given = 0
        self._kills: int | None = None
        self._over = threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            self.prepare()
            while not self._over.is_set():
                stats = self.wait()
                if stats and "stat-available-memory" in stats:
                    self.look(stats["stat-available-memory"], stats.get("stat-oom-kills", 0))
        except Exception as error:  # whoever waits for the thread gets it
            self._error = error

    def prepare(self) -> None:
        # Whatever was set before, from now on the guest is asked each second. The script looks a
        # quarter of a second after that, when it has answered.
        for seconds in (0, 1):
            self.monitor.execute("qom-set", path=BALLOON_PATH,
                                 property="guest-stats-polling-interval", value=seconds)
        self._next = time.monotonic() + 1.25

    def wait(self) -> dict[str, int] | None:
        """Until it is time to look again; the statistics, if there are any."""
        self._over.wait(max(self._next - time.monotonic(), 0))
        self._next += 1
        answer = self.monitor.execute("qom-get", path=BALLOON_PATH, property="guest-stats")
        return answer["stats"] if answer["last-update"] else None

    def look(self, available: int, kills: int) -> None:
        self.looked = time.monotonic()
        self.first_look.set()
        has = self.monitor.execute("query-balloon")["actual"]
        goal, before, self._kills = 0, self._kills, kills
        if available < self.CRITICAL * has or (before is not None and kills > before):
            goal = self._whole
        elif available < self.LOW * has:
            used = has - available
            goal = min(max(int(used / (1 - self.WANTED)), int(has * (1 + self.STEP))), self._whole)
        if goal > self._given:
            self.monitor.execute("balloon", value=goal)
            self._given = goal

    def end(self) -> None:
        """No step comes any more after this; what went wrong with the script is raised here."""
        self._over.set()
        self.join(60)
        if self._error:
            raise self._error


class PushedScript(PollingScript):
    """The same with statistics that come by themselves."""

    def prepare(self) -> None:
        self.monitor.events.clear()

    def wait(self) -> dict[str, int] | None:
        try:
            return self.monitor.wait_event("BALLOON", 0.5)["stats"]
        except TimeoutError:
            return None

    def end(self) -> None:
        try:
            super().end()
        finally:
            self.monitor.close()


@dataclasses.dataclass
class Bed:
    """A guest in which one of the three is at work."""

    guest: Guest
    balloon: Callable[[], tuple[int, int]]  # bytes in it, and what the host wants to be in it
    inflate: Callable[[], None]
    script: Callable[[], PollingScript] | None

    def settle(self, what: str) -> None:
        """Until the balloon is as large as it shall be."""
        deadline = time.monotonic() + 60
        while (now := self.balloon())[0] != now[1]:
            if time.monotonic() > deadline:
                raise GuestError(f"{what}: {now[0]} bytes in the balloon, not {now[1]}")
            time.sleep(0.02)


def stock_bed(guest: QemuGuest) -> Bed:
    """QEMU's own balloon and the kernel's own driver. QEMU does not tell what it wants: what the
    guest has settled with is what has not changed for half a second."""
    def balloon() -> tuple[int, int]:
        sizes = []
        for wait in (0.5, 0):
            sizes.append(guest.memory - guest.monitor.execute("query-balloon")["actual"])
            time.sleep(wait)
        return sizes[1], sizes[0]

    def inflate() -> None:
        guest.monitor.execute("balloon", value=guest.memory - BALLOON * MIB)
        deadline = time.monotonic() + 60
        while guest.monitor.execute("query-balloon")["actual"] != guest.memory - BALLOON * MIB:
            if time.monotonic() > deadline:
                raise GuestError("the balloon does not grow")
            time.sleep(0.02)

    guest.load_balloon("stock")
    return Bed(guest, balloon, inflate, lambda: PollingScript(guest.monitor, guest.memory))


def our_bed(guest: Guest, device: Device, script: bool) -> Bed:
    def balloon() -> tuple[int, int]:
        state = device.query()
        return state["held"], state["target"]

    def inflate() -> None:
        if not script:
            device.wait_for("calm", lambda _: guest.counters()["pressure"] == "none")
        device.inflate_to(BALLOON * MIB, 60)

    def pushed() -> PollingScript:
        return PushedScript(QmpClient(device.monitor), device.memory())

    guest.load_balloon("aerostat")
    return Bed(guest, balloon, inflate, pushed if script else None)


@dataclasses.dataclass
class Outcome:
    """What became of the program, and at what price."""

    relief_ms: float | None  # None: memory was never short
    grown_s: float
    waited_ms: float
    given_mib: float
    kills: int


def numbers(text: str, name: str) -> list[int]:
    """Of each line NAME=VALUE (or NAME VALUE), in order."""
    return [int(value) for value in re.findall(rf"^{name}[= ](\d+)$", text, re.M)]


def first(text: str, trace: str) -> float | None:
    """Seconds on the guest's clock."""
    found = re.search(rf"^{trace}: .* (\d+\.\d+): ", text, re.M)
    return float(found[1]) if found else None


def outcome(text: str, given: int) -> Outcome:
    """From what RUN has printed."""
    starts, grown = numbers(text, "start-us"), numbers(text, "grown-us")
    before, after = numbers(text, "oom_kill")
    end = starts[0] / 1e6 + PATIENCE
    if grown:
        end = (starts[-1] + grown[-1]) / 1e6
    short, back = first(text, "short"), first(text, "back")
    relief = None
    if short is not None and short < end:
        back = end if back is None else back
        lived = starts[-1] / 1e6 if len(starts) > 1 else short
        relief = 1000 * (min(end, max(back, lived)) - short)
    stall = numbers(text, "stall-after") or [numbers(text, "stall-before")[0]]
    return Outcome(relief, end - starts[0] / 1e6,
                   (stall[0] - numbers(text, "stall-before")[0]) / 1000, given / MIB,
                   after - before)


def one_run(bed: Bed, arguments: str, phase: float) -> Outcome:
    """`phase`: how long ago the script looked when the program starts, as a part of a second."""
    bed.inflate()
    script = bed.script() if bed.script else None
    if script:
        script.start()
    try:
        if type(script) is PollingScript:
            script.first_look.wait(20)
            time.sleep(max(script.looked + phase - time.monotonic(), 0))
        text = bed.guest.check(RUN.replace("PATIENCE", str(PATIENCE))
                               .replace("ARGUMENTS", arguments), PATIENCE + 60)
    finally:
        if script:
            script.end()
    bed.settle("after the program")
    return outcome(text, BALLOON * MIB - bed.balloon()[0])


@contextlib.contextmanager
def beds(binary: pathlib.Path, workdir: pathlib.Path) -> Iterator[dict[str, Bed]]:
    platform: Platform = build_platform("aerostat", "qemu", "7.2", workdir / "initramfs-pressure")
    with contextlib.ExitStack() as stack:
        found = {name: stock_bed(stack.enter_context(
            platform.qemu_guest(workdir, MEMORY * MIB, own_balloon=properties)))
            for name, properties in ((POLLING, ""), (POLLING_OOM, "deflate-on-oom=on"))}
        for name, options in ((PUSH, (QUIET + ",stats-push", "--stats-push-interval=100")),
                              (MESSAGES, (QUIET + ",message", "--on-pressure=deflate"))):
            device = stack.enter_context(Device(binary, workdir, *options))
            guest = stack.enter_context(platform.guest(workdir, MEMORY * MIB, device.socket))
            found[name] = our_bed(guest, device, name == PUSH)
        for bed in found.values():
            bed.guest.check(WATCH)
        yield found


def rows(program: str, seen: dict[str, list[Outcome]],
         bar: float | None) -> Iterator[Figure]:
    """The lines of one program; `bar` is that of the ratio of relief."""
    def name(row: str, column: str) -> str:
        if column == POLLING_OOM:
            row, column = f"{row}, deflate-on-oom=on", POLLING
        return f"pressure: {program}, {row}: {column}"

    for row, unit, attribute in (
            ("short of memory until a page is back", "ms", "relief_ms"),
            (f"until it has its {NEED} MiB", "s", "grown_s"),
            ("waiting for memory", "ms", "waited_ms"),
            ("taken out of the balloon", "MiB", "given_mib")):
        values = {column: [getattr(one, attribute) for one in outcomes]
                  for column, outcomes in seen.items()}
        for column in values:
            known = [value for value in values[column] if value is not None]
            if known:
                yield figure(name(row, column), known, unit)
        if attribute in ("waited_ms", "given_mib"):
            continue
        ratios = [old / new for old, new in zip(values[POLLING], values[MESSAGES])
                  if old is not None and new]
        the_bar = bar if attribute == "relief_ms" else None
        if ratios or the_bar:
            yield figure(name(row, f"{POLLING} / {MESSAGES}"), ratios or [0.0], "ratio",
                         better="higher", bar=the_bar)
    for column, outcomes in seen.items():
        yield Figure(name("killed for want of memory, all rounds", column),
                     sum(one.kills for one in outcomes), "processes",
                     bar=0 if column == MESSAGES else None)
    for column, outcomes in seen.items():
        yield Figure(name("rounds in which memory was short", column),
                     100 * statistics.mean(one.relief_ms is not None for one in outcomes), "%")


def pressure_relief(binary: pathlib.Path, workdir: pathlib.Path, rounds: int) -> Iterator[Figure]:
    """Both programs; the slow one, which takes its time, in a third of the rounds."""
    fast: dict[str, list[Outcome]] = {}
    slow: dict[str, list[Outcome]] = {}
    with beds(binary, workdir) as found:
        for i in range(rounds):
            # Moments of the script's second, spread evenly.
            phase = (i + 0.5) / rounds
            for name, bed in found.items():
                fast.setdefault(name, []).append(one_run(bed, FAST, phase))
            if i % 3 == 0:
                for name in (POLLING, PUSH, MESSAGES):
                    slow.setdefault(name, []).append(one_run(found[name], SLOW, phase))
    yield from rows("fast program", fast, 10.0)
    yield from rows("slow program", slow, None)
