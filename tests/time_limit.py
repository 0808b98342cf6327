# SPDX-License-Identifier: MIT
"""An alarm over every test of a folder: none may hang, whatever it waits for.

In the folder's conftest.py:

    alarm = time_limit(60)      # seconds
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest


def time_limit(seconds: int) -> Callable[..., Any]:
    """A fixture that all tests of the folder use without asking for it."""

    @pytest.fixture(autouse=True)
    def alarm() -> Iterator[None]:
        def late(*_: Any) -> None:
            raise TimeoutError(f"test took over {seconds} s")

        signal.signal(signal.SIGALRM, late)
        signal.alarm(seconds)
        yield
        signal.alarm(0)

    return alarm
