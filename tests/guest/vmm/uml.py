# SPDX-License-Identifier: MIT
"""Guests under user-mode-linux: a stock Linux kernel that runs as a process of the host."""

from __future__ import annotations

import pathlib
import shutil
import sys

from .guest import MIB, MissingPackage
from .process import ProcessGuest

MODULES = pathlib.Path("/usr/lib/uml/modules")

_BALLOON_ID = 5  # the virtio device id, which user-mode-linux wants beside the socket's path
_FP_FALLBACK = pathlib.Path(__file__).resolve().parent / "fxsave_only.py"
NO_AVX = "GLIBC_TUNABLES=glibc.cpu.hwcaps=" + ",".join(
    f"-{name}" for name in ("AVX", "AVX2", "AVX512F", "AVX512VL", "AVX512BW",
                            "AVX_Fast_Unaligned_Load"))


def _kernel() -> str:
    path = shutil.which("linux.uml")
    if path is None:
        raise MissingPackage("'linux.uml' was not found: apt-get install user-mode-linux")
    return path


def large_fp_state() -> bool:
    """Whether the processor has more register state than this kernel expects (fxsave_only.py)."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        return any(line.startswith("flags") and "amx_tile" in line.split() for line in file)


class UmlGuest(ProcessGuest):
    """One user-mode-linux process group.

    Only the kernel's own process is paused: it traces the others, and would take a stop of theirs
    for a failure."""

    disk_device = "/dev/ubda"

    def _command(self, home: pathlib.Path, channel: int) -> list[str]:
        # setarch -R: with address randomisation the guest's memory base and size would vary.
        command = ["setarch", "-R"]
        command += [sys.executable, "-I", str(_FP_FALLBACK)] if large_fp_state() else []
        return [*command, _kernel(), *self._arguments(channel)]

    def _environment(self) -> dict[str, str]:
        # HOME: for ~/.uml; TMPDIR: guest memory is an unnamed file on this file system.
        return super()._environment() | {"TMPDIR": "/dev/shm"}

    def _arguments(self, channel: int) -> list[str]:
        arguments = [f"mem={self.memory // MIB}M", f"initrd={self._initramfs}", "quiet",
                     "con=null", "con0=null,fd:1", f"con1=fd:{channel}", "AGENT_CHANNEL=/dev/tty1",
                     # While it boots, this kernel starts a helper for each device it finds. On a
                     # busy host hundreds of them pile up, past what a small guest may have, and
                     # init could not fork.
                     "sysctl.kernel.threads-max=4096", *self._kernel_options]
        if large_fp_state():
            arguments.append(NO_AVX)
        if self._disk is not None:
            arguments.append(f"ubd0r={self._disk}")
        if self._balloon is not None:
            arguments.append(f"virtio_uml.device={self._balloon}:{_BALLOON_ID}")
        return arguments

    def memory_file(self) -> pathlib.Path:
        return self._open_file("/dev/shm/")
