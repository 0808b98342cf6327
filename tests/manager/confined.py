# SPDX-License-Identifier: MIT
"""Runs a program with the system calls that a unit file leaves it, as systemd would: for tests.

    confined.py UNIT PROGRAM ARGUMENT...

What is not on the list fails as the unit says (EPERM). systemd-analyze knows the groups of calls,
libseccomp puts the filter in place.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import pathlib
import re
import subprocess
import sys

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
# What systemd needs itself between the filter and the program.
_ALWAYS = {"execve"}


@functools.cache
def _groups() -> dict[str, list[str]]:
    """All groups and their members, which may be groups."""
    text = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager"], check=True,
                          capture_output=True, text=True).stdout
    groups: dict[str, list[str]] = {}
    current = ""
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        word = line.strip()
        if line.startswith("@"):
            current = word
            groups[current] = []
        elif word and not word.startswith("#") and line.startswith("    "):
            groups[current].append(word)
    return groups


def expand(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    return set().union(*(expand(member) for member in _groups()[word]))


def allowed(unit: str) -> set[str]:
    """By the lines SystemCallFilter= of a unit, in their order."""
    calls = set(_ALWAYS) | expand("@default")
    for value in re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE):
        words = set().union(*(expand(word) for word in value.lstrip("~").split()))
        calls = calls - words if value.startswith("~") else calls | words
    return calls | _ALWAYS


def confine(calls: set[str]) -> None:
    """For this process and what it becomes."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_ERRNO | errno.EPERM))
    for name in calls:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            library.seccomp_rule_add(context, _ALLOW, number, 0)
    if library.seccomp_load(context) != 0:
        raise OSError("seccomp_load")


if __name__ == "__main__":
    confine(allowed(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")))
    os.execv(sys.argv[2], sys.argv[2:])
