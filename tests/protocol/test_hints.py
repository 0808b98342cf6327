# SPDX-License-Identifier: MIT
"""Free page hinting, and the file that a migration or snapshot reads."""

from __future__ import annotations

import mmap
import os
import struct
from typing import Any

import pytest

from balloon import (FREE_PAGE, FREE_PAGE_HINT, HINT_CMD, HINT_DONE, HINT_STOP, PAGE, Guest)
from process import Device
from qmp import Client, QMPError
from rings import WRITE, Seg

HEADER = struct.Struct("<8sIIQIIIIQ")  # magic ... see docs/hint-file.md
REGION = struct.Struct("<QQQ")


class HintFile:
    """The file as its document describes it, read with nothing of ours."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> tuple[dict[str, int], set[int]]:
        """The header, and the numbers of all hinted pages."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            with mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ) as data:
                return self._decode(data)
        finally:
            os.close(fd)

    def _decode(self, data: mmap.mmap) -> tuple[dict[str, int], set[int]]:
        magic, version, header, generation, state, command, shift, n, bitmap = HEADER.unpack_from(
            data, 0)
        assert magic == b"AEROHINT" and version == 1 and shift == 12
        assert generation % 2 == 0, "read while it was being changed"
        pages: set[int] = set()
        for i in range(n):
            first, count, bit = REGION.unpack_from(data, header + i * REGION.size)
            for at in range(count):
                byte = data[bitmap + (bit + at) // 8]
                if byte >> (bit + at) % 8 & 1:
                    pages.add(first + at)
        return {"state": state, "command": command}, pages


def act(monitor: Client, action: str) -> None:
    monitor.cmd("free-page-hint", {"action": action})


def query(monitor: Client) -> dict[str, Any]:
    return dict(monitor.cmd("query-free-page-hint"))


def hinted(monitor: Client) -> set[int]:
    return HintFile(query(monitor)["path"]).read()[1]


@pytest.fixture
def guest(device: Device) -> Guest:
    return device.guest(extra=[FREE_PAGE_HINT])


def runs(pfns: list[int], count: int) -> list[int]:
    return [pfn for pfn in pfns[::count] if pfn + count - 1 in pfns]


def test_a_round(device: Device, guest: Guest, monitor: Client) -> None:
    assert query(monitor)["status"] == "idle"
    assert guest.config_field(HINT_CMD) == HINT_STOP
    act(monitor, "start")
    assert query(monitor)["status"] == "requested"
    command = guest.config_field(HINT_CMD)
    assert command >= 2 and query(monitor)["id"] == command
    guest.hint_id(command)
    assert query(monitor)["status"] == "hinting"
    first = guest.pages()[100]
    guest.hint([Seg(first * PAGE, 8 * PAGE, WRITE), Seg((first + 64) * PAGE, PAGE, WRITE)])
    guest.hint_id(HINT_STOP)
    assert query(monitor)["status"] == "finished"
    assert query(monitor)["hinted-bytes"] == 9 * PAGE
    assert hinted(monitor) == {first + 64, *range(first, first + 8)}
    act(monitor, "done")
    assert guest.config_field(HINT_CMD) == HINT_DONE
    assert query(monitor)["status"] == "done"
    guest.check()  # nothing was discarded
    assert guest.freed() == 0


def test_hints_under_another_id_are_ignored(guest: Guest, monitor: Client) -> None:
    """threats.md 11: stale and forged ids."""
    pfn = guest.pages()[50]
    guest.hint([Seg(pfn * PAGE, PAGE, WRITE)])  # under none
    guest.hint_id(7)  # nobody has asked
    guest.hint([Seg(pfn * PAGE, PAGE, WRITE)])
    act(monitor, "start")
    old = guest.config_field(HINT_CMD)
    guest.hint([Seg(pfn * PAGE, PAGE, WRITE)])  # the command is not begun
    guest.hint_id(old + 1)
    guest.hint([Seg(pfn * PAGE, PAGE, WRITE)])
    assert hinted(monitor) == set()
    guest.hint_id(old)
    guest.hint([Seg((pfn + 1) * PAGE, PAGE, WRITE)])
    act(monitor, "stop")
    assert guest.config_field(HINT_CMD) == HINT_STOP
    guest.hint([Seg((pfn + 2) * PAGE, PAGE, WRITE)])  # late
    assert hinted(monitor) == {pfn + 1}
    act(monitor, "start")
    new = guest.config_field(HINT_CMD)
    assert new not in (old, 0, 1)
    guest.hint([Seg((pfn + 3) * PAGE, PAGE, WRITE)])  # still under the old one
    assert hinted(monitor) == set()
    guest.hint_id(HINT_STOP)
    guest.hint_id(new)
    guest.hint([Seg((pfn + 4) * PAGE, PAGE, WRITE)])
    assert hinted(monitor) == {pfn + 4}
    assert monitor.device()["driver-errors"]["hint-id"] >= 2
    guest.check()


def test_start_is_refused_while_one_is_under_way(guest: Guest, monitor: Client) -> None:
    act(monitor, "start")
    with pytest.raises(QMPError):
        act(monitor, "start")
    guest.hint_id(guest.config_field(HINT_CMD))
    with pytest.raises(QMPError):
        act(monitor, "start")


def test_ids_differ(guest: Guest, monitor: Client) -> None:
    seen = set()
    for _ in range(50):
        act(monitor, "start")
        command = guest.config_field(HINT_CMD)
        assert command >= 2 and command not in seen
        seen.add(command)
        guest.hint_id(command)
        guest.hint_id(HINT_STOP)
        act(monitor, "done")


@pytest.mark.parametrize("packed", [False, True])
def test_only_whole_pages_count(device: Device, monitor: Client, packed: bool) -> None:
    guest = device.guest(extra=[FREE_PAGE_HINT], packed=packed)
    act(monitor, "start")
    guest.hint_id(guest.config_field(HINT_CMD))
    pfn = guest.pages()[200]
    guest.hint([Seg(pfn * PAGE + 1, 3 * PAGE, WRITE), Seg((pfn + 10) * PAGE, PAGE - 1, WRITE),
                Seg((pfn + 20) * PAGE, 2 * PAGE + 5, WRITE)])
    assert hinted(monitor) == {pfn + 1, pfn + 2, pfn + 20, pfn + 21}


def test_odd_ids_and_buffers(guest: Guest, monitor: Client) -> None:
    act(monitor, "start")
    for size in (1, 2, 3):
        ident = guest.write_to(FREE_PAGE, [Seg(guest.buffer(bytes(size)), size)])
        assert guest.returned(FREE_PAGE, ident)
    assert query(monitor)["status"] == "requested"
    assert monitor.device()["driver-errors"]["partial-entry"] == 3
    # The id and the pages in one buffer.
    at = guest.buffer(struct.pack("<I", guest.config_field(HINT_CMD)))
    pfn = guest.pages()[30]
    guest.hint([Seg(at, 4), Seg(pfn * PAGE, PAGE, WRITE)])
    assert hinted(monitor) == {pfn}


def test_a_new_driver_knows_of_no_command(guest: Guest, monitor: Client) -> None:
    act(monitor, "start")
    guest.hint_id(guest.config_field(HINT_CMD))
    guest.reset()
    assert query(monitor)["status"] == "idle"
    assert guest.config_field(HINT_CMD) == HINT_STOP


def test_without_the_feature(device: Device, monitor: Client) -> None:
    with pytest.raises(QMPError):
        act(monitor, "start")
    device.guest()
    with pytest.raises(QMPError):
        act(monitor, "start")
