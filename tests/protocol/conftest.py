# SPDX-License-Identifier: MIT
"""Fixtures: processes under test that are always ended, and an alarm over every test."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from process import BINARY, Device
from qmp import Client

sys.path.append(str(Path(__file__).resolve().parents[1]))

from time_limit import time_limit  # noqa: E402

alarm = time_limit(60)


def pytest_configure(config: pytest.Config) -> None:
    if not os.access(BINARY, os.X_OK):
        pytest.exit("AEROSTAT_BALLOON must name the vhost-user-balloon to test", returncode=2)


@pytest.fixture
def spawn() -> Iterator[Callable[..., Device]]:
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
