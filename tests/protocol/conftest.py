# SPDX-License-Identifier: MIT
"""Fixtures: processes under test that are always ended, and an alarm over every test."""

from __future__ import annotations

import os
import signal
from typing import Any, Callable, Iterator

import pytest

from process import BINARY, Device
from qmp import Client

LIMIT = 60


def pytest_configure(config: pytest.Config) -> None:
    if not os.access(BINARY, os.X_OK):
        pytest.exit("AEROSTAT_BALLOON must name the vhost-user-balloon to test", returncode=2)


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """No test may hang, whatever it waits for."""
    def late(*_: Any) -> None:
        raise TimeoutError(f"test took over {LIMIT} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)


@pytest.fixture
def spawn(request: pytest.FixtureRequest) -> Iterator[Callable[..., Device]]:
    """Starts devices; each is looked through and ended after the test."""
    started: list[Device] = []

    def start(*args: str, **kwargs: Any) -> Device:
        device = Device(*args, **kwargs)
        started.append(device)
        return device

    yield start
    failures = []
    for device in started:
        if os.path.exists(device.dir):
            try:
                device.stop()
            except AssertionError as error:
                failures.append(str(error))
    assert not failures, "\n".join(failures)


@pytest.fixture
def device(spawn: Callable[..., Device]) -> Device:
    return spawn()


@pytest.fixture
def monitor(device: Device) -> Client:
    return device.monitor()
