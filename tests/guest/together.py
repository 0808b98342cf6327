# SPDX-License-Identifier: MIT
"""Tests that mostly wait do so at the same time: `@together` in front of one that wants a bed."""

from __future__ import annotations

import concurrent.futures
import functools
import pathlib
from collections.abc import Callable

import pytest

from conftest import Bed
from vmm.platform import Platform

AT_ONCE = 4

_Scenario = Callable[[Bed], None]
_ends: dict[str, concurrent.futures.Future[None]] = {}


def _run(scenario: _Scenario, workdir: pathlib.Path, platform: Platform) -> None:
    bed = Bed(workdir, platform)
    try:
        scenario(bed)
        bed.close()
    finally:
        bed.kill()


def _begin(session: pytest.Session, workdir: pathlib.Path, platform: Platform) -> None:
    """Start all that were selected for this session, a few at a time."""
    pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE)
    for item in session.items:
        scenario = getattr(getattr(item, "function", None), "scenario", None)
        if scenario is not None:
            _ends[item.nodeid] = pool.submit(_run, scenario, workdir, platform)
    pool.shutdown(wait=False)


def together(scenario: _Scenario) -> Callable[..., None]:
    """Makes a test of it that waits for its end."""
    def test(request: pytest.FixtureRequest, workdir: pathlib.Path,
             platform: Platform) -> None:
        if request.node.nodeid not in _ends:
            _begin(request.session, workdir, platform)
        _ends[request.node.nodeid].result()

    functools.update_wrapper(test, scenario)
    del test.__wrapped__  # type: ignore[attr-defined]  # else pytest would want its arguments
    test.scenario = scenario  # type: ignore[attr-defined]
    return test
