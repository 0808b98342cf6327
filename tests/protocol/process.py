# SPDX-License-Identifier: MIT
"""The process under test: started, watched, and ended in a way that finds what it left behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections import Counter
from contextlib import contextmanager
from typing import Any, Iterator, Optional

from balloon import Guest
from qmp import Client
from vhost_user import FrontEnd, wait_for

BINARY = os.environ.get("AEROSTAT_BALLOON", "")

REPORTS = ("Sanitizer", "runtime error:", "Assertion", "assertion")
# What the parent says of a worker that is gone although nobody wanted that.
DEATH = re.compile(r"worker died|it is killed|does not get ready|cannot start a worker")


def run(*args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end."""
    return subprocess.run([BINARY, *args], capture_output=True, text=True, timeout=10,
                          check=False, **kwargs)


def connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(path)
            return True
        except OSError:
            return False


def stands_still(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


class Device:
    """A running vhost-user-balloon with its sockets in a directory of its own."""

    def __init__(self, *args: str, fd: Optional[int] = None, qmp: bool = True,
                 directory: Optional[str] = None,
                 environment: Optional[dict[str, str]] = None,
                 binary: str = BINARY) -> None:
        self.dir = directory or tempfile.mkdtemp(prefix="balloon-test-")
        self.sock = os.path.join(self.dir, "vhost.sock")
        self.mon = os.path.join(self.dir, "qmp.sock")
        self.err_path = os.path.join(self.dir, "stderr")
        self.open: list[Any] = []
        where = f"--socket-path={self.sock}" if fd is None else f"--fd={fd}"
        command = [binary, where, *([f"--qmp={self.mon}"] if qmp else []), *args]
        with open(self.err_path, "wb") as err:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=err,
                                            stdout=err, pass_fds=[] if fd is None else [fd],
                                            env={**os.environ, **(environment or {})})
        self.may_die = False  # the worker, because the test kills it
        self.baseline: Optional[Counter[str]] = None
        try:
            if qmp:
                wait_for(lambda: self.dead() or connects(self.mon), "monitor socket")
            if fd is None:
                wait_for(lambda: self.dead() or os.path.exists(self.sock), "vhost-user socket")
            assert not self.dead(), self.stderr()
            if qmp:
                # A full answer shows that the probe was seen; idle, two sockets stay open, and
                # the two ends of the channel between parent and worker.
                self.close(self.monitor())
                wait_for(lambda: self.fds()["socket"] <= 4, "probing connections closed")
                self.baseline = self.fds()
        except BaseException:
            self.kill()
            raise

    def dead(self) -> bool:
        return self.process.poll() is not None

    def stderr(self) -> str:
        with open(self.err_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def find_worker(self) -> int:
        """The process id of the worker; 0 if there is none just now."""
        parent = self.process.pid
        try:
            with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
                children = [int(word) for word in file.read().split()]
            for pid in children:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
                if len(words) > 1 and words[1].startswith(b"--worker"):
                    return pid
        except (FileNotFoundError, ProcessLookupError):
            pass
        return 0

    def worker(self) -> int:
        """The process id of the worker."""
        return int(wait_for(self.find_worker, "a worker"))

    def kill_worker(self, number: int = signal.SIGKILL) -> int:
        """Kills the worker that there is; its process id. Its successor may not be there yet."""
        self.may_die = True
        while True:
            pid = self.worker()
            try:
                os.kill(pid, number)
                return pid
            except ProcessLookupError:
                continue

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """The worker stands still; what it is sent meanwhile it finds all at once."""
        pid = self.worker()
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for(lambda: stands_still(pid), "the worker stopped")
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def replaced(self, old: int) -> int:
        """The process id of the worker that has come after an older one."""
        return int(wait_for(lambda: self.find_worker() not in (0, old) and self.find_worker(),
                            "another worker"))

    def pids(self) -> list[int]:
        """The parent and its worker."""
        return [self.process.pid, self.worker()]

    def fds(self) -> Counter[str]:
        """The processes' open files by kind."""
        kinds: Counter[str] = Counter()
        for pid in self.pids():
            try:
                for name in os.listdir(f"/proc/{pid}/fd"):
                    path = os.readlink(f"/proc/{pid}/fd/{name}")
                    kinds[path.split(":")[0].removesuffix(" (deleted)")] += 1
            except FileNotFoundError:
                pass
        return kinds

    def guest_maps(self) -> list[str]:
        """Mappings of guest memory that the processes have."""
        found = []
        for pid in self.pids():
            with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as file:
                found += [line for line in file if "protocol-test-ram" in line]
        return found

    def cpu_ticks(self) -> int:
        """Processor time that both processes have used."""
        ticks = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks

    def anonymous_memory(self) -> int:
        """Bytes of memory of their own that both processes have."""
        size = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/status", encoding="ascii") as file:
                size += next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
        return size * 1024

    def idle(self) -> None:
        """With every connection closed, nothing of the sessions may be left."""
        assert self.baseline is not None
        try:
            wait_for(lambda: self.fds() == self.baseline, "fds as before")
        except AssertionError as error:
            raise AssertionError(f"fds were {self.baseline}, are {self.fds()}") from error
        wait_for(lambda: not self.guest_maps(), "guest memory unmapped")

    def monitor(self, negotiate: bool = True) -> Client:
        client = Client(self.mon, negotiate)
        self.open.append(client)
        return client

    def guest(self, start: bool = True, **kwargs: Any) -> Guest:
        guest = Guest(self.sock, **kwargs)
        self.open.append(guest)
        return guest.start() if start else guest

    def front_end(self) -> FrontEnd:
        fe = FrontEnd(self.sock)
        self.open.append(fe)
        return fe

    def close(self, *what: Any) -> None:
        """Closes connections, by default all."""
        for item in what or tuple(self.open):
            item.close()
            self.open.remove(item)

    def good_session(self, **kwargs: Any) -> None:
        """Whatever happened before: a new guest is served, completely."""
        guest = self.guest(**kwargs)
        pages = guest.some_pages(300)
        guest.inflate(pages)
        assert guest.freed() == 300 * 4096
        guest.deflate(pages)
        guest.check()
        self.close(guest)

    def kill(self) -> None:
        """The last resort, also when a test failed; nothing of it may stay on the machine."""
        for item in self.open:
            item.close()
        self.open.clear()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir)

    def stop(self) -> None:
        """Ends the process as a service manager does, and looks at what it says and leaves."""
        try:
            self.close()
            assert not self.dead(), f"died with {self.process.returncode}: {self.stderr()}"
            if self.baseline is not None:
                self.idle()
            self.process.terminate()
            self.gone()
        finally:
            self.kill()

    def gone(self) -> None:
        """The process ends by itself: status 0, sockets removed, no report of a sanitizer."""
        status = self.process.wait(timeout=20)
        said = self.stderr()
        assert not [report for report in REPORTS if report in said], said
        assert self.may_die or not DEATH.search(said), said
        assert status == 0, f"exit status {status}: {said}"
        left = sorted(os.listdir(self.dir))
        assert left == ["stderr"], f"left behind: {left}"
        assert len(said) < 256 * 1024, "logging is not rate-limited"
