# SPDX-License-Identifier: MIT
"""Verbs that change something, exit statuses, and a control socket that is not as it should be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from typing import Any, Callable

import pytest

from conftest import Program, program
from control import GIB, MIB, CommandError, Control, machine
from screen import Terminal


@pytest.mark.parametrize("args", [
    [], ["bogus"], ["--bogus"], ["-x"], ["list", "web1"], ["info", "a", "b"],
    ["list", "--floor=1G"], ["set"], ["set", "web1"],
    ["set", "web1", "x"], ["set", "web1", "1Q"], ["set", "web1", "-1"],
    ["set", "web1", "1G", "2G"], ["set", "web1", "1G", "--floor=1G"],
    ["set", "web1", "1G", "--reset"], ["set", "web1", "--reset", "--priority=1"],
    ["set", "web1", "--floor=2G", "--ceiling=1G"], ["set", "web1", "--priority=x"],
    ["set", "web1", "--priority=-1"], ["set", "", "1G"], ["set", "web1", "99999999999999999999"],
    ["setmem", "web1", "1048576"], ["reserve"], ["reserve", "0"], ["reserve", "1GB"],
    ["reserve", "1G", "--hold=x"], ["reserve", "1G", "--timeout=1.2345"], ["release"],
    ["release", "x"], ["explain"], ["monitor"], ["record"], ["replay"], ["stats", "--interval=0"],
    ["stats", "--interval=0.05"], ["stats", "--count=x"], ["list", "--json=1"], ["list", "--color"],
    ["list", "--color=blue"], ["replay", "x", "--policy=bogus"], ["replay", "x", "--policy=mom,"],
    ["replay", "x", "--budget=101"], ["list", "--control="], ["events", "--after=-1"],
    ["list", "--"  , "x"],
], ids=" ".join)
def test_wrong_usage(aerostat: Program, control: Control, args: list[str]) -> None:
    """One line that says what is wrong, status 2, and nothing is asked of anybody."""
    done = aerostat(*args)
    assert done.returncode == 2, done
    assert done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("aerostat: ")
    assert control.asked == []


def test_help(aerostat: Program) -> None:
    text = aerostat("--help").stdout
    verbs = re.findall(r"^  ([a-z]+)", text, re.MULTILINE)
    for verb in ("list", "info", "set", "stats", "events", "health", "reserve", "release",
                 "explain", "record", "replay", "top", "monitor"):
        assert verb in verbs
    assert all(len(line) <= 80 and line == line.rstrip() for line in text.splitlines())
    for verb in verbs:
        one = aerostat(verb, "--help")
        assert one.returncode == 0 and one.stdout.startswith(f"usage: aerostat {verb}")
        assert "--json" in one.stdout
    assert "--completion" not in text
    assert any(char.isdigit() for char in aerostat("--version").stdout)


@pytest.mark.parametrize("verb", [["info"], ["set", "1G"], ["stats"], ["health"], ["explain"],
                                  ["monitor"]])
def test_not_found(aerostat: Program, verb: list[str]) -> None:
    done = aerostat(verb[0], "nobody", *verb[1:])
    assert done.returncode == 3 and "nobody" in done.stderr and done.stdout == ""
    done = aerostat("--json", verb[0], "nobody", *verb[1:])
    assert done.returncode == 3
    assert json.loads(done.stdout) == {"schema": 1, "error": {
        "status": 3, "text": "There is no VM 'nobody'"}}


def test_set(control: Control, aerostat: Program) -> None:
    rows = aerostat.rows("set", "web1", "1G")
    assert control.commands("set-vm") == [{"name": "web1", "floor": GIB, "ceiling": GIB}]
    assert rows[1][:5] == ["web1", str(GIB), str(GIB), "100", str(GIB)]
    aerostat("set", "web1", "--ceiling=1536M", "--priority", "7")
    assert control.commands("set-vm")[1] == {"name": "web1", "ceiling": 1536 * MIB, "priority": 7}
    aerostat("setmem", "web1", "1048576K")
    assert control.commands("set-vm")[2]["floor"] == GIB
    aerostat("set", "--reset", "web1")
    assert control.commands("reset-vm") == [{"name": "web1"}]
    aerostat("set", "web1", "--ceiling=16777215T")  # no limit
    assert control.commands("set-vm")[3]["ceiling"] == 2**63 - 1
    assert aerostat.json("set", "web1", "1G")["vm"]["target"] == GIB


def test_set_and_wait(control: Control, aerostat: Program) -> None:
    progress = iter([("moving", 1500), ("reached", 1500), ("moving", 1100), ("reached", 1024)])

    def query(_: Any) -> Any:
        word, actual = next(progress)
        return machine("web1", progress=word, actual=actual * MIB, target=GIB)

    control.replies["query-vm"] = query
    done = aerostat("set", "web1", "1G", "--wait")
    assert done.returncode == 0 and str(GIB) in done.stdout
    assert next(progress, None) is None
    control.replies["query-vm"] = lambda _: machine("web1", progress="moving", target=GIB)
    begun = time.monotonic()
    done = aerostat("set", "web1", "1G", "--wait", "--timeout=0.5")
    assert done.returncode == 4 and time.monotonic() - begun < 5
    done = aerostat("set", "web1", "1G", "--wait", "--timeout=0.2", "--json")
    assert done.returncode == 4 and json.loads(done.stdout)["vm"]["progress"] == "moving"
    control.replies["query-vm"] = lambda _: machine("web1", progress="uncooperative", target=GIB)
    assert aerostat("set", "web1", "1G", "--wait").returncode == 1
    # It cannot be moved now: that it has what it had to have before is not what was asked for.
    control.replies["query-vm"] = lambda _: machine(
        "web1", progress="reached", actual=2 * GIB, target=2 * GIB, floor=GIB, ceiling=GIB)
    done = aerostat("set", "web1", "1G", "--wait", "--timeout=0.2")
    assert done.returncode == 4 and "was not told to yet" in done.stderr


def test_reserve_and_release(control: Control, aerostat: Program) -> None:
    rows = aerostat.rows("reserve", "8G", "--timeout=2", "--hold=30")
    assert control.commands("reserve") == [
        {"bytes": 8 * GIB, "timeout-ms": 2000, "hold-ms": 30000}]
    assert rows[1] == ["3", str(8 * GIB), "30000"]
    assert aerostat.json("reserve", "1M") == {"schema": 1, "id": 3, "bytes": MIB, "hold-ms": 60000}
    done = aerostat("release", "3")
    assert done.returncode == 0 and done.stdout == ""
    assert aerostat("release", "4").returncode == 3
    assert aerostat.json("release", "3")["id"] == 3


def test_reserve_in_vain(control: Control, aerostat: Program) -> None:
    """At once because it is hopeless is a failure; after the time that was given it is late."""
    def refuse(_: Any) -> Any:
        raise CommandError("GenericError", "so much cannot be freed")

    def too_late(arguments: dict[str, Any]) -> Any:
        time.sleep(arguments["timeout-ms"] / 1000)
        raise CommandError("GenericError", "the memory was not free in time")

    control.replies["reserve"] = refuse
    done = aerostat("reserve", "8G")
    assert done.returncode == 1 and "so much cannot" in done.stderr
    control.replies["reserve"] = too_late
    done = aerostat("reserve", "8G", "--timeout=0.3")
    assert done.returncode == 4 and "not free in time" in done.stderr


def test_reserve_shows_progress(control: Control, terminal: Callable[..., Terminal]) -> None:
    granted = []

    def slowly(arguments: dict[str, Any]) -> Any:
        while not granted:
            time.sleep(0.05)
        return {"id": 9, "bytes": arguments["bytes"], "hold-ms": 60000}

    control.replies["reserve"] = slowly
    control.host["reservations"] = [
        {"id": 9, "bytes": 8 * GIB, "got": 2 * GIB, "granted": False, "left-ms": 1000}]
    screen = terminal("reserve", "8G")
    screen.wait_for("2.00G of 8.00G are free")
    assert "25 %" in screen.screen.text()
    granted.append(True)
    assert screen.end() == 0
    assert "are free" not in screen.screen.text() and "8.00G" in screen.screen.text()


def test_reload(control: Control, aerostat: Program) -> None:
    assert aerostat("reload").returncode == 0

    def refuse(_: Any) -> Any:
        raise CommandError("GenericError", "/etc/aerostat.conf:3: no such key")

    control.replies["reload"] = refuse
    done = aerostat("reload")
    assert done.returncode == 1 and "conf:3" in done.stderr


# --- the control socket ---------------------------------------------------------------------------


def test_nobody_there(tmp_path: Any) -> None:
    aerostat = Program(str(tmp_path / "nothing"))
    done = aerostat("list")
    assert done.returncode == 1 and str(tmp_path) in done.stderr
    done = aerostat("list", "--json")
    assert json.loads(done.stdout)["error"]["status"] == 1
    done = Program("x" * 200)("list")
    assert done.returncode == 1 and "too long" in done.stderr


def test_which_socket(control: Control) -> None:
    """The option wins over the environment."""
    done = Program("/nonexistent")("list", f"--control={control.path}")
    assert done.returncode == 0
    done = Program("/nonexistent")("--control", control.path, "list")
    assert done.returncode == 0


def test_no_answer(control: Control, aerostat: Program) -> None:
    control.silent = {"query-vms"}
    begun = time.monotonic()
    assert aerostat("list", "--timeout=0.3").returncode == 4
    assert time.monotonic() - begun < 5
    control.greets = False
    assert aerostat("list", "--timeout=0.3").returncode == 4


def test_it_hangs_up(control: Control, aerostat: Program) -> None:
    def hang_up(_: Any) -> Any:
        control.stop()

    control.replies["query-vms"] = hang_up
    done = aerostat("list")
    assert done.returncode == 1 and "lost" in done.stderr


@pytest.mark.parametrize("answer", [{}, None, 7, "x", [{}, None, 7, {"name": 3, "stats": 1}],
                                    [{"name": "x", "target": -1, "stats": {"stat-free-memory": "y"},
                                      "stats-age-ms": 2**63}]])
def test_answers_without_sense(control: Control, aerostat: Program, answer: Any) -> None:
    """Nothing but a message, or dashes: no crash."""
    control.replies["query-vms"] = lambda _: answer
    for verb in ("list", "health", "stats"):
        done = aerostat(verb)
        assert done.returncode in (0, 1)
        assert (done.returncode == 0) == isinstance(answer, list)
    control.replies["query-host"] = control.replies["query-events"] = lambda _: answer
    control.replies["explain"] = control.replies["query-vm"] = lambda _: answer
    for verb in (["info"], ["info", "x"], ["explain", "x"], ["events"], ["stats", "x"],
                 ["set", "x", "1G"], ["monitor", "x"]):
        control.replies["set-vm"] = lambda _: answer
        assert aerostat(*verb).returncode in (0, 1)


def test_errors_are_safe_to_show(control: Control, aerostat: Program) -> None:
    def colourful(_: Any) -> Any:
        raise CommandError("GenericError", "\x1b[31mred\nline")

    control.replies["query-vms"] = colourful
    assert aerostat("list").stderr == "aerostat: ?[31mred?line\n"


def test_output_that_cannot_be_written(aerostat: Program) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([program(), "list", f"--control={aerostat.path}"], stdout=full,
                              stderr=subprocess.PIPE, check=False, timeout=30)
    assert done.returncode == 1 and b"written" in done.stderr


# --- events that come -----------------------------------------------------------------------------


def follow(control: Control, *args: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen([program(), "events", "--follow", *args], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "AEROSTAT_CONTROL": control.path})
    end = time.monotonic() + 10
    while not control.commands("query-events"):
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


def test_follow(control: Control) -> None:
    control.happen("VM_APPEARED", "web1 is there", name="web1")
    process = follow(control, "--json")
    assert process.stdout and process.stderr
    assert json.loads(process.stdout.readline())["event"]["seq"] == 1
    control.happen("TARGET_SET", "web1: lowered", name="web1")
    event = json.loads(process.stdout.readline())
    assert event["schema"] == 1 and event["event"]["event"] == "TARGET_SET"
    control.events = []
    control.last += 5
    control.happen("TARGET_SET", "web1: raised", name="web1")
    assert json.loads(process.stdout.readline())["event"]["seq"] == 8
    assert "5 events are missing" in process.stderr.readline()
    control.stop()
    assert process.wait(10) == 1
    process.communicate()


def test_follow_one(control: Control) -> None:
    process = follow(control, "db")
    assert process.stdout
    assert process.stdout.readline().startswith("SEQ")
    control.happen("TARGET_SET", "web1: lowered", name="web1")
    control.happen("TARGET_SET", "db: lowered", name="db")
    assert process.stdout.readline().split("\t")[2] == "db"
    process.terminate()
    process.communicate()
    process.wait(10)
