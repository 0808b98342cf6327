# SPDX-License-Identifier: MIT
"""What runs in a guest while the test goes on: programs/hog.c, programs/owner.c, shell scripts."""

from __future__ import annotations

import itertools
import time

from vmm import Guest, GuestError

_numbers = itertools.count()


class Program:
    """A command in the background of a guest, and what it has printed so far."""

    def __init__(self, guest: Guest, command: str) -> None:
        self._guest = guest
        self._command = command
        self._file = f"/run/program-{next(_numbers)}"
        guest.check(f"({command} >{self._file} 2>&1 & pid=$!; echo $pid >{self._file}.pid; "
                    f"wait $pid; echo $? >{self._file}.status) >/dev/null 2>&1 </dev/null &\n"
                    f"while [ ! -s {self._file}.pid ]; do usleep 1000; done")

    def output(self) -> str:
        return self._guest.check(f"cat {self._file}")

    def values(self) -> dict[str, int]:
        """The lines NAME=VALUE that there are."""
        split = (line.partition("=") for line in self.output().splitlines())
        return {name: int(value) for name, equals, value in split if equals and value.isdigit()}

    def status(self) -> int | None:
        """The exit status, 128 + N for signal N; None while it runs."""
        text = self._guest.check(f"cat {self._file}.status 2>/dev/null || true").strip()
        return int(text) if text else None

    def wait_for(self, word: str, timeout: float = 30.0) -> str:
        """Until it has printed that; the output. GuestError when it ends without."""
        deadline = time.monotonic() + timeout
        while word not in (output := self.output()):
            if self.status() is not None and word not in self.output():
                raise GuestError(f"{self._command} ended with {self.status()}: {output}")
            if time.monotonic() > deadline:
                raise GuestError(f"{self._command} says no '{word}': {output}")
            time.sleep(0.02)
        return output

    def wait(self, timeout: float = 30.0) -> int:
        """Until it ends by itself; its exit status."""
        deadline = time.monotonic() + timeout
        while (status := self.status()) is None:
            if time.monotonic() > deadline:
                raise GuestError(f"{self._command} does not end: {self.output()}")
            time.sleep(0.02)
        return status

    def end(self, timeout: float = 30.0) -> dict[str, int]:
        """Tell it to end, which it must do with 0; the last values."""
        self._guest.run(f"kill $(cat {self._file}.pid)")
        status = self.wait(timeout)
        if status != 0:
            raise GuestError(f"{self._command} ended with {status}: {self.output()}")
        return self.values()


def stuck_tasks(guest: Guest) -> list[str]:
    """Tasks that wait without being wakeable (state D), by name."""
    # The name stands in parentheses and may hold blanks, the state follows.
    lines = guest.check("cat /proc/[0-9]*/stat 2>/dev/null").splitlines()
    return [name.partition("(")[2] for name, _, rest in
            (line.rpartition(")") for line in lines) if rest.split()[:1] == ["D"]]


def is_loaded(guest: Guest) -> bool:
    return "virtio_balloon " in guest.check("cat /proc/modules")
