# SPDX-License-Identifier: MIT
"""What a guest and an operator rely on: memory goes, comes back, and nothing else changes."""

from __future__ import annotations

import os
import struct
import time
from itertools import product

import pytest

from balloon import (DEFLATE, DEFLATE_ON_OOM, FREE_PAGE_HINT, INFLATE, MIB, MUST_TELL_HOST, PAGE,
                     PAGE_POISON, PAGE_REPORTING, PROTOCOL_FEATURES, STATS_VQ, bits)
from process import Device
from qmp import Client, QMPError
from rings import Seg, SplitRing
from vhost_user import (CONFIG_CHANGE, OFFERED_PROTOCOL, Region, Req, config, mem_table,
                        one_region, state, wait_for)

RINGS = [dict(packed=p, indirect=i, event_idx=e, version1=v)
         for p, i, e, v in product((False, True), repeat=4) if v or not p]
FORMATS = [False, True]


def ring_name(kind: dict[str, bool]) -> str:
    return "-".join(name for name, on in kind.items() if on) or "legacy"


def errors(monitor: Client) -> int:
    return sum(monitor.device()["driver-errors"].values())


def pfns(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


@pytest.mark.parametrize("kind", RINGS, ids=ring_name)
def test_inflate_and_deflate(device: Device, monitor: Client, kind: dict[str, bool]) -> None:
    guest = device.guest(**kind)
    assert guest.freed() == 0
    pages = guest.some_pages(600)
    guest.inflate(pages)
    guest.check()
    assert guest.freed() == 600 * PAGE
    guest.write_actual()
    seen = monitor.device()
    assert seen["held"] == seen["actual"] == seen["freed"] == 600 * PAGE
    assert seen["resident"] == guest.mem.resident()
    assert seen["memory"] == guest.mem.size()
    assert errors(monitor) == 0 and not any(queue["broken"] for queue in seen["queues"])

    guest.deflate(pages[:250])
    guest.write_actual()
    guest.check()
    seen = monitor.device()
    assert (seen["held"], seen["freed"]) == (350 * PAGE, 600 * PAGE)
    assert seen["resident"] == guest.mem.resident() == guest.mem.size() - 350 * PAGE
    assert monitor.cmd("query-balloon") == {"actual": guest.mem.size() - 350 * PAGE}
    guest.deflate(pages[250:])
    assert monitor.device()["held"] == 0
    guest.check()


@pytest.mark.parametrize("style,packed", product(("qemu", "uml"), FORMATS))
def test_front_ends(device: Device, style: str, packed: bool) -> None:
    regions = None
    if style == "uml":
        regions = [Region(0x1234000, 4 * MIB, uaddr=0x1234000)]
    guest = device.guest(style=style, packed=packed, regions=regions)
    assert guest.proto == OFFERED_PROTOCOL
    assert guest.offered & 0x7F == bits(MUST_TELL_HOST, STATS_VQ, DEFLATE_ON_OOM, FREE_PAGE_HINT,
                                        PAGE_POISON, PAGE_REPORTING)
    guest.inflate(guest.some_pages(300))
    assert guest.freed() == 300 * PAGE
    guest.check()


def test_without_protocol_features_rings_start_enabled(device: Device) -> None:
    guest = device.guest(start=False)
    guest.features &= ~bits(PROTOCOL_FEATURES)
    guest.start()
    guest.inflate(guest.some_pages(10))
    assert guest.freed() == 10 * PAGE


def test_disabled_ring_waits(device: Device, monitor: Client) -> None:
    guest = device.guest()
    guest.fe.tell(Req.SET_VRING_ENABLE, state(INFLATE, 0))
    guest.submit(INFLATE, pfns(*guest.some_pages(1)))
    assert guest.queues[INFLATE].next_used(0.2) is None
    assert guest.freed() == 0 and monitor.device()["held"] == 0
    guest.enable(INFLATE)
    assert guest.queues[INFLATE].next_used() is not None
    assert guest.freed() == PAGE


def test_names_of_features_and_queues(device: Device, monitor: Client) -> None:
    guest = device.guest(stats=False)
    seen = monitor.device()
    ours = {"must-tell-host", "stats", "deflate-on-oom"}
    assert ours <= set(seen["features-offered"])
    assert ours & set(seen["features-negotiated"]) == ours - {"stats"}
    assert [(q["index"], q["name"]) for q in seen["queues"]][:2] == [(0, "inflate"),
                                                                     (1, "deflate")]
    guest.inflate(guest.some_pages(1))


@pytest.mark.parametrize("packed", FORMATS)
@pytest.mark.parametrize("order", ["up", "down", "shuffled", "duplicates"])
def test_page_numbers_in_any_order(device: Device, monitor: Client, packed: bool,
                                   order: str) -> None:
    guest = device.guest(packed=packed)
    pages = sorted(guest.some_pages(200, seed=7))
    sent = {"up": pages, "down": pages[::-1], "shuffled": pages[::2] + pages[1::2],
            "duplicates": pages + pages[50:100]}[order]
    guest.inflate(sent)
    guest.check()
    assert guest.freed() == monitor.device()["held"] == 200 * PAGE


@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("packed", FORMATS)
def test_array_spread_over_descriptors(device: Device, monitor: Client, packed: bool,
                                       indirect: bool) -> None:
    """Page numbers straddle descriptors; the fragment at the end is no page number."""
    guest = device.guest(packed=packed, indirect=indirect)
    pages = guest.some_pages(40)
    data = pfns(*pages) + b"\x01\x02\x03"
    cuts = [0, 1, 3, 8, 9, 40, 41, 42, 43, 120, len(data)]
    guest.submit(INFLATE, [data[a:b] for a, b in zip(cuts, cuts[1:])])
    assert guest.queues[INFLATE].next_used() is not None
    guest.ballooned.update(pages)
    guest.check()
    assert guest.freed() == monitor.device()["held"] == 40 * PAGE
    assert errors(monitor) == 1, "the fragment"


def test_chain_that_ends_in_an_indirect_table(device: Device) -> None:
    """virtio: zero or more normal descriptors followed by an indirect one MUST be handled."""
    guest = device.guest(indirect=True)
    pages = guest.some_pages(6)
    ring = guest.queues[INFLATE].ring
    assert isinstance(ring, SplitRing)
    table = guest.buffer(bytes(32))
    ring.set_desc(0, Seg(guest.buffer(pfns(*pages[2:4])), 8, 1, 1), table)
    ring.set_desc(1, Seg(guest.buffer(pfns(*pages[4:])), 8), table)
    ring.add([Seg(guest.buffer(pfns(*pages[:2])), 8), Seg(table, 32, 4)])
    guest.queues[INFLATE].notify()
    assert guest.queues[INFLATE].next_used() is not None
    assert guest.freed() == 6 * PAGE


@pytest.mark.parametrize("packed,size", [(False, 4), (True, 4), (True, 7), (False, 1)])
@pytest.mark.parametrize("event_idx", [False, True])
def test_small_rings_go_round(device: Device, packed: bool, size: int, event_idx: bool) -> None:
    """Also a packed ring whose size is no power of two, which virtio allows."""
    guest = device.guest(packed=packed, size=size, event_idx=event_idx)
    for round_ in range(30):
        pages = guest.some_pages(3, round_)
        guest.inflate(pages)
        if round_ % 2:
            guest.deflate(pages)
    guest.check()
    assert guest.freed() == 15 * 3 * PAGE


@pytest.mark.parametrize("event_idx", [False, True])
def test_split_index_wraps(device: Device, event_idx: bool) -> None:
    guest = device.guest(event_idx=event_idx)
    guest.stop()
    ring = guest.queues[INFLATE].ring
    assert isinstance(ring, SplitRing)
    ring.used_idx = ring.kicked_idx = 65533
    ring.set_avail_idx(65533)
    guest.mem.w16(ring.device + 2, 65533)
    ring.want_call()
    guest.start_queue(INFLATE, 65533)
    guest.enable(INFLATE)
    for seed in range(6):
        guest.inflate(guest.some_pages(2, seed))
    assert struct.unpack("=II", guest.fe.ask(Req.GET_VRING_BASE, state(INFLATE)))[1] == 3
    assert guest.freed() == 12 * PAGE


@pytest.mark.parametrize("packed", FORMATS)
def test_calls_can_be_suppressed(device: Device, packed: bool) -> None:
    guest = device.guest(packed=packed)
    queue = guest.queues[INFLATE]
    queue.ring.mute()
    guest.submit(INFLATE, pfns(*guest.some_pages(1)))
    wait_for(queue.ring.used, "buffer returned without a call")
    assert guest.fe.alive() and not queue.call.wait(0.1)
    queue.ring.want_call()
    guest.submit(INFLATE, pfns(*guest.some_pages(1)))
    assert queue.call.wait(5)


@pytest.mark.parametrize("packed,size", [(False, 8), (True, 7)])
def test_event_index_delays_the_call(device: Device, packed: bool, size: int) -> None:
    """The event lies at each place of the ring once, also in the lap before."""
    guest = device.guest(packed=packed, event_idx=True, size=size)
    queue = guest.queues[INFLATE]
    guest.submit(INFLATE, pfns(*guest.some_pages(1)))
    assert queue.call.wait(5) and queue.ring.used()  # the first after a start may come unasked
    early = 0
    for _ in range(2 * size):
        queue.ring.want_call(ahead=2)
        for _ in range(3):
            early += queue.call.wait(0)
            guest.submit(INFLATE, pfns(*guest.some_pages(1)))
            wait_for(queue.ring.used, "buffer returned")
        assert queue.call.wait(5), "no call"
    assert early < size / 2, f"{early} calls came early; a stray one is no fault"


def test_driver_errors_are_counted_and_harmless(device: Device, monitor: Client) -> None:
    guest = device.guest()
    pages = guest.some_pages(4)
    guest.inflate(pages)
    before = errors(monitor)
    guest.inflate(pages[:2])
    assert errors(monitor) > before, "double inflate"
    assert monitor.device()["held"] == monitor.device()["freed"] == 4 * PAGE
    before = errors(monitor)
    guest._transfer(DEFLATE, guest.some_pages(3))
    assert errors(monitor) > before, "deflate of pages not held"
    before = errors(monitor)
    guest._transfer(INFLATE, [0, 0xFFFFFFFF, guest.mem.regions[0].gpa // PAGE - 1,
                              (guest.mem.regions[1].gpa + guest.mem.regions[1].size) // PAGE])
    assert errors(monitor) > before, "pages that do not exist"
    assert monitor.device()["held"] == guest.freed() == 4 * PAGE
    guest.check()


@pytest.mark.parametrize("packed", FORMATS)
def test_reset_hands_everything_back(device: Device, monitor: Client, packed: bool) -> None:
    guest = device.guest(packed=packed)
    guest.inflate(guest.some_pages(100))
    guest.write_actual()
    guest.reset()
    assert (monitor.device()["held"], monitor.device()["actual"]) == (0, 0)
    pages = guest.some_pages(50)
    guest.inflate(pages)
    assert monitor.device()["held"] == guest.freed() == 50 * PAGE
    guest.check()


@pytest.mark.parametrize("packed", FORMATS)
def test_stop_and_cont_keep_the_balloon(device: Device, monitor: Client, packed: bool) -> None:
    guest = device.guest(packed=packed)
    pages = guest.some_pages(100)
    guest.inflate(pages)
    guest.write_actual()
    guest.cont(guest.stop())
    assert monitor.device()["held"] == monitor.device()["actual"] == 100 * PAGE
    guest.deflate(pages)
    guest.check()
    assert monitor.device()["held"] == 0 and errors(monitor) == 0


def test_kick_while_stopped_is_served_after_cont(device: Device) -> None:
    guest = device.guest()
    bases = guest.stop()
    guest.submit(INFLATE, pfns(*guest.some_pages(1)))
    assert guest.queues[INFLATE].next_used(0.2) is None and guest.freed() == 0
    guest.cont(bases)
    assert guest.queues[INFLATE].next_used() is not None and guest.freed() == PAGE


def test_sixty_four_regions(device: Device) -> None:
    regions = [Region((i * 3 + 1) * MIB, MIB // 4 if i else MIB) for i in range(64)]
    guest = device.guest(regions=regions)
    pages = guest.some_pages(2000)
    guest.inflate(pages)
    guest.check()
    assert guest.freed() == 2000 * PAGE
    extra = Region(1000 * MIB, MIB)
    try:
        assert guest.fe.refused(Req.ADD_MEM_REG, one_region(extra), [extra.fd])
    finally:
        extra.close()


def test_memory_added_and_removed(device: Device, monitor: Client) -> None:
    guest = device.guest()
    extra = Region(256 * MIB, MIB)
    guest.fe.tell(Req.ADD_MEM_REG, one_region(extra), [extra.fd])
    guest.mem.regions.append(extra)
    for pfn in range(extra.gpa // PAGE, (extra.gpa + extra.size) // PAGE):
        guest.reclaim([pfn])
    guest.inflate([extra.gpa // PAGE + i for i in range(0, 256, 2)])
    guest.inflate(guest.some_pages(64))
    assert guest.freed() == monitor.device()["held"] == 192 * PAGE
    guest.mem.regions.pop()
    gone = sum(extra.gpa <= pfn * PAGE < extra.gpa + extra.size for pfn in guest.ballooned)
    guest.fe.tell(Req.REM_MEM_REG, one_region(extra))
    assert monitor.device()["held"] == (192 - gone) * PAGE
    assert not [line for line in device.guest_maps() if line.count("protocol-test-ram") > 2]
    extra.close()
    guest.inflate(guest.some_pages(10))
    guest.check()


@pytest.mark.parametrize("packed", FORMATS)
def test_memory_table_replaced_while_running(device: Device, monitor: Client,
                                             packed: bool) -> None:
    """Rings stay where they are for the guest, and move in the device."""
    guest = device.guest(packed=packed)
    guest.inflate(guest.some_pages(20))
    extra = Region(256 * MIB, MIB)
    guest.mem.regions.append(extra)
    guest.reclaim(range(extra.gpa // PAGE, (extra.gpa + extra.size) // PAGE))
    guest.fe.tell(Req.SET_MEM_TABLE, mem_table(guest.mem.regions),
                  [region.fd for region in guest.mem.regions])
    assert len(device.guest_maps()) == 3
    assert monitor.device()["held"] == 20 * PAGE
    guest.inflate([extra.gpa // PAGE, extra.gpa // PAGE + 255])
    guest.inflate(guest.some_pages(20))
    assert guest.freed() == monitor.device()["held"] == 42 * PAGE
    guest.check()


def test_huge_pages_go_whole_or_not_at_all(device: Device, monitor: Client) -> None:
    """threats.md 10: inflate A, deflate A, inflate B inside one host huge page frees nothing."""
    knob = "/proc/sys/vm/nr_hugepages"
    with open(knob, encoding="ascii") as file:
        old = file.read()
    huge = None
    try:
        with open(knob, "w", encoding="ascii") as file:
            file.write(str(int(old) + 2))
        try:
            huge = Region(512 * MIB, 4 * MIB, huge=True)
            guest = device.guest(regions=[Region(16 * MIB, MIB), huge])
        except OSError as error:
            pytest.skip(f"no huge pages: {error}")
        base = huge.gpa // PAGE
        half_a, half_b = range(base, base + 256), range(base + 256, base + 512)
        guest.inflate(half_a)
        guest.deflate(half_a)
        guest.inflate(half_b)
        guest.check()
        assert os.fstat(huge.fd).st_blocks * 512 == 4 * MIB and monitor.device()["held"] == MIB
        assert monitor.device()["freed"] == 0
        guest.inflate(half_a)
        guest.check()
        assert os.fstat(huge.fd).st_blocks * 512 == 2 * MIB
        assert monitor.device()["freed"] == 2 * MIB
        device.close()
    except PermissionError as error:
        pytest.skip(f"cannot reserve huge pages: {error}")
    finally:
        with open(knob, "w", encoding="ascii") as file:
            file.write(old)


def test_target_reaches_the_guest(device: Device, monitor: Client) -> None:
    guest = device.guest()
    size = guest.mem.size()
    monitor.cmd("balloon", {"value": size - 2 * MIB})
    assert guest.back.next() == CONFIG_CHANGE
    assert guest.num_pages() == 512
    assert monitor.device()["target"] == 2 * MIB
    monitor.cmd("balloon", {"value": size - 2 * MIB - 100_000})
    assert guest.back.next() == CONFIG_CHANGE
    assert guest.num_pages() in (528, 544), "a multiple of 16 beside 536"
    monitor.cmd("balloon", {"value": 1 << 50})
    assert guest.num_pages() == 0
    for wrong in (0, -1):
        with pytest.raises(QMPError):
            monitor.cmd("balloon", {"value": wrong})
    assert guest.num_pages() == 0


def test_targets_that_change_fast_are_told_of_together(device: Device, monitor: Client) -> None:
    """The fewer messages are on their way, the rarer is one that comes when rings have stopped, of
    which QEMU 11.1 dies. The last target is never left out."""
    guest = device.guest()
    size, began = guest.mem.size(), time.monotonic()
    for turn in range(1, 201):
        monitor.cmd("balloon", {"value": size - 16 * (turn % 32) * PAGE})
    took = time.monotonic() - began
    told = 0
    while guest.back.next(0.2) == CONFIG_CHANGE:
        told += 1
    assert 1 <= told <= took / 0.009 + 2  # its clock has milliseconds
    assert guest.num_pages() == 16 * (200 % 32)


def test_config_change_only_while_rings_are_started(device: Device, monitor: Client) -> None:
    """facts.md: QEMU 11.1 crashes otherwise. A wish made meanwhile is not lost."""
    guest = device.guest(start=False)
    size = guest.mem.size()
    monitor.cmd("balloon", {"value": size - MIB})
    assert guest.fe.alive() and guest.back.next(0.2) is None, "before SET_FEATURES"
    guest.start()
    assert guest.num_pages() == 256
    guest.back.next(0.2)
    guest.back.drain()
    monitor.cmd("balloon", {"value": size - 2 * MIB})
    assert guest.back.next() == CONFIG_CHANGE
    bases = guest.stop()
    monitor.cmd("balloon", {"value": size - 3 * MIB})
    assert guest.fe.alive() and guest.back.next(0.2) is None, "while stopped"
    guest.cont(bases)
    assert guest.back.next() == CONFIG_CHANGE
    assert guest.num_pages() == 768


def test_wish_before_the_memory_is_known(spawn) -> None:
    device = spawn("--target=2M")
    monitor = device.monitor()
    with pytest.raises(QMPError) as caught:
        monitor.cmd("query-balloon")
    assert caught.value.error_class == "DeviceNotActive"
    guest = device.guest()
    monitor.event("VMM_CONNECTED")
    assert guest.num_pages() == 512
    assert monitor.cmd("query-balloon") == {"actual": guest.mem.size()}
    device.close(guest)
    monitor.event("VMM_DISCONNECTED")
    with pytest.raises(QMPError) as caught:
        monitor.cmd("query-balloon")
    assert caught.value.error_class == "DeviceNotActive"
    monitor.cmd("balloon", {"value": 7 * MIB})
    assert device.guest().num_pages() == 256


def test_features_can_be_switched_off(spawn) -> None:
    device = spawn("--features=no-stats,no-deflate-on-oom,no-free-page-hint,no-page-poison,"
                   "no-page-reporting")
    offered = device.front_end().ask_u64(Req.GET_FEATURES)
    assert offered & 0x7F == bits(MUST_TELL_HOST)


def test_config_space(device: Device, monitor: Client) -> None:
    guest = device.guest()
    monitor.cmd("balloon", {"value": guest.mem.size() - MIB})
    guest.write_actual(48)  # with a num_pages that is not the driver's to write
    assert guest.fe.get_config(0, 8) == struct.pack("<II", 256, 48)
    assert guest.fe.get_config(0, 20) == struct.pack("<5I", 256, 48, 0, 0, 0)
    assert guest.fe.get_config(4, 64) == struct.pack("<I", 48) + bytes(60)
    assert guest.fe.get_config(0, 256) == struct.pack("<II", 256, 48) + bytes(248)
    assert guest.fe.get_config(5, 2) == bytes(2)
    guest.fe.tell(Req.SET_CONFIG, config(4, struct.pack("<I", 64)))
    guest.fe.tell(Req.SET_CONFIG, config(0, struct.pack("<I", 7)))
    assert guest.fe.get_config(0, 8) == struct.pack("<II", 256, 64)
    assert monitor.device()["actual"] == 64 * PAGE


def test_balloon_change_at_most_one_a_second(device: Device, monitor: Client) -> None:
    guest = device.guest()
    size = guest.mem.size()
    guest.write_actual(16)
    assert monitor.event("BALLOON_CHANGE") == {"actual": size - 16 * PAGE}
    start = time.monotonic()
    for pages in range(17, 80):
        guest.write_actual(pages)
    assert monitor.event("BALLOON_CHANGE") == {"actual": size - 79 * PAGE}
    assert time.monotonic() - start > 0.5
    guest.write_actual(79)
    with pytest.raises(TimeoutError):
        monitor.event("BALLOON_CHANGE", timeout=1.3)


def test_actual_that_lies(device: Device, monitor: Client) -> None:
    """threats.md 12: the guest's claim is shown, bounded, and believed nowhere."""
    guest = device.guest()
    guest.inflate(guest.some_pages(16))
    guest.write_actual(0xFFFFFFFF)
    assert monitor.device()["held"] == 16 * PAGE
    assert 0 <= monitor.cmd("query-balloon")["actual"] <= guest.mem.size()
    guest.check()


def test_pause_where_a_fresh_ring_begins(device: Device, monitor: Client) -> None:
    """A packed ring is back at slot 0 with its wrap counters after every second lap."""
    guest = device.guest(packed=True, size=16)
    pages = guest.some_pages(32)
    for pfn in pages:
        guest.inflate([pfn])
    bases = guest.stop()
    assert bases[INFLATE] == 0x80008000
    guest.cont(bases)
    guest.inflate(guest.some_pages(1))
    assert monitor.device()["held"] == 33 * PAGE
    for pfn in guest.some_pages(31):
        guest.inflate([pfn])
    guest.reset()
    guest.inflate(guest.some_pages(1))
    assert monitor.device()["held"] == PAGE
    guest.check()
