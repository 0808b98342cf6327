# SPDX-License-Identifier: MIT
"""The page numbers that a real, fragmented guest gives to its balloon, as they come.

A guest with Linux 7.2, its stock driver, QEMU's own balloon and 1 GiB of memory first gets its
memory used, as a machine's is that has been up for a while (USE, below): files of mixed sizes are
written by two programs at once while a disk is read, so that pages of both come to lie among each
other, then every second file is removed; the holes are filled in part by other files, of which
every second one is removed again. Then the balloon takes what is left to take. QEMU says which
pages it was given by two of its trace events: virtqueue_pop is where a buffer begins,
virtio_balloon_handle_output is one page.

The recording is a text file: a line with what it is of, then a line of page numbers for each
buffer. It is made again when it is missing, or of another kernel, or by another recipe.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import pathlib
import re
from collections.abc import Sequence

from vmm import QemuGuest
from vmm.guest import MIB, PAGE, GuestError
from vmm.platform import build_platform
from vmm.qemu import find_kernel

MEMORY = 1024 * MIB
BALLOON = 400 * MIB
_KERNEL = "7.2"
_DISK = 256 * MIB

#: Run in the guest; SEED and SHARE of the files' memory in MiB are put before. Sizes are 4 KiB to
#: 1 MiB, every power of two as likely as any other. busybox's awk has no fork to pay for a file.
_WRITE = r"""
awk -v seed=$SEED -v share=$SHARE -v prefix=$PREFIX 'BEGIN {
    srand(seed)
    page = sprintf("%4095s\n", "x")
    block = page page page page
    block = block block block block
    split("1 2 4 8 16 32 64 128 256", size)
    for (left = share * 256; left > 0; left -= pages) {
        name = sprintf("/data/%s-%06d", prefix, n++)
        pages = size[1 + int(rand() * 9)]
        for (i = pages; i >= 16; i -= 16)
            printf "%s", block >name
        for (; i > 0; i--)
            printf "%s", page >name
        close(name)
    }
}'
"""

_THIN_OUT = "ls /data/$PREFIX-* | awk 'NR % 2' | xargs rm"

USE = f"""
write() {{ {_WRITE} }}
thin_out() {{ {_THIN_OUT}; }}
(SEED=1 SHARE=330 PREFIX=a; write) & a=$!
(SEED=2 SHARE=330 PREFIX=b; write) & b=$!
cat /dev/vda >/dev/null
wait $a $b || exit 1
PREFIX=a; thin_out
PREFIX=b; thin_out
(SEED=3 SHARE=75 PREFIX=c; write) & a=$!
(SEED=4 SHARE=75 PREFIX=d; write) & b=$!
dd if=/dev/vda of=/dev/null bs=64k count=1024 skip=1024
wait $a $b || exit 1
PREFIX=c; thin_out
PREFIX=d; thin_out
"""

#: A page number for each page, a list of them for each buffer.
Buffers = list[list[int]]


class _TracedGuest(QemuGuest):
    """Writes what its balloon is given to a file."""

    trace: pathlib.Path

    def _command(self, home: pathlib.Path, channel: int) -> list[str]:
        return [*super()._command(home, channel), "-D", str(self.trace),
                "-trace", "virtqueue_pop", "-trace", "virtio_balloon_handle_output"]


def parse(trace: pathlib.Path) -> Buffers:
    """The buffers in QEMU's log, where other devices pop theirs too."""
    buffers: Buffers = [[]]
    page = re.compile(r"virtio_balloon_handle_output .* gpa: (0x[0-9a-f]+)")
    with trace.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            found = page.search(line)
            if found:
                buffers[-1].append(int(found[1], 16) // PAGE)
            elif buffers[-1] and "virtqueue_pop " in line:
                buffers.append([])
    return [pages for pages in buffers if pages]


def record(workdir: pathlib.Path) -> Buffers:
    """Boot such a guest, use it, inflate its balloon; all that it was given."""
    platform = build_platform("stock", "qemu", _KERNEL, workdir / "initramfs-record")
    kernel = find_kernel(_KERNEL)
    disk, trace = workdir / "record-disk", workdir / "record-trace"
    with disk.open("wb") as file:
        file.truncate(_DISK)
    guest = _TracedGuest(kernel, platform.initramfs, workdir, MEMORY - kernel.takes, disk=disk,
                         own_balloon="")
    guest.trace = trace
    try:
        with guest:
            guest.check(USE, timeout=600)
            guest.load_balloon()
            _inflate(guest)
        buffers = parse(trace)
    finally:
        trace.unlink(missing_ok=True)
        disk.unlink()
    pages = list(itertools.chain.from_iterable(buffers))
    if len(pages) != BALLOON // PAGE or len(set(pages)) != len(pages):
        raise GuestError(f"the balloon has {len(pages)} pages, {len(set(pages))} different ones")
    return buffers


def _inflate(guest: QemuGuest) -> None:
    """Until the balloon is as large as it is to be; the driver says so only at the end."""
    guest.monitor.execute("balloon", value=guest.memory - BALLOON)
    guest.check(f"i=0; while [ $(awk '/balloon_inflate/ {{ print $2 }}' /proc/vmstat) -lt "
                f"{BALLOON // PAGE} ]; do i=$((i + 1)); [ $i -lt 600 ] || exit 1; usleep 100000; "
                "done", timeout=120)


def recorded(workdir: pathlib.Path, place: pathlib.Path) -> Buffers:
    """The recording in the file `place`, which is made if need be."""
    recipe = f"{USE}{MEMORY}{BALLOON}{_DISK}".encode()
    about = {"kernel": find_kernel(_KERNEL).release,
             "recipe": hashlib.sha256(recipe).hexdigest()}
    try:
        with place.open(encoding="ascii") as lines:
            if json.loads(next(lines)) == about:
                return [[int(word) for word in line.split()] for line in lines]
    except (OSError, ValueError, StopIteration):
        pass
    buffers = record(workdir)
    place.parent.mkdir(parents=True, exist_ok=True)
    text = [json.dumps(about), *(" ".join(map(str, pages)) for pages in buffers)]
    unfinished = place.with_suffix(".new")
    unfinished.write_text("\n".join(text) + "\n", encoding="ascii")
    unfinished.replace(place)
    return buffers


def runs(pages: Sequence[int]) -> int:
    """How many runs of neighbours there are in a buffer, in whatever order it has them."""
    ordered = sorted(pages)
    return sum(1 for a, b in zip([-2, *ordered], ordered) if b != a + 1)
