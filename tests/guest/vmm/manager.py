# SPDX-License-Identifier: MIT
"""An aerostatd process, the directory in which it finds monitors, and its control monitor."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import types
from collections.abc import Callable
from typing import Any

from .guest import MIB
from .qmp import QmpClient

_SANITIZER_MARKS = ("Sanitizer", "runtime error:")


class ManagerError(Exception):
    """The manager failed, or did not get where it should in time."""


class Manager:
    """Use it as a context manager: the process starts on entry, and must end cleanly on exit."""

    def __init__(self, binary: pathlib.Path, workdir: pathlib.Path, *options: str,
                 budget: int = 0, vms: dict[str, dict[str, object]] | None = None) -> None:
        """`budget`: bytes that all VMs may keep together; 0: as the host allows. `vms`: what the
        configuration says of some, as {"web": {"priority": 200}}."""
        self._binary = binary
        self._options = options
        self._budget = budget
        self._vms = vms or {}
        self._process: subprocess.Popen[bytes] | None = None
        # Short names: a Unix socket's path has 107 bytes.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="mgr-", dir=workdir))
        self.monitors = self.directory / "vm"
        self.monitors.mkdir()
        self.control = self.directory / "control"
        self.state = self.directory / "state.json"
        self.config = self.directory / "aerostatd.conf"
        self.log = self.directory / "stderr"

    def write_config(self, budget: int | None = None) -> None:
        """Write the configuration anew; reload() or a start has it read."""
        if budget is not None:
            self._budget = budget
        lines = ["[manager]", f"monitors = {self.monitors}", f"control = {self.control}",
                 f"state = {self.state}", "metrics = 127.0.0.1:0", "[host]"]
        if self._budget:
            lines.append(f"budget = {self._budget}")
        for name, keys in self._vms.items():
            lines += [f"[vm {name}]", *(f"{key} = {value}" for key, value in keys.items())]
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def start(self) -> None:
        self.write_config()
        with open(self.log, "ab") as stderr:
            self._process = subprocess.Popen(
                [str(self._binary), f"--config={self.config}", *self._options],
                stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, start_new_session=True,
                env=os.environ | {"UBSAN_OPTIONS": "print_stacktrace=1"})
        deadline = time.monotonic() + 20
        while True:
            try:
                self.qmp = QmpClient(self.control)
                return
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise ManagerError(f"the manager did not start: {self.stderr()}") from error
            time.sleep(0.01)

    def watch(self, name: str, monitor: pathlib.Path) -> None:
        """Let it find a monitor, under that name unless the monitor has another."""
        (self.monitors / f"{name}.qmp").symlink_to(monitor)

    def forget(self, name: str) -> None:
        (self.monitors / f"{name}.qmp").unlink()

    def vms(self) -> dict[str, dict[str, Any]]:
        """query-vms, by name."""
        return {vm["name"]: vm for vm in self.qmp.execute("query-vms")}

    def wait_for(self, what: str, holds: Callable[[dict[str, dict[str, Any]]], bool],
                 timeout: float = 30.0) -> dict[str, dict[str, Any]]:
        """Poll vms() until `holds` is true of it, and return it; `what` is for the error."""
        deadline = time.monotonic() + timeout
        while not holds(seen := self.vms()):
            if time.monotonic() > deadline:
                raise ManagerError(f"waited {timeout:.0f} s for {what}: {seen}\n{self.stderr()}")
            time.sleep(0.02)
        return seen

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        return list(self.qmp.execute("query-events", after=after)["events"])

    def reload(self) -> None:
        self.qmp.execute("reload")

    def promised(self) -> float:
        """MiB that all VMs may keep, as the manager counts."""
        return self.qmp.execute("query-host")["promised"] / MIB

    @property
    def pid(self) -> int:
        return self._running().pid

    def stderr(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        """SIGTERM; ManagerError unless the process then ends with 0, tidily and without a report
        of a sanitizer. It can be started again."""
        process = self._running()
        self.qmp.close()
        process.terminate()
        status = process.wait(30)
        self._process = None
        report = self.stderr()
        if status != 0 or any(mark in report for mark in _SANITIZER_MARKS):
            raise ManagerError(f"exit status {status}\n{report}")
        if self.control.exists():
            raise ManagerError("the control socket was left behind")

    def crash(self) -> None:
        """SIGKILL: nothing is saved, nothing is said. It can be started again."""
        process = self._running()
        self.qmp.close()
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        self._process = None

    def close(self) -> None:
        """End the process whatever its state and remove its files."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None
        if hasattr(self, "qmp"):
            self.qmp.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ManagerError("the manager is not running")
        return self._process

    def __enter__(self) -> Manager:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: types.TracebackType | None) -> None:
        try:
            if kind is None and self._process is not None:
                self.stop()
        finally:
            self.close()
