# SPDX-License-Identifier: MIT
"""Fixtures for tests of aerostatd with simulated monitors (monitors.py).

    def test_something(manage, monitors):
        web = monitors.qemu("web")
        manager = manage(budget=GIB)      # an aerostatd that finds it; ended after the test
        manager.serving(1)
        ...

`manage` starts as many as a test wants, all with the same directory of monitors. After the test
each must end with 0 upon SIGTERM, and without a report of a sanitizer, unless it has ended before.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daemon import BINARY, Daemon
from monitors import Monitors

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))

from time_limit import time_limit  # noqa: E402

alarm = time_limit(90)


def pytest_configure(config: pytest.Config) -> None:
    del config
    if not os.access(BINARY, os.X_OK):
        pytest.exit("AEROSTAT_MANAGER must name the aerostatd to test", returncode=2)


@pytest.fixture
def workdir() -> Iterator[pathlib.Path]:
    """A directory with a short name, for sockets."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="am-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def monitors(workdir: pathlib.Path) -> Iterator[Monitors]:
    """Simulated monitors in a directory that `manage` has watched."""
    directory = workdir / "vm"
    directory.mkdir()
    with Monitors(directory) as thread:
        yield thread


@pytest.fixture
def manage(workdir: pathlib.Path, monitors: Monitors) -> Iterator[Callable[..., Daemon]]:
    """Starts an aerostatd: manage(*options, budget=..., vms=..., manager=..., host=...)."""
    started: list[Daemon] = []

    def start(*options: str, **settings: Any) -> Daemon:
        daemon = Daemon(workdir, *options, **settings)
        started.append(daemon)
        if daemon.keys["monitors"] == daemon.monitors:
            daemon.keys["monitors"] = monitors.directory
        daemon.start()
        return daemon

    yield start
    failures = []
    for daemon in started:
        try:
            if daemon._process is not None:
                daemon.stop()
        except Exception as error:  # the next ones are to be ended, too
            failures.append(str(error))
        daemon.close()
    assert not failures, "\n".join(failures)
