# SPDX-License-Identifier: MIT
"""The harness itself: a test that trusts it must be able to."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from conftest import Bed
from vmm import GuestData, GuestError, UmlGuest


@pytest.fixture(scope="module")
def guest(initramfs: pathlib.Path, workdir: pathlib.Path) -> Iterator[UmlGuest]:
    """One for all tests that leave it as it was."""
    with UmlGuest(initramfs, workdir) as guest:
        yield guest


def test_output_and_status_are_exact(guest: UmlGuest) -> None:
    result = guest.run(r"printf 'a\0b\r\n\377'; echo to-stderr >&2; exit 7")
    assert result.output == b"a\0b\r\n\xffto-stderr\n" and result.status == 7
    noise = guest.run("head -c 1000000 /dev/urandom | tee /run/noise; md5sum </run/noise >/run/sum")
    guest.check("cat /run/sum")
    assert len(noise.output) == 1000000
    assert guest.run("cat /run/noise").output == noise.output


def test_kernel_messages_stay_out_of_the_output(guest: UmlGuest) -> None:
    guest.check("echo 8 >/proc/sys/kernel/printk; echo on >/proc/sys/kernel/printk_devkmsg")
    output = guest.check("for i in $(seq 500); do echo line $i; echo 0123456789 >/dev/kmsg; done")
    assert output == "".join(f"line {i}\n" for i in range(1, 501))
    assert guest.console().count("0123456789") == 500


def test_long_scripts(guest: UmlGuest) -> None:
    assert guest.check(f"echo {'x' * 30000}") == "x" * 30000 + "\n"


def test_a_late_answer_is_not_taken_for_the_next(guest: UmlGuest) -> None:
    with pytest.raises(GuestError, match="in time"):
        guest.run("sleep 1; echo late", timeout=0.3)
    assert guest.run("echo next").output == b"next\n"


def test_damaged_data_is_found(guest: UmlGuest) -> None:
    data = GuestData(guest)
    data.write(4 << 20)
    assert data.damaged() == []
    victim = data.checksums().split()[5]
    guest.check(f"dd if=/dev/zero of={victim} bs=4096 seek=100 count=1 conv=notrunc")
    (damage,) = data.damaged()
    assert damage.startswith(f"{victim}: page 100 begins with b'\\x00")
    data.clear()


def test_pause_and_resume(guest: UmlGuest) -> None:
    guest.pause()
    with pytest.raises(GuestError, match="in time"):
        guest.run("true", timeout=0.5)
    guest.resume()
    assert guest.check("echo awake") == "awake\n"


def test_a_killed_guest_leaves_nothing(bed: Bed, workdir: pathlib.Path) -> None:
    shared, private = set(os.listdir("/dev/shm")), set(os.listdir(workdir))
    guest = bed.guest()
    group = os.getpgid(guest.pid)
    guest.check("sleep 100 >/dev/null 2>&1 &")
    guest.kill()
    time.sleep(0.2)
    alive = subprocess.run(["ps", "-o", "pid=,stat=", "--sid", str(group)], text=True,
                           stdout=subprocess.PIPE, check=False).stdout
    assert all(line.split()[1].startswith("Z") for line in alive.splitlines()), alive
    assert set(os.listdir("/dev/shm")) == shared and set(os.listdir(workdir)) == private


def test_a_guest_ends_with_its_harness(initramfs: pathlib.Path, workdir: pathlib.Path) -> None:
    program = ("import os, pathlib, sys; from vmm import UmlGuest\n"
               "guest = UmlGuest(*map(pathlib.Path, sys.argv[1:])); guest.start()\n"
               "print(guest.pid, flush=True); os.kill(os.getpid(), 9)\n")
    result = subprocess.run([sys.executable, "-c", program, str(initramfs), str(workdir)],
                            cwd=pathlib.Path(__file__).parent, stdout=subprocess.PIPE, timeout=60,
                            check=False)
    pid, deadline = int(result.stdout), time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < deadline, f"guest {pid} outlived its harness"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
