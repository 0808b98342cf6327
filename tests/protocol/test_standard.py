# SPDX-License-Identifier: MIT
"""What virtio 1.4 asks of the device and no other test here looks at: guests that do not tell the
host before they use pages again, and the legacy interface.
"""

from __future__ import annotations

import struct

import pytest

from balloon import (ACTUAL, DEFLATE, MIB, MUST_TELL_HOST, NUM_PAGES, PAGE, PAGE_REPORTING,
                     REPORTING, Guest, bits, pattern, stat)
from process import Device
from qmp import Client
from rings import WRITE, Seg
from vhost_user import Req, config, wait_for

KINDS = {"legacy": {"version1": False}, "modern": {}, "packed": {"packed": True}}


@pytest.fixture(params=KINDS)
def untold(request: pytest.FixtureRequest, device: Device) -> Guest:
    """A guest that has not accepted MUST_TELL_HOST."""
    guest: Guest = device.guest(start=False, extra=[PAGE_REPORTING], **KINDS[request.param])
    guest.features &= ~bits(MUST_TELL_HOST)
    return guest.start()


def test_pages_are_used_before_the_device_knows(untold: Guest, monitor: Client) -> None:
    """The deflation is but a courtesy: what the guest has written stays, also when it is written
    before the buffer is sent, and between its sending and its return."""
    guest = untold
    for round_ in range(20):
        pages = guest.some_pages(64, round_)
        guest.inflate(pages)
        assert guest.freed() == 64 * PAGE
        guest.reclaim(pages[:32])
        ident = guest.submit(DEFLATE, b"".join(struct.pack("<I", pfn) for pfn in pages))
        guest.reclaim(pages[32:])
        assert guest.returned(DEFLATE, ident)
        guest.check()
    assert monitor.device()["held"] == 0
    assert "must-tell-host" not in monitor.device()["features-negotiated"]


def test_pages_are_used_and_the_device_never_knows(untold: Guest, monitor: Client) -> None:
    """Nothing that the balloon holds by the device's count may be discarded later: not when
    neighbours go, and not when the last inhibitor does."""
    guest = untold
    pages = sorted(guest.some_pages(64))
    guest.inflate(pages)
    guest.reclaim(pages)
    guest.inflate(guest.some_pages(64, seed=1))
    monitor.cmd("balloon-inhibit", {"reason": "a test"})
    more = guest.some_pages(64, seed=2)
    guest.inflate(more)
    guest.reclaim(more)
    monitor.cmd("balloon-uninhibit", {"reason": "a test"})
    wait_for(lambda: not monitor.device()["discarding"], "the end of discarding")
    guest.inflate(guest.some_pages(8, seed=3))
    guest.check()


@pytest.mark.parametrize("kind", ["legacy", "modern"])
def test_configuration_is_little_endian(device: Device, monitor: Client, kind: str) -> None:
    """Also on the legacy interface, where everything else has the guest's order."""
    guest = device.guest(**KINDS[kind])
    monitor.cmd("balloon", {"value": guest.mem.size() - MIB})
    assert guest.fe.get_config(NUM_PAGES, 4) == bytes([0x00, 0x01, 0x00, 0x00])
    guest.fe.tell(Req.SET_CONFIG, config(ACTUAL, bytes([0x02, 0x01, 0x00, 0x00])))
    assert monitor.device()["actual"] == 0x102 * PAGE


def test_legacy_actual_counts_when_its_last_byte_is_written(device: Device,
                                                            monitor: Client) -> None:
    """From the least to the most significant one, as drivers did it over PCI."""
    guest = device.guest(version1=False)
    guest.fe.tell(Req.SET_CONFIG, config(ACTUAL, struct.pack("<I", 0x1FF)))
    for at, byte in enumerate(struct.pack("<I", 0x300)[:3]):
        guest.fe.tell(Req.SET_CONFIG, config(ACTUAL + at, bytes([byte])))
        assert monitor.device()["actual"] == 0x1FF * PAGE, "a value that never was"
    guest.fe.tell(Req.SET_CONFIG, config(ACTUAL + 3, b"\0"))
    assert monitor.device()["actual"] == 0x300 * PAGE


def test_nothing_is_written_into_buffers(device: Device) -> None:
    """The device only reads arrays and figures, and of pages it changes nothing but all."""
    guest = device.guest(extra=[PAGE_REPORTING])
    data = b"".join(struct.pack("<I", pfn) for pfn in guest.some_pages(100))
    at = guest.buffer(data)
    ident = guest.write_to(DEFLATE, [Seg(at, len(data))])
    assert guest.returned(DEFLATE, ident) and guest.mem.read(at, len(data)) == data
    figures = stat(4, 1) + stat(5, 2)
    guest.give_stats(figures)
    pfn = guest.pages()[300]
    part = [Seg(pfn * PAGE + 16, PAGE - 16, WRITE), Seg((pfn + 1) * PAGE, PAGE // 2, WRITE)]
    assert guest.returned(REPORTING, guest.write_to(REPORTING, part))
    assert guest.mem.read(pfn * PAGE, 2 * PAGE) == pattern(pfn) + pattern(pfn + 1)
    guest.check()
