# SPDX-License-Identifier: MIT
""".ci/run: every part runs, and the last line is the sum of all tests."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(tmp_path: Path, script: str) -> tuple[int, list[str], list[str]]:
    """Status, lines of output, and what `./run` was called with, where it is this script."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "run").write_text(f'#!/bin/sh\necho "$*" >>calls\n{script}\n')
    (tmp_path / "run").chmod(0o755)
    result = subprocess.run([tmp_path / ".ci" / "run"], stdin=subprocess.DEVNULL, text=True,
                            stdout=subprocess.PIPE, timeout=60, check=False)
    calls = (tmp_path / "calls").read_text().splitlines()
    return result.returncode, result.stdout.splitlines(), calls


CALLS = ["lint", "test", "test --vmm=qemu"]


@pytest.mark.parametrize("failing, counts, expected, status", [
    ("none", "5 passed, 0 failed, 1 skipped", "10 passed, 0 failed, 2 skipped", 0),
    ("lint", "5 passed, 0 failed, 1 skipped", "10 passed, 0 failed, 2 skipped", 1),
    ("test", "4 passed, 1 failed, 0 skipped", "8 passed, 2 failed, 0 skipped", 1),
    # Whatever a status says, or does not say.
    ("none", "4 passed, 1 failed, 0 skipped", "8 passed, 2 failed, 0 skipped", 1),
    ("test", "5 passed, 0 failed, 0 skipped", "10 passed, 0 failed, 0 skipped", 1),
    ("none", "Killed", "0 passed, 2 failed, 0 skipped", 1),
])
def test_sum(tmp_path: Path, failing: str, counts: str, expected: str, status: int) -> None:
    script = f"[ $1 = lint ] || printf 'a test\\n{counts}\\n'; [ $1 != {failing} ]"
    returned, output, calls = run(tmp_path, script)
    assert calls == CALLS
    assert output[-1] == expected
    assert returned == status


def test_each_run_counts_for_itself(tmp_path: Path) -> None:
    script = ("case $2 in --vmm=qemu) echo 0 passed, 0 failed, 6 skipped ;; "
              "*) [ $1 = lint ] || echo 70 passed, 0 failed, 1 skipped ;; esac")
    assert run(tmp_path, script)[:2] == (0, [
        "70 passed, 0 failed, 1 skipped", "0 passed, 0 failed, 6 skipped",
        "70 passed, 0 failed, 7 skipped"])


@pytest.mark.parametrize("part", CALLS)
def test_interrupted(tmp_path: Path, part: str) -> None:
    """Nothing follows what Ctrl-C has ended."""
    script = f'[ "$*" != "{part}" ] || kill -INT 0; echo 1 passed, 0 failed, 0 skipped'
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "run").write_text(f'#!/bin/sh\ntrap "exit 130" INT\necho "$*" >>calls\n{script}\n')
    (tmp_path / "run").chmod(0o755)
    result = subprocess.run([tmp_path / ".ci" / "run"], stdin=subprocess.DEVNULL, text=True,
                            stdout=subprocess.PIPE, timeout=60, check=False,
                            start_new_session=True)
    assert result.returncode == 130
    assert (tmp_path / "calls").read_text().splitlines() == CALLS[:CALLS.index(part) + 1]
