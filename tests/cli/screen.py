# SPDX-License-Identifier: MIT
"""A program on a terminal: a pty, and just enough of a terminal behind it to see what is shown."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from typing import Any, Callable

TIMEOUT = 15.0
SEQUENCE = re.compile(rb"\x1b\[([0-9;?>]*)([@-~])|\x1b[()][A-Z0-9]|\x1b[=>78M]|\x1b\][^\x07]*\x07")
UNFINISHED = re.compile(rb"\x1b(\[[0-9;?>]*|[()]|\][^\x07]*)?$")


class Screen:
    """What the bytes that were written have made of the terminal, as lines of text."""

    def __init__(self, rows: int, columns: int) -> None:
        self.pending = b""
        self.alternate = False  # the screen of full-screen programs is shown
        self.cursor_shown = True
        self.all = b""
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.cells = [[" "] * columns for _ in range(rows)]
        self.y = self.x = 0

    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.cells]

    def text(self) -> str:
        return "\n".join(self.lines())

    def feed(self, data: bytes) -> None:
        self.all += data
        data = self.pending + data
        self.pending = b""
        at = 0
        while at < len(data):
            if data[at] == 0x1b:
                match = SEQUENCE.match(data, at)
                if match:
                    if match.group(2):
                        self.control(match.group(1).decode(), match.group(2).decode())
                    at = match.end()
                    continue
                if UNFINISHED.match(data, at):
                    self.pending = data[at:]
                    return
                at += 1
                continue
            size = 1
            if data[at] >= 0xc0:
                size = 2 if data[at] < 0xe0 else 3 if data[at] < 0xf0 else 4
            if at + size > len(data):
                self.pending = data[at:]
                return
            self.put(data[at:at + size].decode(errors="replace"))
            at += size

    def put(self, char: str) -> None:
        if char == "\r":
            self.x = 0
        elif char == "\n":
            self.down()
        elif char == "\b":
            self.x = max(0, self.x - 1)
        elif char == "\t":
            self.x = min(self.columns - 1, (self.x // 8 + 1) * 8)
        elif char >= " ":
            if self.x >= self.columns:
                self.x = 0
                self.down()
            self.cells[self.y][self.x] = char
            self.x += 1

    def down(self) -> None:
        if self.y + 1 < self.rows:
            self.y += 1
        else:
            self.cells = self.cells[1:] + [[" "] * self.columns]

    def control(self, text: str, final: str) -> None:
        numbers = [int(n) if n else 0 for n in text.strip("?>").split(";")]
        n = max(1, numbers[0])
        row = self.cells[min(self.y, self.rows - 1)]
        x = min(self.x, self.columns - 1)
        if final in "Hf":
            self.y = min(n, self.rows) - 1
            self.x = min(max(1, numbers[1]) if len(numbers) > 1 else 1, self.columns) - 1
        elif final == "A":
            self.y = max(0, self.y - n)
        elif final == "B":
            self.y = min(self.rows - 1, self.y + n)
        elif final == "C":
            self.x = min(self.columns - 1, self.x + n)
        elif final == "D":
            self.x = max(0, self.x - n)
        elif final == "G":
            self.x = min(n, self.columns) - 1
        elif final == "d":
            self.y = min(n, self.rows) - 1
        elif final == "K":
            spans = {0: range(x, self.columns), 1: range(x + 1), 2: range(self.columns)}
            for i in spans[numbers[0]]:
                row[i] = " "
        elif final == "J":
            first = self.y + 1 if numbers[0] == 0 else 0
            if numbers[0] == 0:
                row[x:] = [" "] * (self.columns - x)
            for i in range(first, self.rows):
                self.cells[i] = [" "] * self.columns
        elif final == "X":
            row[x:x + n] = [" "] * min(n, self.columns - x)
        elif final == "P":
            row[x:] = row[x + n:] + [" "] * min(n, self.columns - x)
        elif final == "@":
            row[x:] = ([" "] * n + row[x:])[:self.columns - x]
        elif final in "LM":
            rest = self.cells[self.y:]
            blank = [[" "] * self.columns for _ in range(min(n, len(rest)))]
            moved = blank + rest if final == "L" else rest[n:] + blank
            self.cells[self.y:] = moved[:len(rest)]
        elif final == "b":
            for _ in range(n):
                self.put(row[x - 1])
        elif final in "hl" and text == "?1049":
            self.alternate = final == "h"
        elif final in "hl" and text == "?25":
            self.cursor_shown = final == "h"


class Terminal:
    """A program that runs on a terminal of its own."""

    def __init__(self, *command: str, rows: int = 24, columns: int = 80,
                 environment: dict[str, str] | None = None) -> None:
        self.screen = Screen(rows, columns)
        self.master, slave = pty.openpty()
        self.size(rows, columns)
        self.before = termios.tcgetattr(slave)
        self.slave = slave  # kept open, to look at its settings when the program is gone
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", **(environment or {})})

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows: int, columns: int) -> None:
        self.screen.resize(rows, columns)
        self.size(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read(self, timeout: float) -> bool:
        if not select.select([self.master], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.screen.feed(data)
        return bool(data)

    def wait_for(self, is_there: str | Callable[[str], Any]) -> str:
        """Until the text is on the screen, or the condition holds; the screen."""
        end = time.monotonic() + TIMEOUT
        while True:
            text = self.screen.text()
            if is_there in text if isinstance(is_there, str) else is_there(text):
                return text
            assert time.monotonic() < end, f"no {is_there!r} in\n{text}"
            self.read(0.05)

    def wait_for_prompt(self, prompt: str) -> str:
        """Until it is the last thing on the screen, and a line editor reads key by key."""
        while True:
            text = self.wait_for(lambda shown: shown.rstrip().endswith(prompt))
            if not termios.tcgetattr(self.slave)[3] & termios.ICANON:
                return text
            self.read(0.01)

    def end(self) -> int:
        """Waits for the end of the program, and sees to it that the terminal is as it was."""
        end = time.monotonic() + TIMEOUT
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end:\n{self.screen.text()}"
            self.read(0.05)
        while self.read(0.05):
            pass
        assert termios.tcgetattr(self.slave) == self.before, "the terminal's settings were left"
        assert not self.screen.alternate and self.screen.cursor_shown
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)
