# SPDX-License-Identifier: MIT
"""Processes below this one: groups that are run, interrupted and ended, and what outlives them.

Whatever a process starts becomes a child of this one when its own parent goes (adopt_orphans()), so
that nothing gets lost, and is taken note of when it ends, so that nobody waits for it in vain.
"""

import ctypes
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

GRACE_S = 15  # for an interrupted group to end its guests and devices
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """From here on descendants whose parent ends become children of this process."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def living_children() -> dict[int, str]:
    """Children of this process that still run, with their command lines; reaps the others."""
    children = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            pid = int(folder.name)
            if parent == os.getpid() and os.waitpid(pid, os.WNOHANG)[0] == 0:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                children[pid] = b" ".join(words).decode(errors="replace").strip()
        except OSError:
            pass  # gone since
    return children


def end_orphans(patience_s: float) -> list[str]:
    """Ends what is still running below this process; returns what did not end by itself."""
    deadline = time.monotonic() + patience_s
    while living_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    left = []
    while children := living_children():  # ending a parent brings up its children
        for pid, command in children.items():
            left.append(f"left running: {command[:200]}")
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return left


def processor_seconds() -> float:
    """What children that have ended, and theirs, have had of all processors."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def signal_group(process: "subprocess.Popen[str]", number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


class Interrupted(Exception):
    """A signal has asked for the end; its argument is the signal's number."""


class Interruption:
    """Remembers signals until it is asked: an exception out of a handler could strike anywhere,
    also inside of subprocess, which would be left with a lock held."""

    number: int | None = None

    @classmethod
    def catch(cls) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, cls.handle)

    @classmethod
    def handle(cls, number: int, frame: object) -> None:
        cls.number = number


def reap_orphans(*ours: int) -> None:
    """Takes the status of children that have ended, but for those processes. Whose parent ends
    becomes our child; somebody who waits for it to be gone (libvirt, for a QEMU that it has asked
    what it can do) would wait for us."""
    for pid in zombies():
        if pid not in ours:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


def zombies() -> list[int]:
    """Children of this process that have ended."""
    try:
        text = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
        return [int(pid) for pid in text.split()
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"]
    except OSError:
        return []  # one of them is gone: the next time, then


def wait_for(process: "subprocess.Popen[str]", timeout_s: float, heed_signals: bool) -> bool:
    """True when the process ended in time, False when not or when a signal has come."""
    deadline, looked = time.monotonic() + timeout_s, time.monotonic()
    while process.poll() is None:
        if time.monotonic() > looked + 0.2:
            looked = time.monotonic()
            reap_orphans(process.pid)
        if time.monotonic() > deadline or (heed_signals and Interruption.number is not None):
            return False
        time.sleep(0.02)
    return True


def end_groups(processes: "list[subprocess.Popen[str]]", grace_s: float) -> None:
    """Ends processes that lead their own groups, by their own means if they find the time."""
    for process in processes:
        signal_group(process, signal.SIGINT)
    deadline = time.monotonic() + grace_s
    for process in processes:
        wait_for(process, deadline - time.monotonic(), heed_signals=False)
        signal_group(process, signal.SIGKILL)
        process.wait()


def run_group(process: "subprocess.Popen[str]", timeout_s: float) -> bool:
    """Waits for a process that leads its own group; returns whether it had to be ended."""
    in_time = wait_for(process, timeout_s, heed_signals=True)
    if not in_time:
        end_groups([process], GRACE_S)
    if Interruption.number is not None:
        end_orphans(0)
        raise Interrupted(Interruption.number)
    return not in_time
