# SPDX-License-Identifier: MIT
"""tools/demo.py as its users meet it: in a pipe, on a terminal, interrupted, and incomplete."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import pty
import re
import signal
import subprocess
import sys
import time

import pytest

DEMO = pathlib.Path(__file__).resolve().parent.parent.parent / "tools" / "demo.py"
SGR = re.compile(r"\x1b\[[0-9;]*m")

pytestmark = [pytest.mark.driver("stock", reason="the demo chooses its drivers"),
              pytest.mark.vmm("uml", reason="the demo chooses its monitor")]


@pytest.fixture
def environment(tmp_path: pathlib.Path) -> dict[str, str]:
    """An environment whose TMPDIR is empty before, and must be so after."""
    return os.environ | {"TMPDIR": str(tmp_path), "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}


def start(environment: dict[str, str], stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(DEMO)], env=environment, stdout=stdout,
                            stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)


def assert_nothing_left(environment: dict[str, str]) -> None:
    directory = environment["TMPDIR"]
    assert os.listdir(directory) == []
    command_lines = subprocess.run(["ps", "-eo", "args"], stdout=subprocess.PIPE, text=True,
                                   check=True).stdout
    assert directory not in command_lines


def in_a_pipe(environment: dict[str, str]) -> None:
    started = time.monotonic()
    process = start(environment)
    text = process.communicate(timeout=90)[0].decode()
    print(text)
    assert process.returncode == 0
    assert time.monotonic() - started < 60  # beside another one
    assert "\x1b" not in text and "\r" not in text
    assert text.endswith("It all worked.\n")
    assert len(re.findall(r"^ *[0-9.]+s  \w", text, re.MULTILINE)) == 13
    for fact in (r"got back +\d+ MiB", r"= \d+ MiB/s", r"\(SIGSTOP\) +unresponsive",
                 r"\(SIGCONT\) +healthy", r"another serves the same guest, \d+ ms",
                 r"Push interval of 100 ms +[12]\d statistics",
                 r"The guest tells +[a-z, ]+: answered after \d+ us",
                 r"has its memory +after \d+ ms; nothing was killed",
                 r"\$ aerostat list\nNAME +STATE", r"\nbatch +serving +healthy",
                 r"\$ aerostat explain batch\nbatch: (raised|released) "):
        assert re.search(fact, text), fact
    assert max(map(len, text.splitlines())) < 100
    assert_nothing_left(environment)


def on_a_terminal(environment: dict[str, str], interrupt: bool = False) -> tuple[str, int]:
    """Run the demo on a terminal of 100 columns; return what it printed and its status."""
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "cols", "100", "rows", "30"], stdin=theirs, check=True)
    process = start(environment, stdout=theirs)
    os.close(theirs)
    text = ""
    try:
        while data := os.read(ours, 1 << 16):
            text += data.decode(errors="replace")
            if interrupt and "page cache" in text:
                process.send_signal(signal.SIGINT)
                interrupt = False
    except OSError:  # how a terminal says that its other end is closed
        pass
    finally:
        os.close(ours)
    return text, process.wait(30)


def on_a_terminal_without_colour(environment: dict[str, str]) -> None:
    text, status = on_a_terminal(environment | {"NO_COLOR": "1"})
    assert status == 0
    assert text.count("\r\x1b[K") > 30, "nothing was redrawn"
    assert not SGR.search(text)
    assert_nothing_left(environment)


def test_all_of_it(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    """In a pipe and on a terminal, at once: most of the time they wait."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ends = []
        for name, run in (("p", in_a_pipe), ("t", on_a_terminal_without_colour)):
            (tmp_path / name).mkdir()
            ends.append(pool.submit(run, environment | {"TMPDIR": str(tmp_path / name)}))
        for end in ends:
            end.result()


def test_interrupted(environment: dict[str, str]) -> None:
    text, status = on_a_terminal(environment, interrupt=True)
    assert status == 130
    assert SGR.search(text) and "Interrupted" in text and "Traceback" not in text
    assert_nothing_left(environment)


def test_without_a_guest_kernel(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    process = start(environment | {"PATH": "/nonexistent"})
    text = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 1
    assert "apt-get install" in text and "Traceback" not in text
    assert os.listdir(tmp_path) == []


def test_without_a_device(environment: dict[str, str]) -> None:
    environment.pop("AEROSTAT_BALLOON", None)
    process = start(environment)
    text = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 1
    assert "./run demo" in text and len(text.splitlines()) == 1
