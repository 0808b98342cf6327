# SPDX-License-Identifier: MIT
"""Fault tests talk to the program as protocol tests do, with the same peers and fixtures."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Iterator

import pytest

PROTOCOL = Path(__file__).resolve().parent.parent / "protocol"
sys.path.insert(0, str(PROTOCOL))

_spec = importlib.util.spec_from_file_location("protocol_conftest", PROTOCOL / "conftest.py")
assert _spec is not None and _spec.loader is not None
_protocol = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_protocol)

alarm = _protocol.alarm
spawn = _protocol.spawn
pytest_configure = _protocol.pytest_configure

from faults import Faults  # noqa: E402  (the path above)


@pytest.fixture
def faults() -> Iterator[Faults]:
    with Faults() as ready:
        yield ready
