# SPDX-License-Identifier: MIT
"""Calls that fail on demand: what the preloaded library (faults.c) is told, as faults.h has it."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Optional

from process import BINARY

# The program stands in src/vhost-user-balloon of the build.
LIBRARY = Path(BINARY).resolve().parents[2] / "tests" / "fault" / "faults.so"

FUNCTIONS = ["malloc", "mmap", "fallocate", "accept4", "write", "openat", "fsync", "renameat",
             "fork", "posix_spawn", "socketpair", "memfd_create", "ftruncate", "fcntl", "dup3",
             "epoll_ctl", "sendmsg", "recvmsg", "send", "poll"]

KNOWN_LEAKS = Path(__file__).with_name("leaks.supp")

PARENT, WORKER, HELPER = 1, 2, 4

LAYOUT = struct.Struct("=IIiIIIq")  # struct faults
COUNTDOWN, HITS, WALL_OFFSET = 16, 20, 24


class Faults:
    """One failure at a time, for a device that is started with `environment`."""

    def __init__(self) -> None:
        assert LIBRARY.exists(), f"{LIBRARY}: build it (ninja -C BUILD)"
        self.fd, self.path = tempfile.mkstemp(prefix="balloon-faults-")
        os.ftruncate(self.fd, LAYOUT.size)
        self.map = mmap.mmap(self.fd, LAYOUT.size)
        asan, lsan = (os.environ.get(f"{name}_OPTIONS", "") for name in ("ASAN", "LSAN"))
        self.environment = {
            "AEROSTAT_FAULTS": self.path,
            "LD_PRELOAD": str(LIBRARY),
            # It hands on to the sanitizer's, which therefore is not the first.
            "ASAN_OPTIONS": f"{asan}:verify_asan_link_order=0".lstrip(":"),
            "LSAN_OPTIONS": f"{lsan}:suppressions={KNOWN_LEAKS}:print_suppressions=0".lstrip(":"),
        }

    def arm(self, sides: int, function: str, error: str, nth: int = 1,
            lasting: bool = False) -> None:
        """The n-th call from now fails; `lasting`: and all after it. "STOP" instead of an error
        stops the process there."""
        self.disarm()
        number = 0 if error == "STOP" else getattr(errno, error)
        struct.pack_into("=IIiII", self.map, 0, FUNCTIONS.index(function), sides, number, lasting,
                         0)
        struct.pack_into("=I", self.map, HITS, 0)
        struct.pack_into("=I", self.map, COUNTDOWN, nth)

    def disarm(self) -> None:
        struct.pack_into("=I", self.map, COUNTDOWN, 0)

    def hits(self) -> int:
        """Calls that have failed since it was armed."""
        return int(struct.unpack_from("=I", self.map, HITS)[0])

    def calls(self, before: int) -> int:
        """How many of `before` calls that arm() was to wait for have been made."""
        return before - int(struct.unpack_from("=I", self.map, COUNTDOWN)[0])

    def move_wall_clock(self, seconds: int) -> None:
        struct.pack_into("=q", self.map, WALL_OFFSET, seconds)

    def __enter__(self) -> "Faults":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        self.map.close()
        os.close(self.fd)
        os.unlink(self.path)
