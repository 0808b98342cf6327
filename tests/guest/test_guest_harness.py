# SPDX-License-Identifier: MIT
"""The harness itself: a test that trusts it must be able to."""

from __future__ import annotations

import lzma
import os
import pathlib
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from conftest import Bed
from vmm import Guest, GuestData, GuestError, QemuGuest
from vmm.platform import Platform, build_platform
from vmm.qemu import Snapshot, find_kernel
from vmm.vmlinux import UnknownKernel, unpack_kernel

ONCE = pytest.mark.once(reason="it is about the harness")

pytestmark = pytest.mark.driver("stock", reason="no driver is loaded")


@pytest.fixture(scope="module")
def guest(platform: Platform, workdir: pathlib.Path) -> Iterator[Guest]:
    """One for all tests that leave it as it was."""
    with platform.guest(workdir) as guest:
        yield guest


@ONCE
def test_output_and_status_are_exact(guest: Guest) -> None:
    result = guest.run(r"printf 'a\0b\r\n\377'; echo to-stderr >&2; exit 7")
    assert result.output == b"a\0b\r\n\xffto-stderr\n" and result.status == 7
    noise = guest.run("head -c 1000000 /dev/urandom | tee /run/noise; md5sum </run/noise >/run/sum")
    guest.check("cat /run/sum")
    assert len(noise.output) == 1000000
    assert guest.run("cat /run/noise").output == noise.output


@ONCE
def test_kernel_messages_stay_out_of_the_output(guest: Guest) -> None:
    guest.check("echo 8 >/proc/sys/kernel/printk; echo on >/proc/sys/kernel/printk_devkmsg")
    output = guest.check("for i in $(seq 500); do echo line $i; echo 0123456789 >/dev/kmsg; done")
    assert output == "".join(f"line {i}\n" for i in range(1, 501))
    assert guest.console().count("0123456789") == 500


@ONCE
def test_long_scripts(guest: Guest) -> None:
    assert guest.check(f"echo {'x' * 30000}") == "x" * 30000 + "\n"


@ONCE
def test_a_late_answer_is_not_taken_for_the_next(guest: Guest) -> None:
    with pytest.raises(GuestError, match="in time"):
        guest.run("sleep 1; echo late", timeout=0.3)
    assert guest.run("echo next").output == b"next\n"


@ONCE
def test_damaged_data_is_found(guest: Guest) -> None:
    data = GuestData(guest)
    data.write(4 << 20)
    assert data.damaged() == []
    victim = data.checksums().split()[5]
    guest.check(f"dd if=/dev/zero of={victim} bs=4096 seek=100 count=1 conv=notrunc")
    (damage,) = data.damaged()
    assert damage.startswith(f"{victim}: page 100 begins with b'\\x00")
    data.clear()


@ONCE
def test_pause_and_resume(guest: Guest) -> None:
    guest.pause()
    with pytest.raises(GuestError, match="in time"):
        guest.run("true", timeout=0.5)
    guest.resume()
    assert guest.check("echo awake") == "awake\n"


def test_modules_come_behind_those_that_they_need(guest: Guest) -> None:
    guest.check("load zram && load zram")
    # Behind zsmalloc, which some kernels have built in.
    needed = guest.check("sed -n 's/^zram: //p' /lib/modules/stock/order").split()
    assert needed[-1] == "zram" and set(needed) <= set(guest.check("ls /sys/module").split())
    assert guest.check("cat /sys/block/zram0/size") == "0\n"


def test_free_memory_counts_what_meminfo_leaves_out(guest: Guest) -> None:
    before = guest.free_memory()
    data = GuestData(guest)
    data.write(64 << 20)
    used = guest.free_memory()
    data.clear()
    assert 64 << 20 <= before - used < 72 << 20
    assert abs(before - guest.free_memory()) < 4 << 20
    assert guest.meminfo()["MemFree"] <= before


@ONCE
def test_programs_of_the_build_are_in_the_guest(platform: Platform, workdir: pathlib.Path,
                                                tmp_path: pathlib.Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "greet").write_text("#!/bin/sh\necho hello from a program\n")
    (tmp_path / "greet").chmod(0o755)
    (tmp_path / "notes").write_text("not a program\n")
    (tmp_path / "greet.p").mkdir()
    monkeypatch.setenv("AEROSTAT_GUEST_PROGRAMS", str(tmp_path))
    other = build_platform(platform.driver, platform.vmm, platform.kernel, workdir / "other")
    with other.guest(workdir) as guest:
        assert guest.check("greet") == "hello from a program\n"
        assert guest.run("test -e /bin/notes -o -e /bin/greet.p").status == 1


@ONCE
@pytest.mark.parametrize("modules, told", [(None, "AEROSTAT_MODULES does not name"),
                                           ("/nonexistent", "our driver is not there")])
def test_our_driver_is_missed(modules: str | None, told: str) -> None:
    """A run with a driver that nobody has built fails, and says so."""
    environment = {name: value for name, value in os.environ.items() if name != "AEROSTAT_MODULES"}
    if modules is not None:
        environment["AEROSTAT_MODULES"] = modules
    result = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider",
                             "--driver=aerostat", str(pathlib.Path(__file__).parent)],
                            env=environment, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, timeout=60, check=False)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert told in result.stdout and "./run module" in result.stdout
    assert "Traceback" not in result.stdout


on_qemu = pytest.mark.vmm("qemu", reason="others have no snapshots")


@on_qemu
def test_guests_out_of_a_snapshot_have_nothing_in_common(platform: Platform,
                                                         workdir: pathlib.Path) -> None:
    if platform.snapshots is None:
        pytest.skip("every guest boots in this run")
    with platform.guest(workdir) as one, platform.guest(workdir) as other:
        assert one.memory_file().stat().st_ino != other.memory_file().stat().st_ino
        one.check("echo one >/data/name")
        other.check("test ! -e /data/name && echo other >/data/name")
        one.kill()
        assert other.check("cat /data/name") == "other\n"
        with platform.guest(workdir) as third:
            assert third.check("ls /data; uname -r") == other.check("uname -r")


@on_qemu
@ONCE
def test_a_snapshot_that_cannot_be_loaded_is_told_of(bed: Bed, workdir: pathlib.Path) -> None:
    if bed.platform.snapshots is None:
        pytest.skip("every guest boots in this run")
    snapshot = bed.platform.snapshots.get(256 << 20)
    damaged = workdir / "damaged"
    damaged.write_bytes(snapshot.state.read_bytes()[:1000])
    guest = QemuGuest(find_kernel(bed.platform.kernel), bed.platform.initramfs, workdir,
                      snapshot=Snapshot(snapshot.memory, damaged))
    try:
        with pytest.raises(GuestError, match="could not be loaded"):
            guest.start()
    finally:
        guest.kill()
        damaged.unlink()


def bz_image(payload: bytes, size: int) -> bytes:
    """What of a bzImage says where its payload is, and the payload."""
    head = bytearray(3 * 512)
    head[0x1f1], head[0x202:0x206] = 2, b"HdrS"
    head[0x248:0x250] = struct.pack("<II", 7, len(payload) + 4)
    return bytes(head) + bytes(7) + payload + struct.pack("<I", size) + b"behind it"


@ONCE
def test_a_kernel_is_unpacked_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    kernel, packed, target = b"\x7fELF" + os.urandom(50_000), tmp_path / "packed", tmp_path / "elf"
    packed.write_bytes(bz_image(lzma.compress(kernel), len(kernel)))
    assert unpack_kernel(packed, target).read_bytes() == kernel
    target.unlink()
    for image in (bz_image(lzma.compress(kernel), len(kernel) + 1),
                  bz_image(lzma.compress(b"MZ" + kernel), len(kernel) + 2),
                  bz_image(b"\x1f\x8b" + kernel, len(kernel)), b"", kernel,
                  bz_image(lzma.compress(kernel), len(kernel))[:-30]):
        packed.write_bytes(image)
        with pytest.raises(UnknownKernel):
            unpack_kernel(packed, target)
        assert not target.exists()


@ONCE
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


@ONCE
def test_a_guest_ends_with_its_harness(platform: Platform, workdir: pathlib.Path) -> None:
    program = ("import os, sys; from pathlib import Path; from vmm.platform import Platform\n"
               "platform = Platform(*sys.argv[1:4], Path(sys.argv[4]))\n"
               "guest = platform.guest(Path(sys.argv[5])); guest.start()\n"
               "print(guest.pid, flush=True); os.kill(os.getpid(), 9)\n")
    result = subprocess.run([sys.executable, "-c", program, platform.driver, platform.vmm,
                             platform.kernel, str(platform.initramfs), str(workdir)],
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
