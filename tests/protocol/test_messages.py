# SPDX-License-Identifier: MIT
"""Messages about memory pressure (wire.md, "Messages")."""

from __future__ import annotations

import struct
import time
from typing import Callable

import pytest

from balloon import MESSAGE, MESSAGE_VQ, PAGE, PRESSURE, RELIEVED, Guest
from process import Device
from rings import Seg

LEVELS = ["unspecified", "low", "medium", "critical"]
Spawn = Callable[..., Device]


def start(spawn: Spawn, *args: str, **kwargs: object) -> tuple[Device, Guest]:
    device = spawn("--features=message", *args)
    return device, device.guest(extra=[MESSAGE_VQ], **kwargs)


def fill(device: Device, guest: Guest, pages: int) -> None:
    """The balloon holds so many pages, and wants more."""
    device.monitor().cmd("balloon", {"value": guest.mem.size() - (pages + 512) * PAGE})
    guest.inflate(guest.some_pages(pages))
    guest.write_actual()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("level", range(4))
def test_report_leaves_the_target(spawn: Spawn, packed: bool, level: int) -> None:
    device, guest = start(spawn, "--on-pressure=report", packed=packed)
    monitor = device.monitor()
    fill(device, guest, 256)
    guest.message(PRESSURE, level)
    event = monitor.event("GUEST_PRESSURE")
    assert event["level"] == LEVELS[level]
    assert guest.num_pages() == 768


@pytest.mark.parametrize("packed", [False, True])
def test_hold_takes_what_the_balloon_holds(spawn: Spawn, packed: bool) -> None:
    device, guest = start(spawn, "--on-pressure=hold", packed=packed)
    fill(device, guest, 256)
    guest.back.drain()
    guest.message(PRESSURE, 1)
    assert guest.num_pages() == 256
    assert guest.back.drain() == 1
    # Deflating towards a lower target: pressure does not bring it up again.
    device.monitor().cmd("balloon", {"value": guest.mem.size() - 64 * PAGE})
    guest.message(PRESSURE, 3)
    assert guest.num_pages() == 64


def test_deflate_goes_down_by_the_levels_step(spawn: Spawn) -> None:
    device, guest = start(spawn, "--on-pressure=deflate", "--pressure-steps=64K,256K,1M")
    fill(device, guest, 800)
    held = 800
    for level, step in ((1, 16), (2, 64), (3, 256), (0, 16)):
        guest.message(PRESSURE, level)
        target = held - step
        assert guest.num_pages() == target, LEVELS[level]
        guest.deflate(sorted(guest.ballooned)[:step])
        held = len(guest.ballooned)
    for _ in range(4):
        guest.message(PRESSURE, 3)
        guest.deflate(sorted(guest.ballooned)[:256])
    assert guest.num_pages() == 0
    guest.check()


def test_target_comes_before_the_acknowledgement(spawn: Spawn) -> None:
    """From the moment that the buffer is back, the configuration is the new one, and the change
    has been signalled."""
    device, guest = start(spawn, "--on-pressure=deflate", "--pressure-steps=64K,64K,64K",
                          "--message-limit=0")
    fill(device, guest, 1000)
    for i in range(60):
        guest.back.drain()
        ident = guest.send_message(struct.pack("<II", PRESSURE, 1 + i % 3))
        assert guest.returned(MESSAGE, ident)
        assert guest.back.drain() == 1, "acknowledged before the change was signalled"
        assert guest.num_pages() == (len(guest.ballooned) - 16) // 16 * 16
        guest.deflate(sorted(guest.ballooned)[:16])


def test_relieved(spawn: Spawn) -> None:
    device, guest = start(spawn, "--on-pressure=hold")
    monitor = device.monitor()
    fill(device, guest, 256)
    guest.message(PRESSURE, 2)
    assert monitor.event("GUEST_PRESSURE")["type"] == "pressure"
    guest.message(RELIEVED)
    event = monitor.event("GUEST_PRESSURE")
    assert event["type"] == "relieved"
    assert guest.num_pages() == 256
    last = monitor.cmd("query-balloon-device")["pressure"]
    assert last["type"] == "relieved" and 0 <= last["age-ms"] < 10000


@pytest.mark.parametrize("packed", [False, True])
def test_odd_messages(spawn: Spawn, packed: bool) -> None:
    device, guest = start(spawn, "--on-pressure=hold", packed=packed)
    monitor = device.monitor()
    fill(device, guest, 256)

    def send(data: bytes) -> None:
        assert guest.returned(MESSAGE, guest.send_message(data))

    send(struct.pack("<I", 77))
    send(struct.pack("<II", 0, 0))
    info = monitor.cmd("query-balloon-device")
    assert info["unknown-messages"] == 2
    assert guest.num_pages() == 768
    for size in (1, 2, 3):
        send(bytes(size))
    assert monitor.cmd("query-balloon-device")["driver-errors"]["message-too-short"] == 3
    send(struct.pack("<I", PRESSURE))
    assert monitor.event("GUEST_PRESSURE")["level"] == "unspecified"
    assert guest.num_pages() == 256
    send(struct.pack("<II", PRESSURE, 3) + bytes(1000))
    assert monitor.event("GUEST_PRESSURE")["level"] == "critical"
    send(struct.pack("<II", PRESSURE, 99))
    assert monitor.event("GUEST_PRESSURE")["level"] == "unspecified"


def test_flood_is_slowed_and_others_are_not(spawn: Spawn) -> None:
    """threats.md: a guest that floods is made to wait; its other queues and the monitor are not."""
    device, guest = start(spawn, "--message-limit=50")
    monitor = device.monitor()
    begun = time.monotonic()
    for _ in range(25):
        guest.message(PRESSURE, 1)
    elapsed = time.monotonic() - begun
    assert elapsed >= 0.3, "25 messages at 50 a second, 5 at once"
    ident = None
    for _ in range(6):
        ident = guest.send_message(struct.pack("<II", PRESSURE, 1))
    at = time.monotonic()
    pages = guest.some_pages(300)
    guest.inflate(pages)
    assert monitor.cmd("query-status")["running"] is True
    guest.deflate(pages)
    assert time.monotonic() - at < 5
    assert monitor.cmd("query-balloon-device")["driver-errors"]["message-flood"] > 0
    assert ident is not None
    guest.check()


def test_writable_message_breaks_its_queue_only(spawn: Spawn) -> None:
    device, guest = start(spawn)
    guest.write_to(MESSAGE, [Seg(guest.buffer(bytes(8)), 8, 2)])
    assert guest.broke(guest.ring_of[MESSAGE])
    pages = guest.some_pages(10)
    guest.inflate(pages)
    guest.deflate(pages)


def test_pressure_is_counted_by_level(spawn: Spawn) -> None:
    device, guest = start(spawn)
    for level in (1, 1, 2, 3, 3, 3, 0):
        guest.message(PRESSURE, level)
    assert device.monitor().cmd("query-balloon-device")["pressure"]["messages"] == {
        "unspecified": 1, "low": 2, "medium": 1, "critical": 3}


def test_not_offered_by_default(device: Device) -> None:
    guest = device.guest(start=False)
    assert not guest.offered >> MESSAGE_VQ & 1
