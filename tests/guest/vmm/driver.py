# SPDX-License-Identifier: MIT
"""A guest made of the portable driver: for statistics pushed on a timer and for messages about
pressure, which no stock driver sends."""

from __future__ import annotations

import os
import pathlib
import select
import signal
import subprocess
import types

from .guest import GuestError


def program_of(build: pathlib.Path) -> pathlib.Path:
    """The guest that a build has."""
    return build / "tests" / "guest" / "driver" / "driver-guest"


def program(balloon: pathlib.Path) -> pathlib.Path:
    """The guest that was built with a vhost-user-balloon."""
    return program_of(balloon.resolve().parents[2])


class DriverGuest:
    """Use it as a context manager: it is connected on entry, and gone on exit."""

    def __init__(self, balloon: pathlib.Path, socket: pathlib.Path, mib: int,
                 poison: int | None = None) -> None:
        """Free pages are full of `poison`, 32 bits wide, if there is one."""
        self._command = [str(program(balloon)), str(socket), str(mib),
                         *([] if poison is None else [hex(poison)])]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True, bufsize=1)
        self.run("state")

    def run(self, command: str, timeout: float = 30.0) -> dict[str, str]:
        """A command, and what its answer says; GuestError if that is an error."""
        self.send(command)
        return self.answer(timeout)

    def send(self, command: str) -> None:
        process = self._running()
        assert process.stdin
        process.stdin.write(command + "\n")
        process.stdin.flush()

    def answer(self, timeout: float = 30.0) -> dict[str, str]:
        process = self._running()
        assert process.stdout
        if not select.select([process.stdout], [], [], timeout)[0]:
            raise GuestError("the guest does not answer")
        status, _, rest = process.stdout.readline().strip().partition(" ")
        if status != "ok":
            raise GuestError(f"{status}: {rest}")
        return dict(word.split("=", 1) for word in rest.split())

    def state(self) -> dict[str, float]:
        """MiB and counts by name."""
        return {name: float(int(value, 0) if value.startswith("0x") else float(value))
                for name, value in self.run("state").items()}

    def pause(self) -> None:
        os.kill(self._running().pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._running().pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it; GuestError if that does not go well."""
        if self._process is None:
            return
        try:
            self.send("quit")
            status = self._process.wait(20)
            if status != 0:
                raise GuestError(f"the guest ended with {status}")
        finally:
            self.kill()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise GuestError("the guest is not running")
        return self._process

    def __enter__(self) -> DriverGuest:
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
