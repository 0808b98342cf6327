# SPDX-License-Identifier: MIT
"""Fixtures: a control socket, the program, programs on terminals; and an alarm over every test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from control import Control
from screen import Terminal

sys.path.append(str(Path(__file__).resolve().parents[1]))

from time_limit import time_limit  # noqa: E402  (the path above)

alarm = time_limit(60)


def program() -> str:
    """The program to test: it stands beside the device in the build."""
    return str(Path(os.environ.get("AEROSTAT_BALLOON", "")).parents[1] / "aerostat" / "aerostat")


def pytest_configure(config: pytest.Config) -> None:
    if not os.environ.get("AEROSTAT_BALLOON") or not os.access(program(), os.X_OK):
        pytest.exit("AEROSTAT_BALLOON must name the device of the build to test", returncode=2)
    os.environ.pop("NO_COLOR", None)
    os.environ["LC_ALL"] = "C.UTF-8"


@pytest.fixture
def control() -> Iterator[Control]:
    server = Control()
    yield server
    server.close()


class Program:
    """Runs the program against a control socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, *args: str, **kwargs: Any) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "AEROSTAT_CONTROL": self.path, **kwargs.pop("env", {})}
        done = subprocess.run([program(), *args], capture_output=True, text=True, timeout=30,
                              check=False, env=environment, **kwargs)
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
        return done

    def rows(self, *args: str) -> list[list[str]]:
        """What programs read: the heading's row and the others, taken apart."""
        done = self(*args)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]

    def json(self, *args: str) -> Any:
        done = self("--json", *args)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        assert done.stdout.count("\n") == 1
        answer = json.loads(done.stdout)
        assert answer["schema"] == 1
        return answer


@pytest.fixture
def aerostat(control: Control) -> Program:
    return Program(control.path)


@pytest.fixture
def terminal(control: Control) -> Iterator[Callable[..., Terminal]]:
    """Starts the program on a terminal; it is ended after the test."""
    started: list[Terminal] = []

    def start(*args: str, **kwargs: Any) -> Terminal:
        environment = {"AEROSTAT_CONTROL": control.path, **kwargs.pop("environment", {})}
        started.append(Terminal(program(), *args, environment=environment, **kwargs))
        return started[-1]

    yield start
    for one in started:
        one.close()
        assert b"Sanitizer" not in one.screen.all, one.screen.all.decode(errors="replace")
