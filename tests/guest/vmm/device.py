# SPDX-License-Identifier: MIT
"""A vhost-user-balloon process and the connection to its monitor."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import types
from collections.abc import Callable
from typing import Any, TypeVar

from .hints import Hints, read_hints
from .qmp import QmpClient

_BALLOON = "/machine/peripheral/balloon0"
T = TypeVar("T")

_SANITIZER_MARKS = ("Sanitizer", "runtime error:")


class DeviceError(Exception):
    """The device process failed, or did not get where it should in time."""


class Device:
    """Use it as a context manager: the process starts on entry, and must end cleanly on exit."""

    def __init__(self, binary: pathlib.Path, workdir: pathlib.Path, *options: str) -> None:
        self._binary = binary
        self._options = options
        self._workdir = workdir
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # Short names: a Unix socket's path has 107 bytes.
        self._dir = pathlib.Path(tempfile.mkdtemp(prefix="dev-", dir=self._workdir))
        self.socket, self.monitor = self._dir / "vhost", self._dir / "qmp"
        with open(self.log, "wb") as stderr:
            self._process = subprocess.Popen(
                [str(self._binary), f"--socket-path={self.socket}", f"--qmp={self.monitor}",
                 *self._options], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
                start_new_session=True,
                env=os.environ | {"UBSAN_OPTIONS": "print_stacktrace=1"})
        deadline = time.monotonic() + 20
        while True:
            try:
                # The greeting comes when all is set up, the other socket too.
                self.qmp = QmpClient(self.monitor)
                return
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise DeviceError(f"the device did not start: {self.stderr()}") from error
            time.sleep(0.01)

    def stop(self) -> None:
        """SIGTERM; DeviceError unless the process then ends with 0, tidily and without a report
        of a sanitizer."""
        process = self._running()
        try:
            self.qmp.close()
            process.terminate()
            status = process.wait(20)
            report = self.stderr()
            if status != 0 or any(mark in report for mark in _SANITIZER_MARKS):
                raise DeviceError(f"exit status {status}\n{report}")
            left = [path.name for path in (self.socket, self.monitor) if path.exists()]
            if left:
                raise DeviceError(f"left behind: {left}")
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process whatever its state and remove its files. Harmless when it has ended."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(20)
        self._process = None
        if hasattr(self, "qmp"):
            self.qmp.close()
        shutil.rmtree(self._dir, ignore_errors=True)

    def stderr(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def log(self) -> pathlib.Path:
        """What it says on standard output and standard error."""
        return self._dir / "stderr"

    @property
    def pid(self) -> int:
        return self._running().pid

    def worker(self) -> int:
        """The process that serves the guest; the parent of it has self.pid."""
        deadline = time.monotonic() + 20
        while not (pid := self._find_worker()):
            if time.monotonic() > deadline or self._running().poll() is not None:
                raise DeviceError(f"there is no worker: {self.stderr()}")
            time.sleep(0.001)
        return pid

    def kill_worker(self, number: int = signal.SIGKILL) -> int:
        """Kill the worker, and wait until another is there (which may not be ready yet). The
        process id of the one that was killed."""
        while True:
            pid = self.worker()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                break
        while self.worker() == pid:
            time.sleep(0.001)
        return pid

    def pause(self) -> None:
        """Stop the process that serves guest and monitor: neither gets an answer."""
        os.kill(self.worker(), signal.SIGSTOP)

    def resume(self) -> None:
        """Undo pause()."""
        os.kill(self.worker(), signal.SIGCONT)

    def _find_worker(self) -> int:
        path = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in path.read_text(encoding="ascii").split():
                # Before it has executed the program it is still called as its parent.
                words = pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if len(words) > 1 and words[1].startswith(b"--worker"):
                    return int(child)
        return 0

    def cpu_seconds(self) -> float:
        """Processor time that parent and worker have used so far (proc(5) stat, fields 14 and
        15)."""
        ticks = 0
        for pid in (self.pid, self.worker()):
            text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
            fields = text.rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def query(self) -> dict[str, Any]:
        """query-balloon-device: target, actual, held, resident, freed and the rest, in bytes."""
        return self.qmp.execute("query-balloon-device")

    def memory(self) -> int:
        """Bytes of guest memory that the device knows. User-mode-linux keeps its kernel's image
        out of that, some 11 MiB."""
        while True:
            before = self.query()["actual"]
            left = self.qmp.execute("query-balloon")["actual"]
            if self.query()["actual"] == before:
                return left + before

    def set_balloon(self, size: int) -> None:
        """Ask for `size` bytes in the balloon. QMP wants what the guest shall be left with."""
        self.qmp.execute("balloon", value=self.memory() - size)

    def wait_for(self, what: str, holds: Callable[[dict[str, Any]], bool],
                 timeout: float = 30.0) -> dict[str, Any]:
        """Poll query() until `holds` is true of it, and return it; `what` is for the error."""
        deadline, pause = time.monotonic() + timeout, 0.005
        while True:
            state = self.query()
            if holds(state):
                return state
            if time.monotonic() > deadline:
                raise DeviceError(f"waited {timeout:.0f} s for {what}: {state}\n{self.stderr()}")
            time.sleep(pause)
            pause = min(1.1 * pause, 0.03)  # who waits for long needs no processor for it

    def inflate_to(self, size: int, timeout: float = 30.0) -> dict[str, Any]:
        """Set the balloon's size in bytes and wait until driver and device agree that it has it."""
        self.set_balloon(size)
        return self.wait_for(f"a balloon of {size} bytes",
                             lambda state: state["actual"] == state["held"] == size, timeout)

    def again(self, attempt: Callable[[], T], timeout: float = 120.0) -> T:
        """Do something that asks the monitor; from the beginning, on a new connection, whenever a
        worker's end has taken the connection with it."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                if self.qmp.closed:
                    self.qmp = QmpClient(self.monitor)
                return attempt()
            except ConnectionError:
                self.qmp.close()
                if self._running().poll() is not None or time.monotonic() > deadline:
                    raise

    def hints(self) -> Hints:
        """The file of free page hints, as it is now."""
        return read_hints(self.qmp.execute("query-free-page-hint")["path"])

    def guest_stats(self) -> dict[str, Any]:
        return self.qmp.execute("qom-get", path=_BALLOON, property="guest-stats")

    def set_polling_interval(self, seconds: int) -> None:
        self.qmp.execute("qom-set", path=_BALLOON, property="guest-stats-polling-interval",
                         value=seconds)

    def refresh_stats(self, timeout: float = 20.0) -> dict[str, Any]:
        """Ask the guest for statistics and wait for them: the members of guest-stats."""
        self.qmp.execute("refresh-balloon-stats")
        self.qmp.events.clear()  # what came before the command's answer is older
        return self.qmp.wait_event("BALLOON", timeout)

    def human(self, command: str) -> str:
        return self.qmp.execute("human-monitor-command", command_line=command)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise DeviceError("the device is not running")
        return self._process

    def __enter__(self) -> Device:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: types.TracebackType | None) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()
