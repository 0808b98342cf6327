# SPDX-License-Identifier: MIT
"""The simulation as a program: its options, its output, and what it shall show."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BUILD = Path(os.environ["AEROSTAT_BALLOON"]).parents[2]
PROGRAM = BUILD / "sim" / "sim"
PLOT = Path(__file__).parents[2] / "sim" / "plot.py"
BASELINES = ("proxmox", "mom")


def sim(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=300)


def results(*arguments: str) -> dict[str, Any]:
    run = sim("--json", *arguments)
    assert run.returncode == 0, run.stderr
    data = json.loads(run.stdout)
    data["by-policy"] = {result["policy"]: result for result in data["results"]}
    return data


def test_two_runs_are_the_same(tmp_path: Path) -> None:
    arguments = ("--guests=40", "--hours=2", "--seed=7")
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    runs = [sim(*arguments, f"--output={path}") for path in files]
    assert runs[0].returncode == 0 and runs[0].stdout
    assert runs[0].stdout == runs[1].stdout
    assert files[0].read_bytes() == files[1].read_bytes()
    assert sim("--guests=40", "--hours=2", "--seed=8").stdout != runs[0].stdout


def test_a_policy_is_alone(tmp_path: Path) -> None:
    """What one policy does changes nothing for the others."""
    both = results("--guests=30", "--hours=1", "--policy=mom,static")
    alone = results("--guests=30", "--hours=1", "--policy=static")
    assert list(both["by-policy"]) == ["mom", "static"]
    assert both["by-policy"]["static"] == alone["by-policy"]["static"]


def test_figures_add_up(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    data = results("--guests=50", "--hours=3", f"--output={path}")
    full = json.loads(path.read_text())
    seconds = 3 * 3600
    for result, sampled in zip(data["results"], full["results"]):
        kinds = result["kinds"].values()
        assert sum(kind["guests"] for kind in kinds) == 50
        assert sum(kind["oom-kills"] for kind in kinds) == result["oom-kills"]
        assert sum(kind["stall-seconds"] for kind in kinds) == pytest.approx(
            result["stall-seconds"], abs=0.1)
        assert 0 < result["given-byte-seconds"] < data["sizes"] * seconds
        assert len(sampled["guest-stall-seconds"]) == 50
        assert sum(sampled["guest-stall-seconds"]) == pytest.approx(
            result["stall-seconds"], abs=0.1)
        samples = sampled["samples"]
        assert len(samples) == seconds // 60 + 1
        assert sum(sample["stall-seconds"] for sample in samples) == pytest.approx(
            result["stall-seconds"], abs=0.5)
        # All begin alike, and the trace is the same for all.
        assert samples[0] == full["results"][0]["samples"][0]
        wanted = [sample["wanted"] for sample in samples]
        assert wanted == [sample["wanted"] for sample in full["results"][0]["samples"]]


@pytest.mark.parametrize("own", (0, 50, 100))
def test_bars(own: int) -> None:
    """Fewer kills and less waiting than both algorithms, with no less memory for others."""
    policies = results("--guests=100", "--hours=10", f"--own={own}",
                       "--policy=aerostat,proxmox,mom")["by-policy"]
    ours = policies["aerostat"]
    for name in BASELINES:
        theirs = policies[name]
        assert ours["oom-kills"] < theirs["oom-kills"], name
        assert ours["stall-seconds"] < theirs["stall-seconds"], name
        assert ours["given-byte-seconds"] >= theirs["given-byte-seconds"], name
    assert ours["host-short-seconds"] == 0


def test_recorded_traces(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    run = sim("--guests=10", "--hours=2", f"--write-trace={path}")
    assert run.returncode == 0, run.stderr
    lines = path.read_text().splitlines()
    assert lines[0] == "vm,seconds,bytes"
    assert len({line.split(",")[0] for line in lines[1:]}) == 10
    data = results(f"--trace={path}", "--hours=2", "--policy=proxmox")
    assert data["guests"] == 10
    assert list(data["results"][0]["kinds"]) == ["recorded"]


def test_a_recorded_shortage_hurts(tmp_path: Path) -> None:
    """A guest that wants more than its share, beside one that wants nothing: only a policy that
    moves memory helps."""
    gib = 1 << 30
    path = tmp_path / "trace.csv"
    path.write_text(f"busy,0,{gib}\nbusy,600,{gib}\nbusy,660,{3 * gib}\nbusy,3600,{3 * gib}\n"
                    f"idle,0,{gib // 8}\nidle,60,{3 * gib}\nidle,61,{gib // 8}\n")
    policies = results(f"--trace={path}", "--hours=1", "--policy=aerostat,static",
                       "--own=0")["by-policy"]
    assert policies["static"]["oom-kills"] + policies["static"]["stall-seconds"] > 10
    assert policies["aerostat"]["oom-kills"] == 0
    assert policies["aerostat"]["stall-seconds"] < policies["static"]["stall-seconds"] / 2


@pytest.mark.parametrize("arguments", (
    ("--guests=0",), ("--guests=10001",), ("--guests=1.5",), ("--hours=x",), ("--seed=-1",),
    ("--policy=none",), ("--policy=",), ("--own=101",), ("--budget=0",), ("--nothing",), ("word",),
))
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    run = sim(*arguments)
    assert run.returncode == 2
    assert not run.stdout
    assert "--help" in run.stderr


def test_failures(tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("a,1\n")
    for arguments in (("--trace=/nonexistent",), (f"--trace={bad}",),
                      ("--write-trace=/nonexistent/file",),
                      ("--guests=1", "--hours=1", "--output=/nonexistent/file")):
        run = sim(*arguments)
        assert run.returncode == 1
        assert run.stderr.startswith("sim: ")


def test_help() -> None:
    run = sim("--help")
    assert run.returncode == 0
    for option in ("--guests", "--hours", "--seed", "--policy", "--trace", "--json"):
        assert option in run.stdout


def test_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "out.json"
    assert sim("--guests=5", "--hours=1", f"--output={path}").returncode == 0
    subprocess.run([sys.executable, PLOT, path, tmp_path / "plots"], check=True,
                   capture_output=True, timeout=120)
    for name in ("policies.png", "timeline.png", "guests.png"):
        assert (tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG")
