# SPDX-License-Identifier: MIT
"""Page reporting, page poison, and inhibitors: what may be discarded, and what may not."""

from __future__ import annotations

from typing import Callable

import pytest

from balloon import (INFLATE, PAGE, PAGE_POISON, PAGE_REPORTING, POISON, REPORTING, Guest)
from process import Device
from qmp import Client, QMPError
from rings import WRITE, Seg
from vhost_user import Req, config, u64, wait_for

Spawn = Callable[..., Device]


@pytest.fixture
def guest(device: Device) -> Guest:
    return device.guest(extra=[PAGE_REPORTING])


def poisoned(device: Device, value: int, **kwargs: object) -> Guest:
    guest = device.guest(extra=[PAGE_REPORTING, PAGE_POISON], start=False, **kwargs)
    guest.fe.tell(Req.SET_FEATURES, u64(guest.features))
    guest.fe.tell(Req.SET_CONFIG, config(POISON, value.to_bytes(4, "little")))
    return guest.start()


@pytest.mark.parametrize("packed", [False, True])
def test_reported_ranges_are_given_back(device: Device, monitor: Client, packed: bool) -> None:
    guest = device.guest(extra=[PAGE_REPORTING], packed=packed)
    first = guest.pages()[128]
    guest.report([Seg(first * PAGE, 64 * PAGE, WRITE), Seg((first + 128) * PAGE, 32 * PAGE, WRITE)])
    assert guest.freed() == 96 * PAGE
    assert monitor.device()["reported"] == 96 * PAGE
    guest.reclaim([*range(first, first + 64), *range(first + 128, first + 160)])
    guest.check()
    assert guest.freed() == 0


def test_only_whole_pages_go(guest: Guest) -> None:
    pfn = guest.pages()[200]
    guest.report([Seg(pfn * PAGE + 8, 3 * PAGE, WRITE), Seg((pfn + 8) * PAGE, PAGE - 1, WRITE)])
    assert guest.freed() == 2 * PAGE
    guest.reclaim([pfn + 1, pfn + 2])
    guest.check()


def test_reports_with_something_to_read_break_the_queue_only(guest: Guest) -> None:
    guest.write_to(REPORTING, [Seg(guest.buffer(bytes(8)), 8)])
    assert guest.broke(guest.ring_of[REPORTING])
    pages = guest.some_pages(20)
    guest.inflate(pages)
    assert guest.freed() == 20 * PAGE


def test_poison_keeps_reported_and_inflated_pages(device: Device, monitor: Client) -> None:
    """threats.md 11: poison not zero."""
    guest = poisoned(device, 0xAA)
    info = monitor.device()
    assert info["poison-value"] == 0xAA
    pfn = guest.pages()[200]
    guest.report([Seg(pfn * PAGE, 16 * PAGE, WRITE)])
    pages = guest.some_pages(50)
    guest.inflate(pages)
    assert guest.freed() == 0
    info = monitor.device()
    assert info["held"] == 50 * PAGE and info["reported"] == 16 * PAGE
    assert info["kept"] == 66 * PAGE and info["freed"] == 0
    guest.ballooned.clear()
    guest.check()


def test_zero_poison_changes_nothing(device: Device) -> None:
    guest = poisoned(device, 0)
    pfn = guest.pages()[200]
    guest.report([Seg(pfn * PAGE, 16 * PAGE, WRITE)])
    assert guest.freed() == 16 * PAGE


def test_poison_without_the_feature_is_not_taken(device: Device, monitor: Client) -> None:
    guest = device.guest(extra=[PAGE_REPORTING])
    guest.fe.tell(Req.SET_CONFIG, config(0, bytes([0xAA]) * 20))
    assert guest.config_field(POISON) == 0
    pages = guest.some_pages(10)
    guest.inflate(pages)
    assert guest.freed() == 10 * PAGE


def test_inhibited_nothing_is_discarded(device: Device, guest: Guest, monitor: Client) -> None:
    monitor.cmd("balloon-inhibit", {"reason": "vfio"})
    pages = guest.some_pages(100)
    guest.inflate(pages)
    pfn = next(p for p in guest.pages() if not guest.ballooned & set(range(p, p + 8)))
    guest.report([Seg(pfn * PAGE, 8 * PAGE, WRITE)])
    assert guest.freed() == 0
    info = monitor.device()
    assert info["inhibitors"] == ["vfio"] and info["held"] == 100 * PAGE
    guest.check()
    # Some come back before it is lifted: those are the guest's.
    guest.deflate(pages[:40])
    monitor.cmd("balloon-uninhibit", {"reason": "vfio"})
    wait_for(lambda: guest.freed() == 60 * PAGE, "what is held is discarded")
    guest.check()
    assert monitor.device()["freed"] == 60 * PAGE


def test_the_last_inhibitor_counts(guest: Guest, monitor: Client) -> None:
    for reason in ("vfio", "post-copy", "vfio"):
        monitor.cmd("balloon-inhibit", {"reason": reason})
    guest.inflate(guest.some_pages(10))
    monitor.cmd("balloon-uninhibit", {"reason": "vfio"})
    with pytest.raises(QMPError):
        monitor.cmd("balloon-uninhibit", {"reason": "vfio"})
    assert guest.freed() == 0
    assert monitor.device()["inhibitors"] == ["post-copy"]
    monitor.cmd("balloon-uninhibit", {"reason": "post-copy"})
    wait_for(lambda: guest.freed() == 10 * PAGE, "what is held is discarded")


def test_bad_reasons(monitor: Client) -> None:
    for reason in ("", "x" * 65):
        with pytest.raises(QMPError):
            monitor.cmd("balloon-inhibit", {"reason": reason})
    with pytest.raises(QMPError):
        monitor.cmd("balloon-uninhibit", {"reason": "nobody"})
    assert monitor.device()["inhibitors"] == []


def test_inhibited_before_the_guest_comes(device: Device, monitor: Client) -> None:
    monitor.cmd("balloon-inhibit", {"reason": "snapshot"})
    guest = device.guest()
    guest.inflate(guest.some_pages(10))
    assert guest.freed() == 0
    assert guest.queues[INFLATE].next_used(0.0) is None
