# SPDX-License-Identifier: MIT
"""The hunt for damaged pages: a program owns most of the memory and knows what must be in each
page, while the balloon, reports, hints and compaction go for all that is free.

AEROSTAT_HUNT_SECONDS says for how long; 300 is a whole hunt, the default a slice of one, and a
thinner one on each of QEMU's kernels."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from typing import Any

import pytest

from conftest import Bed
from in_guest import Program
from test_module_push import number
from vmm import Device, QmpError
from vmm.guest import MIB

pytestmark = pytest.mark.driver("aerostat", reason="the stock driver is not what is hunted in")

DEFAULT_S, BRIEF_S = 45, 10
MEMORY, OWNED = 512, 288
#: Room for the owner, the kernel, and what Linux takes while it reports.
LARGEST = 190


#: In the guest: memory is compacted, and caches are dropped, again and again.
STIR = ("i=0; while [ ! -e /run/enough ]; do echo 1 >/proc/sys/vm/compact_memory; i=$((i + 1)); "
        "[ $((i % 8)) = 0 ] && echo 3 >/proc/sys/vm/drop_caches; usleep 150000; done")


class Host:
    """What a host does with its guest, all at once and in no order."""

    def __init__(self, device: Device, seed: int) -> None:
        self._device = device
        self._dice = random.Random(seed)
        self._inhibited = False
        self.done: dict[str, int] = {}

    def act(self) -> None:
        acts = [self._target] * 8 + [self._hint] * 2 + [self._inhibit, self._stall, self._late]
        act = self._inhibit if self._inhibited and self._dice.random() < 0.3 \
            else self._dice.choice(acts)
        self.done[act.__name__] = self.done.get(act.__name__, 0) + 1
        act()
        time.sleep(self._dice.choice([0, 0.002, 0.02, 0.06, 0.2]))

    def _target(self) -> None:
        size = self._dice.choice([0, self._dice.randrange(LARGEST), LARGEST])
        self._device.set_balloon(size * MIB)

    def _hint(self) -> None:
        """The next step of hinting, or one that comes too early and is refused."""
        with contextlib.suppress(QmpError):
            action = self._dice.choice(["start", "stop", "done"])
            self._device.qmp.execute("free-page-hint", action=action)

    def _inhibit(self) -> None:
        self._inhibited = not self._inhibited
        self._device.qmp.execute("balloon-inhibit" if self._inhibited else "balloon-uninhibit",
                                 reason="hunt")

    def _late(self) -> None:
        """The host keeps what it gets, and gives all of it back just when the guest wants it again:
        what the guest has taken without an answer is lost then."""
        if not self._inhibited:
            self._inhibit()
        self._device.set_balloon(LARGEST * MIB)
        time.sleep(self._dice.choice([0.05, 0.1]))
        self._device.set_balloon(0)
        time.sleep(self._dice.choice([0, 0.001, 0.003]))
        worker = self._device.worker()
        os.kill(worker, signal.SIGSTOP)
        self._device.qmp.send("balloon-uninhibit", reason="hunt")
        time.sleep(self._dice.choice([0.01, 0.03]))
        os.kill(worker, signal.SIGCONT)
        self._device.qmp.receive()
        self._inhibited = False

    def _stall(self) -> None:
        """A host that is busy elsewhere, and then has everything to do at once."""
        worker = self._device.worker()
        os.kill(worker, signal.SIGSTOP)
        time.sleep(self._dice.choice([0.005, 0.03, 0.3]))
        os.kill(worker, signal.SIGCONT)

    def rest(self) -> None:
        if self._inhibited:
            self._inhibit()
        with contextlib.suppress(QmpError):
            self._device.qmp.execute("free-page-hint", action="stop")
        with contextlib.suppress(QmpError):
            self._device.qmp.execute("free-page-hint", action="done")
        self._device.qmp.events.clear()


def books(device: Device) -> dict[str, Any]:
    state = device.query()
    return {name: state[name] // MIB for name in ("inflated", "deflated", "freed", "reported",
                                                  "kept")} | {"hinted": state["hinted"] // MIB}


def test_no_page_is_damaged(bed: Bed) -> None:
    seconds = float(os.environ.get("AEROSTAT_HUNT_SECONDS") or
                    (BRIEF_S if bed.platform.brief else DEFAULT_S))
    device, guest = bed.pair("--on-pressure=deflate", "--pressure-steps=8M,16M,32M",
                             "--stats-push-interval=20", memory=MEMORY * MIB, reporting=True,
                             push_and_messages=True)
    bed.harmless.add("hint-id")  # a command may be stopped before the driver has begun
    owner = Program(guest, f"owner {OWNED} {random.randrange(1, 1 << 20)}")
    owner.wait_for("ready", 60)
    stir = Program(guest, STIR)
    before, host = books(device), Host(device, 1)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        host.act()
    host.rest()
    guest.check("touch /run/enough")
    assert stir.wait(120) == 0  # compaction, where a processor is emulated
    after, counters = books(device), guest.counters()
    values = owner.end(60)
    moved = {name: after[name] - before[name] for name in after}
    print(f"\n{seconds:.0f} s, host: {host.done}, MiB: {moved}")
    print(f"guest: {values}, {counters}")

    assert values["wrong"] == 0 and "wrong page" not in owner.output(), owner.output()
    assert values["checked"] > seconds * 20_000
    # Else nothing of this proves anything.
    assert moved["freed"] > seconds * 4 and moved["inflated"] > seconds * 10
    assert moved["reported"] > seconds and moved["hinted"] > 0
    assert number(counters, "migrated") > 0 and number(counters, "hinted") > 0
    assert number(counters, "reported") > 0 and number(counters, "released_target") > 0
    assert number(counters, "timeouts") == 0 and guest.vmstat()["oom_kill"] == 0

    device.inflate_to(64 * MIB)
    device.inflate_to(0)
    state = device.query()
    assert state["inflated"] - state["deflated"] == state["held"] == 0
