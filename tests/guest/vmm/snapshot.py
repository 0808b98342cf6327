# SPDX-License-Identifier: MIT
"""Snapshots of booted guests under QEMU, for guests that are alike but for their devices.

A guest that goes on from one has a memory of its own, a copy, and nothing in common with others but
what happened up to where its agent asks for its channel: the kernel has booted, with no device of
virtio in the machine and no driver for a balloon loaded. So the devices of each guest are found and
set up by its own kernel, as on any machine that gets new ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import tempfile
import threading
import time

from .channel import WAITING, Channel
from .guest import BOOT_TIMEOUT, GuestError
from .qemu import PORT, Kernel, QemuGuest, Snapshot
from .vmlinux import UnknownKernel, unpack_kernel


class _Sitter(QemuGuest):
    """Boots, and is saved."""

    def save(self, state: pathlib.Path) -> Snapshot:
        """Write the machine's state to a file. The machine is of no more use after that."""
        self.stop_machine()
        self.monitor.execute("migrate", uri=f"file:{state}")
        deadline = time.monotonic() + BOOT_TIMEOUT
        while (status := self.monitor.execute("query-migrate")["status"]) != "completed":
            if status == "failed" or time.monotonic() > deadline:
                raise GuestError(f"no snapshot was made: {status}\n{self._last_words()}")
            time.sleep(0.01)
        return Snapshot(os.open(self.memory_file(), os.O_RDWR), state)

    def _command(self, home: pathlib.Path, channel: int) -> list[str]:
        memory = os.memfd_create("memory-backend-memfd")
        os.ftruncate(memory, self.memory)
        self._inherited.append(memory)
        return [*self._machine(home), *self._memory_that_stays(memory), *self._second_line(),
                *PORT, *self._kernel_to_boot("AGENT_WAIT=/dev/ttyS1"),
                # Nobody talks over it; but an end that nobody holds would end the conversation.
                "-chardev", f"socket,id=agent,fd={channel}"]

    def _ready(self, timeout: float) -> None:
        assert self._starter is not None
        Channel(self._starter).wait_ready(timeout, WAITING)


class Snapshots:
    """Those of one kernel and initramfs: one for each size and each set of options.

    They are there until the process ends, or close()."""

    def __init__(self, kernel: Kernel, initramfs: pathlib.Path, folder: pathlib.Path) -> None:
        """`folder` is there already, and for the files of snapshots only."""
        self._kernel = kernel
        self._initramfs = initramfs
        self._folder = folder
        self._taken: dict[tuple[int, tuple[str, ...]], Snapshot] = {}
        self._lock = threading.Lock()  # some tests run together

    def get(self, memory: int, kernel_options: tuple[str, ...] = ()) -> Snapshot:
        """The one for guests with that memory, in bytes, and these options."""
        with self._lock:
            key = memory, kernel_options
            if key not in self._taken:
                self._taken[key] = self._take(memory, kernel_options)
            return self._taken[key]

    def _take(self, memory: int, kernel_options: tuple[str, ...]) -> Snapshot:
        if not self._taken:
            # Only faster: a kernel that cannot be unpacked here unpacks itself.
            with contextlib.suppress(UnknownKernel):
                image = unpack_kernel(self._kernel.vmlinuz, self._folder / "vmlinux")
                self._kernel = dataclasses.replace(self._kernel, vmlinuz=image)
        with tempfile.TemporaryDirectory(prefix="sitter-", dir=self._folder) as home:
            sitter = _Sitter(self._kernel, self._initramfs, pathlib.Path(home), memory,
                             kernel_options=kernel_options)
            try:
                sitter.start()
                return sitter.save(self._folder / str(len(self._taken)))
            finally:
                sitter.kill()

    def close(self) -> None:
        for snapshot in self._taken.values():
            os.close(snapshot.memory)
            snapshot.state.unlink()
        self._taken.clear()
