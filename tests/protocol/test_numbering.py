# SPDX-License-Identifier: MIT
"""Which ring is which queue (wire.md, "Queues"): every combination of features and numbering."""

from __future__ import annotations

import itertools
from typing import Callable

import pytest

from balloon import (FREE_PAGE, FREE_PAGE_HINT, HINT_STOP, MESSAGE, MESSAGE_VQ, PAGE,
                     PAGE_REPORTING, PRESSURE, REPORTING, STATS, STATS_VQ, Guest, stat)
from process import Device
from rings import WRITE, Seg
from vhost_user import Req, state

OPTIONAL = {"stats": STATS_VQ, "free-page-hint": FREE_PAGE_HINT, "page-reporting": PAGE_REPORTING,
            "message": MESSAGE_VQ}
SETS = [set(names) for n in range(5) for names in itertools.combinations(OPTIONAL, n)]


def speak(guest: Guest, wanted: set[str]) -> None:
    """Says something on every queue that only that queue understands."""
    pages = guest.some_pages(20)
    guest.inflate(pages)
    guest.deflate(pages)
    if "stats" in wanted:
        ident = guest.write_to(STATS, [Seg(guest.buffer(stat(4, 7)), 10)])
        assert guest.queue(STATS).next_used(0.02) is None, ident
    if "free-page-hint" in wanted:
        guest.hint_id(HINT_STOP)
    if "page-reporting" in wanted:
        pfn = guest.pages()[100]
        before = guest.freed()
        guest.report([Seg(pfn * PAGE, PAGE, WRITE)])
        assert guest.freed() == before + PAGE
        guest.reclaim([pfn])
    if "message" in wanted:
        guest.message(PRESSURE, 1)


@pytest.mark.parametrize("numbering", ["fixed", "negotiated", "offered"])
@pytest.mark.parametrize("offered", SETS, ids=lambda names: "+".join(sorted(names)) or "none")
def test_every_combination(spawn: Callable[..., Device], numbering: str,
                           offered: set[str]) -> None:
    device = spawn("--message-limit=0",
                   "--features=" + ",".join(n if n in offered else f"no-{n}" for n in OPTIONAL))
    monitor = device.monitor()
    for wanted in SETS:
        if not wanted <= offered:
            continue
        guest = device.guest(extra=[OPTIONAL[n] for n in wanted], stats="stats" in wanted,
                             numbering=numbering)
        speak(guest, wanted)
        names = {q["name"]: q["ring"] for q in monitor.device()["queues"]}
        roles = {"inflate": 0, "deflate": 1, "stats": STATS, "free-page": FREE_PAGE,
                 "reporting": REPORTING, "message": MESSAGE}
        assert names == {n: guest.ring_of[r] for n, r in roles.items() if r in guest.ring_of}
        guest.check()
        device.close(guest)
    assert monitor.device()["driver-errors"]["unknown-queue"] == 0


def test_a_set_of_rings_that_fits_nothing_is_reported(spawn: Callable[..., Device]) -> None:
    device = spawn("--features=message")
    monitor = device.monitor()
    guest = device.guest(start=False, extra=[MESSAGE_VQ])
    guest.ring_of[MESSAGE] = 4  # by the standard it is 5, by all others 3
    guest.start()
    pages = guest.some_pages(20)
    guest.inflate(pages)
    guest.deflate(pages)
    guest.send_message(bytes(8))
    guest.queue(MESSAGE).notify(always=True)
    assert guest.queue(MESSAGE).next_used(0.3) is None, "guessed at"
    assert monitor.device()["driver-errors"]["unknown-queue"] >= 1
    guest.check()


def test_rings_that_come_late(spawn: Callable[..., Device]) -> None:
    """Set up one by one; the pages' queues are served before the others are clear."""
    device = spawn("--features=message", "--message-limit=0")
    guest = device.guest(start=False, extra=[MESSAGE_VQ, FREE_PAGE_HINT], numbering="fixed",
                         style="one-by-one")
    guest.start()
    guest.message(PRESSURE)
    guest.fe.tell(Req.SET_VRING_ENABLE, state(guest.ring_of[FREE_PAGE], 0))
    pages = guest.some_pages(20)
    guest.inflate(pages)
    guest.message(PRESSURE)
    guest.fe.tell(Req.SET_VRING_ENABLE, state(guest.ring_of[FREE_PAGE], 1))
    guest.hint_id(HINT_STOP)
    guest.deflate(pages)
    guest.check()
