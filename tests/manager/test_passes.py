# SPDX-License-Identifier: MIT
"""A pass of the balance moves many virtual machines; a guest in need comes in between."""

from __future__ import annotations

import array
import fcntl
import os
import pathlib
import re
import termios
import time
from typing import Any

from daemon import Daemon
from monitors import MIB, Monitors, wait_for

COUNT = 80
SIZE = 64 * MIB
MOVES = 16 // 2 + 1  # of a portion by fleet.c, a command and an event each; and one to spare
PIPE_LEAST, PIPE_USUAL = 4096, 65536  # bytes


class Piped(Daemon):
    """One whose log goes into a pipe. It says a sentence of each move, and so stands still in the
    middle of many while nobody reads them."""

    def start(self) -> None:
        os.mkfifo(self.log)
        self._end = os.open(self.log, os.O_RDONLY | os.O_NONBLOCK)
        self._text = b""
        super().start()

    def stderr(self) -> str:
        try:
            while data := os.read(self._end, PIPE_USUAL):
                self._text += data
        except BlockingIOError:
            pass
        return self._text.decode(errors="replace")

    def lines(self) -> list[str]:
        """All whole lines so far."""
        return self.stderr().split("\n")[:-1]

    def unread(self) -> int:
        """Bytes that wait in the pipe."""
        found = array.array("i", [0])
        fcntl.ioctl(self._end, termios.FIONREAD, found)
        return found[0]

    def pipe_holds(self, size: int) -> None:
        fcntl.fcntl(self._end, fcntl.F_SETPIPE_SZ, size)

    def close(self) -> None:
        super().close()
        os.close(self._end)


def stands_still(manager: Piped) -> bool:
    """It has filled the pipe, and says no more."""
    before = manager.unread()
    time.sleep(0.3)
    return PIPE_LEAST - 512 < before == manager.unread()


def told(manager: Piped, begin: int) -> list[tuple[str, str]]:
    """Who was moved or in need, in order, by the lines of the log from that on."""
    return re.findall(r"^aerostatd: (\w+): (lowered|raised|released|memory pressure)\b",
                      "\n".join(manager.lines()[begin:]), re.MULTILINE)


def test_an_emergency_overtakes_a_pass(workdir: pathlib.Path, monitors: Monitors) -> None:
    first = monitors.aerostat("first", SIZE)
    settings: dict[str, Any] = {"monitors": monitors.directory}
    with Piped(workdir, budget=(COUNT + 2) * SIZE, manager=settings) as manager:
        # In the order in which a pass comes to them.
        manager.serving(1)
        monitors.many(COUNT, "aerostat", SIZE)
        manager.serving(1 + COUNT)
        last = monitors.aerostat("last", SIZE)
        manager.serving(1 + COUNT + 1)
        begin = len(manager.lines())
        manager.pipe_holds(PIPE_LEAST)
        manager.write_config((COUNT + 2) * SIZE * 3 // 4)
        manager.reload()
        wait_for("the middle of a pass", lambda: stands_still(manager))
        first.press()
        last.press()
        wait_for("all to be moved", lambda: len(told(manager, begin)) >= 1 + COUNT + 3)
        manager.pipe_holds(PIPE_USUAL)
        shortest = min(len(line) for line in manager.lines() if ": lowered " in line)
        found = told(manager, begin)
    # One pass, in which all have their turn once; but nothing is taken from who is in need by then.
    lowered = [name for name, how in found[:1 + COUNT + 3] if how == "lowered"]
    assert len(lowered) == len(set(lowered)) == 1 + COUNT
    assert ("last", "lowered") not in found
    # What was told when it stood still, and a portion.
    most = PIPE_LEAST // shortest + MOVES
    assert most < COUNT // 2
    assert found.index(("first", "released")) <= most
    assert found.index(("last", "memory pressure")) <= most + 2
    assert max(first.targets()) == first.targets()[-1] == SIZE
