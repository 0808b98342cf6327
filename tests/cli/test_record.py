# SPDX-License-Identifier: MIT
"""record and replay: what was written down is what the simulator reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from conftest import Program, program
from control import GIB, MIB, Control, machine
from screen import Terminal


def lines(path: Path) -> list[list[str]]:
    text = path.read_text()
    assert text.endswith("\n")
    rows = [line.split(",") for line in text.splitlines()]
    assert rows[0] == ["vm", "seconds", "bytes"]
    return rows[1:]


def test_record(control: Control, aerostat: Program, tmp_path: Path) -> None:
    control.vms.append(machine("stale", stats_age_ms=9000))
    path = tmp_path / "trace.csv"
    done = aerostat("record", str(path), "--seconds=1.5")
    assert done.returncode == 0 and "4 lines of 2 guests" in done.stderr
    rows = lines(path)
    assert [row[0] for row in rows] == ["web1", "db", "web1", "db"]
    assert all(row[2] == str(GIB) for row in rows)
    times = [float(row[1]) for row in rows]
    assert times == sorted(times) and times[0] < 0.5 and 0.9 < times[2] < 1.5


def test_interrupted(control: Control, tmp_path: Path) -> None:
    """However it is ended, what is there is whole."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
        path = tmp_path / f"{number}.csv"
        process = subprocess.Popen([program(), "record", str(path), f"--control={control.path}"],
                                   stderr=subprocess.PIPE)
        end = time.monotonic() + 10
        while not path.exists() or path.read_text().count("\n") < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate(timeout=10)
        assert process.returncode == (-number if number == signal.SIGKILL else 0)
        assert len(lines(path)) >= 2


def test_names_that_a_recording_cannot_have(control: Control, aerostat: Program,
                                            tmp_path: Path) -> None:
    names = ["a,b", "#c", "vm", "x" * 100, "line\nbreak", "vm,", "日本"]
    control.vms = [machine(name) for name in names]
    path = tmp_path / "trace.csv"
    assert aerostat("record", str(path), "--seconds=0.1").returncode == 0
    assert [row[0] for row in lines(path)] == ["a_b", "_#c", "_vm", "x" * 63, "line_break", "_vm_",
                                               "日本"]
    assert aerostat.json("replay", str(path), "--policy=static")["replay"]["guests"] == 7


def test_a_file_that_is_there(aerostat: Program, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")
    done = aerostat("record", str(path), "--seconds=1")
    assert done.returncode == 1 and path.read_text() == "precious"
    assert aerostat("record", "/nonexistent/x", "--seconds=1").returncode == 1
    done = aerostat("record", "/dev/full", "--seconds=1")
    assert done.returncode == 1


def test_to_a_pipe_and_as_json(aerostat: Program, tmp_path: Path) -> None:
    done = aerostat("record", "-", "--seconds=0.1")
    assert done.stdout.splitlines()[0] == "vm,seconds,bytes" and "web1,0.0" in done.stdout
    path = tmp_path / "trace.csv"
    done = aerostat("record", "--json", str(path), "--seconds=0.1")
    assert json.loads(done.stdout)["lines"] == 2


def test_aerostatd_goes_and_comes(control: Control, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    process = subprocess.Popen([program(), "record", str(path), f"--control={control.path}"],
                               stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 20

    def wait_for(count: int) -> None:
        while not path.exists() or path.read_text().count("\n") < count:
            assert time.monotonic() < end
            time.sleep(0.02)

    wait_for(3)
    control.stop()
    time.sleep(1.5)
    control.listen()
    wait_for(5)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=10)[1]
    assert process.returncode == 0 and said.count("trying again") == 1
    assert "is lost: it hung up; trying again" in said, said
    assert len(lines(path)) >= 4


def trace(path: Path, seconds: int = 1800) -> str:
    """Two guests whose demand moves from one to the other."""
    text = "vm,seconds,bytes\n"
    for at in range(0, seconds, 60):
        high = at // 300 % 2
        text += f"a,{at}.000,{(1500 if high else 300) * MIB}\n"
        text += f"b,{at},{(300 if high else 1500) * MIB}\n"
    path.write_text(text)
    return str(path)


def test_replay(aerostat: Program, tmp_path: Path) -> None:
    path = trace(tmp_path / "trace.csv")
    rows = aerostat.rows("replay", path, "--policy=all")
    assert rows[0][:4] == ["POLICY", "STALL s", "WORST s", "OOM KILLS"]
    assert {row[0] for row in rows[1:]} == {"aerostat", "proxmox", "mom", "mom-available", "static"}
    assert [row[0] for row in aerostat.rows("replay", path)[1:]] == ["aerostat"]
    rows = aerostat.rows("replay", path, "--policy=mom,static")
    assert [row[0] for row in rows[1:]] == ["mom", "static"]
    table = aerostat("replay", path, "--policy=static", "--table").stdout
    assert table.startswith("2 guests of ") and "for 1 h" in table


def test_replay_as_json(aerostat: Program, tmp_path: Path) -> None:
    path = trace(tmp_path / "trace.csv", 2 * 3600)
    answer = aerostat("replay", path, "--policy=static,aerostat", "--json", "--budget=80",
                      "--own=100", "--seed=5")
    data = json.loads(answer.stdout)
    assert data["schema"] == 1
    replay = data["replay"]
    assert replay["guests"] == 2 and replay["hours"] == 2 and replay["seed"] == 5
    assert replay["budget-share"] == 0.8 and replay["own-share"] == 1
    assert sorted(result["policy"] for result in replay["results"]) == ["aerostat", "static"]


def test_replay_says_the_same_twice(aerostat: Program, tmp_path: Path) -> None:
    path = trace(tmp_path / "trace.csv")
    assert aerostat.rows("replay", path, "--policy=all") == aerostat.rows("replay", path,
                                                                         "--policy=all")


@pytest.mark.parametrize("text", [None, "", "vm,seconds,bytes\n", "a,1\n", "a,x,1\n",
                                  "a,2,1\na,1,1\n"])
def test_no_recording(aerostat: Program, tmp_path: Path, text: Any) -> None:
    path = tmp_path / "trace.csv"
    if text is not None:
        path.write_text(text)
    done = aerostat("replay", str(path))
    assert done.returncode == 1 and done.stdout == "" and str(path) in done.stderr


def test_replay_shows_progress(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    path = trace(tmp_path / "trace.csv", 100 * 3600)
    screen = terminal("replay", path, "--policy=all")
    screen.wait_for("replaying [")
    assert screen.end() == 0
    text = screen.screen.text()
    assert "replaying" not in text and "mom-available" in text


def test_no_daemon_is_needed(tmp_path: Path) -> None:
    done = Program("/nonexistent")("replay", trace(tmp_path / "trace.csv"), env={**os.environ})
    assert done.returncode == 2 or "nonexistent" not in done.stderr
