# SPDX-License-Identifier: MIT
"""Guests under user-mode-linux: a stock Linux kernel that runs as a process of the host."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from .channel import Channel
from .guest import BOOT_TIMEOUT, COMMAND_TIMEOUT, MIB, Guest, GuestError, MissingPackage, Result

MODULES = pathlib.Path("/usr/lib/uml/modules")

_BALLOON_ID = 5  # the virtio device id, which user-mode-linux wants beside the socket's path
_FP_FALLBACK = pathlib.Path(__file__).resolve().parent / "fxsave_only.py"
_NO_AVX = "GLIBC_TUNABLES=glibc.cpu.hwcaps=" + ",".join(
    f"-{name}" for name in ("AVX", "AVX2", "AVX512F", "AVX512VL", "AVX512BW",
                            "AVX_Fast_Unaligned_Load"))


def _kernel() -> str:
    path = shutil.which("linux.uml")
    if path is None:
        raise MissingPackage("'linux.uml' was not found: apt-get install user-mode-linux")
    return path


def _large_fp_state() -> bool:
    """Whether the processor has more register state than this kernel expects (fxsave_only.py)."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        return any(line.startswith("flags") and "amx_tile" in line.split() for line in file)


class UmlGuest(Guest):
    """One user-mode-linux process group."""

    def __init__(self, initramfs: pathlib.Path, workdir: pathlib.Path, memory: int = 256 * MIB,
                 balloon: pathlib.Path | None = None, disk: pathlib.Path | None = None,
                 kernel_options: tuple[str, ...] = ()) -> None:
        """`balloon` is the socket of the device, `disk` a file that the guest sees read-only as
        /dev/ubda, kernel_options go on the kernel's command line. Private files go below `workdir`
        while the guest runs. Memory in bytes."""
        self.memory = memory
        self._initramfs = initramfs
        self._workdir = workdir
        self._balloon = balloon
        self._disk = disk
        self._kernel_options = kernel_options
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._home: pathlib.Path | None = None
        self._console = ""

    def start(self) -> None:
        if self._process is not None:
            raise GuestError("a guest starts only once")
        kernel = _kernel()
        self._home = pathlib.Path(tempfile.mkdtemp(prefix="guest-", dir=self._workdir))
        ours, theirs = socket.socketpair()
        with theirs, open(self._home / "console", "wb") as console:
            # setarch -R: with address randomisation the guest's memory base and size would vary.
            command = ["setarch", "-R"]
            command += [sys.executable, "-I", str(_FP_FALLBACK)] if _large_fp_state() else []
            command += [kernel, *self._arguments(theirs.fileno())]
            self._channel = Channel(ours)
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
                cwd=self._home, pass_fds=[theirs.fileno()], start_new_session=True,
                # HOME: for ~/.uml; TMPDIR: guest memory is an unnamed file on this file system.
                env={"PATH": os.environ["PATH"], "HOME": str(self._home), "TMPDIR": "/dev/shm"})
        try:
            self._channel.wait_ready(BOOT_TIMEOUT)
        except GuestError as error:
            raise GuestError(f"{error}\n{self._last_words()}") from error

    def _arguments(self, channel: int) -> list[str]:
        arguments = [f"mem={self.memory // MIB}M", f"initrd={self._initramfs}", "quiet",
                     "con=null", "con0=null,fd:1", f"con1=fd:{channel}", "AGENT_CHANNEL=/dev/tty1",
                     # While it boots, this kernel starts a helper for each device it finds. On a
                     # busy host hundreds of them pile up, past what a small guest may have, and
                     # init could not fork.
                     "sysctl.kernel.threads-max=4096", *self._kernel_options]
        if _large_fp_state():
            arguments.append(_NO_AVX)
        if self._disk is not None:
            arguments.append(f"ubd0r={self._disk}")
        if self._balloon is not None:
            arguments.append(f"virtio_uml.device={self._balloon}:{_BALLOON_ID}")
        return arguments

    def run(self, script: str, timeout: float = COMMAND_TIMEOUT) -> Result:
        if self._channel is None:
            raise GuestError("the guest is not running")
        try:
            return self._channel.run(script, timeout)
        except GuestError as error:
            raise GuestError(f"{error}\n{self._last_words()}") from error

    # Only the kernel's own process is stopped and continued: it traces the others, and would take
    # a stop of theirs for a failure.
    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait(30)
        self._clean_up()

    def stop(self) -> None:
        try:
            if self._process is not None and self._channel is not None:
                self._channel.close()  # the agent powers the guest off
                self._process.wait(15)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()

    def _clean_up(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._home is not None:
            self._console = self.console()
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def resident(self) -> int:
        return self.memory_file().stat().st_blocks * 512

    def memory_file(self) -> pathlib.Path:
        """The guest's memory: the one unlinked file that the kernel's process has in /dev/shm."""
        for path in pathlib.Path(f"/proc/{self.pid}/fd").iterdir():
            target = os.readlink(path)
            if target.startswith("/dev/shm/") and target.endswith(" (deleted)"):
                return path
        raise GuestError("the guest's memory was not found")

    def cpu_seconds(self) -> float:
        # Fields 14 to 17 of proc(5) stat: user and system time, its own and its reaped children's.
        with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")

    def console(self) -> str:
        if self._home is not None:
            self._console = (self._home / "console").read_text(errors="replace")
        return self._console

    @property
    def pid(self) -> int:
        """The kernel's process on the host."""
        if self._process is None or not self.running():
            raise GuestError("the guest is not running")
        return self._process.pid

    def _last_words(self) -> str:
        return "the console's last lines:\n" + "\n".join(self.console().splitlines()[-40:])
