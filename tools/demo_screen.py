# SPDX-License-Identifier: MIT
"""What the parts of the demo share: its screen, and how it fails."""

from __future__ import annotations

import os
import shutil
import sys

WIDTH = 75  # of a row


class Failed(Exception):
    """Something did not do what the demo shows."""


class Screen:
    """The output: colours and redrawing on a terminal, plain lines anywhere else."""

    def __init__(self) -> None:
        self.terminal = (sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and
                         self.columns() > WIDTH)  # a row that wraps cannot be redrawn
        self._colour = self.terminal and not os.environ.get("NO_COLOR")
        unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        self._full, self._empty = ("█", "░") if unicode else ("#", ".")

    def paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    def bar(self, value: int, of: int, room: int) -> str:
        """A bar in the room that is left behind a row; none when that is too little."""
        width = min(20, room)
        if width < 8:
            return ""
        full = min(width, round(width * value / of))
        return self.paint(self._full * full, "36") + self._empty * (width - full)

    def line(self, text: str = "") -> None:
        """A line that stays, in the place of one that was live."""
        print(("\r\x1b[K" if self.terminal else "") + text, flush=True)

    def fact(self, label: str, text: str, code: str = "0") -> None:
        self.line(f"  {label:30}" + self.paint(text, code))

    def live(self, text: str) -> None:
        if self.terminal:
            print(f"\r\x1b[K{text}", end="", flush=True)

    @staticmethod
    def columns() -> int:
        return shutil.get_terminal_size((100, 24)).columns


def require(holds: bool, text: str) -> None:
    if not holds:
        raise Failed(text)
