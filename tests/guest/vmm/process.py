# SPDX-License-Identifier: MIT
"""What guests have in common that are processes of the host and have our agent in them."""

from __future__ import annotations

import abc
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from .channel import Channel
from .guest import BOOT_TIMEOUT, COMMAND_TIMEOUT, MIB, Guest, GuestError, Result


class ProcessGuest(Guest):
    """One process group. Who derives from this says which command that is."""

    def __init__(self, initramfs: pathlib.Path, workdir: pathlib.Path, memory: int = 256 * MIB,
                 balloon: pathlib.Path | None = None, disk: pathlib.Path | None = None,
                 kernel_options: tuple[str, ...] = ()) -> None:
        """`balloon` is the socket of the device, `disk` a file that the guest sees read-only,
        kernel_options go on the kernel's command line. Private files go below `workdir` while the
        guest runs. Memory in bytes."""
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

    @abc.abstractmethod
    def _command(self, home: pathlib.Path, channel: int) -> list[str]:
        """What to run in `home`, the guest's own directory: the agent talks over the file
        descriptor `channel`, the kernel prints to the file `console` or to standard output."""

    def _files(self) -> list[int]:
        """File descriptors for the process, besides the channel."""
        return []

    def _ready(self, timeout: float) -> None:
        """Wait for the agent's first word."""
        assert self._channel is not None
        self._channel.wait_ready(timeout)

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self._home)}

    def start(self) -> None:
        if self._process is not None:
            raise GuestError("a guest starts only once")
        self._home = pathlib.Path(tempfile.mkdtemp(prefix="guest-", dir=self._workdir))
        ours, theirs = socket.socketpair()
        with theirs, open(self._home / "console", "ab") as console:
            self._channel = Channel(ours)
            self._process = subprocess.Popen(
                self._command(self._home, theirs.fileno()), stdin=subprocess.DEVNULL,
                stdout=console, stderr=subprocess.STDOUT, cwd=self._home,
                pass_fds=[theirs.fileno(), *self._files()], start_new_session=True,
                env=self._environment())
        try:
            self._ready(BOOT_TIMEOUT)
        except GuestError as error:
            raise GuestError(f"{error}\n{self._last_words()}") from error

    def run(self, script: str, timeout: float = COMMAND_TIMEOUT) -> Result:
        if self._channel is None:
            raise GuestError("the guest is not running")
        try:
            return self._channel.run(script, timeout)
        except GuestError as error:
            raise GuestError(f"{error}\n{self._last_words()}") from error

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        # It takes effect a little later; and what runs in a guest of user-mode-linux is a process
        # of its own, which goes on until it needs its kernel. One that never does is let go on.
        deadline = time.monotonic() + 1
        while "R" in self._states() and time.monotonic() < deadline:
            time.sleep(0.001)

    def _states(self) -> set[str]:
        """What all threads of its process group do, as letters of proc(5)."""
        states = set()
        for path in pathlib.Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
            try:
                fields = path.read_text(errors="replace").rpartition(")")[2].split()
            except OSError:  # it is gone
                continue
            if int(fields[2]) == self.pid:
                states.add(fields[0])
        return states

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

    def _open_file(self, prefix: str) -> pathlib.Path:
        """The one nameless file that the process has open whose name began with `prefix`."""
        for path in pathlib.Path(f"/proc/{self.pid}/fd").iterdir():
            target = os.readlink(path)
            if target.startswith(prefix) and target.endswith(" (deleted)"):
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
        if self._process is None or not self.running():
            raise GuestError("the guest is not running")
        return self._process.pid

    def _last_words(self) -> str:
        return "the console's last lines:\n" + "\n".join(self.console().splitlines()[-100:])
