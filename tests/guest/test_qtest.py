# SPDX-License-Identifier: MIT
"""The driver of QEMU's test protocol that benchmarks stand on (bench/qtest.py): what it has a
device do is done, and to the pages that it named only; and how QEMU's log of a guest is read."""

from __future__ import annotations

import pathlib
import random
import sys

import pytest

from conftest import Bed
from vmm.guest import MIB, PAGE

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "bench"))

from qtest import (F_EVENT_IDX, QtestMachine, own_balloon, pack, start_balloon,  # noqa: E402
                   vhost_user_balloon)
from record import parse, runs  # noqa: E402

pytestmark = [pytest.mark.vmm("qemu", reason="it is about QEMU"),
              pytest.mark.driver("stock", reason="there is no driver"),
              pytest.mark.once(reason="there is no guest")]

SIZE = 64 * MIB
FIRST, LAST = 8 * MIB // PAGE, SIZE // PAGE - 1


def work(machine: QtestMachine, least: float = 1.0) -> None:
    """Inflate a part of the pages in disorder, by more buffers than a ring has, and look. Of that
    part at least the share `least` must be free then, and never more than all."""
    pci, inflate, deflate = start_balloon(machine)
    assert pci.features & F_EVENT_IDX
    for seed in range(3):
        machine.touch(FIRST, LAST, seed + 1)
        full = machine.resident()
        gone = random.Random(seed).sample(range(FIRST, LAST + 1), (LAST - FIRST) * 2 // 3)
        kept = sorted(set(range(FIRST, LAST + 1)) - set(gone))
        buffers = [data for page in gone[:300] for data in pack([page])] + pack(gone[300:])
        pci.acknowledge_interrupt()
        inflate.run(buffers)
        assert least <= (full - machine.resident()) / (len(gone) * PAGE) <= 1
        for page in kept:
            assert machine.read(page * PAGE, PAGE) == bytes([seed + 1]) * PAGE
        assert not any(machine.read(page * PAGE, PAGE).strip(b"\0") for page in gone)
        deflate.run(pack(gone))
        assert pci.acknowledge_interrupt() == 1


def test_the_balloon_of_qemu(workdir: pathlib.Path) -> None:
    with QtestMachine(workdir, SIZE, True, own_balloon()) as machine:
        work(machine)


def test_the_balloon_of_qemu_on_anonymous_memory(workdir: pathlib.Path) -> None:
    with QtestMachine(workdir, SIZE, False, own_balloon()) as machine:
        work(machine, 0.8)  # khugepaged of the host may fill holes again at any time


def test_our_balloon(bed: Bed, workdir: pathlib.Path) -> None:
    device = bed.device()
    with QtestMachine(workdir, SIZE, True, vhost_user_balloon(device.socket)) as machine:
        work(machine)
        state = device.query()
        assert state["held"] == 0 and state["freed"] == 3 * ((LAST - FIRST) * 2 // 3) * PAGE


def test_a_log_of_qemu_as_buffers(tmp_path: pathlib.Path) -> None:
    """Another device's buffers are none of the balloon's."""
    log = tmp_path / "log"
    log.write_text("virtqueue_pop vq 0x1 elem 0x2 in_num 0 out_num 1\n"
                   "virtqueue_pop vq 0x9 elem 0x2 in_num 0 out_num 1\n"
                   "virtio_balloon_handle_output section name: memory gpa: 0x1000\n"
                   "virtio_balloon_handle_output section name: memory gpa: 0xfffff000\n"
                   "virtqueue_pop vq 0x9 elem 0x2 in_num 0 out_num 1\n"
                   "virtqueue_pop vq 0x1 elem 0x2 in_num 0 out_num 1\n"
                   "something else\n"
                   "virtio_balloon_handle_output section name: memory gpa: 0x3000\n")
    assert parse(log) == [[0x1, 0xfffff], [0x3]]


def test_runs_of_neighbours() -> None:
    assert [runs(pages) for pages in ([7], [3, 2, 1], [1, 3, 2, 9, 0], [0, 2, 4])] == [1, 1, 2, 3]
