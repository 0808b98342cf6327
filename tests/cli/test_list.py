# SPDX-License-Identifier: MIT
"""Verbs that show: tables, JSON, and what stands in the place of numbers that are not known."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest

from conftest import Program
from control import GIB, MIB, Control, machine
from screen import Terminal


def test_list_for_programs(aerostat: Program) -> None:
    rows = aerostat.rows("list")
    assert rows[0] == ["NAME", "STATE", "HEALTH", "VERDICT", "SIZE", "TARGET", "ACTUAL", "RESIDENT",
                       "FREE", "AVAILABLE", "AGE"]
    assert rows[1] == ["web1", "serving", "healthy", "fine", str(2 * GIB), str(1536 * MIB),
                       str(1540 * MIB), str(1600 * MIB), str(300 * MIB), str(700 * MIB), "400"]
    assert [row[0] for row in rows[1:]] == ["web1", "db", "idle"]


@pytest.mark.parametrize("members,instead", [
    ({"driver": "none"}, "no driver"),
    ({"driver": "no-statistics"}, "statistics off"),
    ({"stats_age_ms": 12_345}, "stale 12 s"),
    ({"stats_age_ms": 5001}, "stale 5.0 s"),
    ({"stats": None}, "none yet"),
    ({"stats_age_ms": None}, "none yet"),
    ({"state": "resting", "absence": "hung"}, "hung"),
    ({"state": "resting", "absence": "no-balloon"}, "no balloon"),
    ({"state": "connecting"}, "connecting"),
])
def test_no_wrong_numbers(control: Control, aerostat: Program, members: dict[str, Any],
                          instead: str) -> None:
    """Words in the place of numbers that were not, or are not any more, the guest's."""
    control.vms = [machine("web1", **members)]
    row = aerostat.rows("list")[1]
    assert row[8] == instead and row[9] == "-"
    for verb in ("stats", "info"):
        text = aerostat(verb, "web1").stdout
        assert instead in text and str(300 * MIB) not in text, text
    assert instead in aerostat("stats").stdout
    shown = aerostat.json("stats")["vms"][0]
    assert shown["why-not-fresh"] == instead and "fresh" not in shown


def test_what_is_fresh_is_shown(control: Control, aerostat: Program) -> None:
    control.vms = [machine("web1", stats_age_ms=5000)]
    assert aerostat.rows("list")[1][8] == str(300 * MIB)
    assert aerostat.json("stats", "web1")["vms"][0]["fresh"] is True


def test_list_on_a_terminal(terminal: Callable[..., Terminal]) -> None:
    screen = terminal("list", columns=132)
    assert screen.end() == 0
    lines = screen.screen.lines()
    assert lines[0].split()[0] == "NAME"
    assert "1.50G" in lines[1] and "300M" in lines[1] and "0.4 s" in lines[1]
    assert "no driver" in lines[3]
    assert b"\x1b[31mthrashing" in screen.screen.all


@pytest.mark.parametrize("environment,args", [({"NO_COLOR": "1"}, ()), ({"TERM": "dumb"}, ()),
                                              ({}, ("--color=never",))])
def test_no_colours(terminal: Callable[..., Terminal], environment: dict[str, str],
                    args: tuple[str, ...]) -> None:
    screen = terminal("list", *args, environment=environment, columns=132)
    assert screen.end() == 0
    assert b"\x1b" not in screen.screen.all and b"thrashing" in screen.screen.all


def test_tables_and_colours_where_asked(aerostat: Program) -> None:
    text = aerostat("list", "--table").stdout
    assert "1.50G" in text and "\t" not in text and "\x1b" not in text
    assert "\x1b[31mthrashing" in aerostat("list", "--table", "--color=always",
                                           env={"NO_COLOR": "1"}).stdout


def test_columns_line_up(control: Control, aerostat: Program) -> None:
    """Also where a name has wide characters, or some that have no place on a terminal."""
    control.vms = [machine("日本"), machine("a\x1b[31mb\tc\n"), machine("x" * 70)]
    lines = aerostat("list", "--table").stdout.splitlines()
    assert len(lines) == 4
    assert "a?[31mb?c?" in lines[2]
    places = [line.index("serving") for line in lines[1:]]
    assert places[0] + 2 == places[1] == places[2]


def test_without_utf8(control: Control, aerostat: Program) -> None:
    control.vms = [machine("日本")]
    done = aerostat("list", "--table", env={"LC_ALL": "C"})
    assert done.stdout.isascii() and "?" in done.stdout


def test_list_of_none(control: Control, aerostat: Program) -> None:
    control.vms = []
    assert aerostat.json("list")["vms"] == []
    assert len(aerostat.rows("list")) == 1
    assert aerostat("list", "--table").stdout == "No virtual machines.\n"


def test_a_thousand(control: Control, aerostat: Program) -> None:
    control.vms = [machine(f"vm{i:04}") for i in range(1000)]
    assert len(aerostat.rows("list")) == 1001
    assert len(aerostat.json("list")["vms"]) == 1000


def test_json_is_what_was_said(control: Control, aerostat: Program) -> None:
    assert aerostat.json("list")["vms"] == control.vms
    assert aerostat.json("info", "db")["vm"] == control.vms[1]
    assert aerostat.json("info")["host"] == control.host
    assert aerostat.json("info", control.vms[0]["uuid"])["vm"]["name"] == "web1"


def test_info(control: Control, aerostat: Program) -> None:
    rows = dict(aerostat.rows("info", "web1"))
    assert rows["name"] == "web1" and rows["floor"] == str(288 * MIB)
    assert rows["managed"] == "yes" and rows["free"] == str(300 * MIB)
    assert "learned floor" not in rows
    control.vms[0]["learned-floor"] = GIB
    assert "learned floor         1.00G" in aerostat("info", "web1", "--table").stdout \
        or "1.00G" in aerostat("info", "web1", "--table").stdout


def test_info_of_the_host(control: Control, aerostat: Program) -> None:
    control.host["reservations"] = [
        {"id": 7, "bytes": 8 * GIB, "got": 8 * GIB, "granted": True, "left-ms": 55_000},
        {"id": 8, "bytes": 4 * GIB, "got": GIB, "granted": False, "left-ms": 1500}]
    text = aerostat("info", "--table").stdout
    assert "64.0G" in text and "0.25 %" in text
    assert "7: 8.00G, for 55 s" in text
    assert "8: 4.00G wanted, 1.00G there, for 1.5 s" in text
    del control.host["total"]
    assert "memory" not in dict(row[:2] for row in aerostat.rows("info"))


def test_health(control: Control, aerostat: Program) -> None:
    rows = aerostat.rows("health")
    assert rows[1][:4] == ["web1", "healthy", "fine", "reached"]
    control.vms[1]["health"] = "unresponsive"
    done = aerostat("health")
    assert done.returncode == 1 and "1 of the guests" in done.stderr
    assert aerostat("health", "web1").returncode == 0
    done = aerostat("health", "--json")
    assert done.returncode == 1
    shown = json.loads(done.stdout)["health"]
    assert [vm["health"] for vm in shown] == ["healthy", "unresponsive", "healthy"]


def test_weak_verdicts_say_so(control: Control, aerostat: Program) -> None:
    control.vms = [machine("old", verdict="pressed", verdict_weak=True)]
    assert aerostat.rows("list")[1][3] == "pressed?"


def test_stats_of_one(control: Control, aerostat: Program) -> None:
    rows = dict(aerostat.rows("dommemstat", "web1"))
    assert rows["free-memory"] == str(300 * MIB) and rows["major-faults"] == "1234"
    assert rows["age"] == "400" and "alloc-stalls" not in rows
    assert "1.23k" in aerostat("stats", "web1", "--table").stdout


def test_watching(control: Control, aerostat: Program) -> None:
    """Rates are of what came between two rows; a guest that starts anew has none."""
    counts = iter([1000, 3000, 3000 + 500 * 4096, 7])

    def query(arguments: dict[str, Any]) -> dict[str, Any]:
        vm = machine("web1", stats_age_ms=0)
        vm["stats"]["stat-major-faults"] = next(counts)
        return vm

    control.replies["query-vm"] = query
    rows = aerostat.rows("watch", "web1", "--count=4", "--interval=0.5")
    assert rows[0][-2:] == ["MAJFLT/s", "VERDICT"]
    rates = [row[7] for row in rows[1:]]
    assert rates[0] == "-" and 3000 <= int(rates[1]) <= 4200 and rates[3] == "-"
    assert len(rows) == 5


def test_watching_without_new_statistics(control: Control, aerostat: Program) -> None:
    """Of statistics that came once and not again there is no rate, and later nothing at all."""
    age = iter([100, 400, 6000])
    control.replies["query-vm"] = lambda _: machine("web1", stats_age_ms=next(age))
    rows = aerostat.rows("stats", "web1", "--watch", "--count=3", "--interval=0.3")
    assert rows[2][7] == "-" and rows[3][3] == "stale 6.0 s"


def test_watching_all_as_json(aerostat: Program) -> None:
    done = aerostat("stats", "--json", "--count=2", "--interval=0.1")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 2 and all(len(line["vms"]) == 3 for line in lines)
    assert lines[0]["vms"][0]["stats"]["stat-free-memory"] == 300 * MIB


def test_explain(control: Control, aerostat: Program) -> None:
    done = aerostat("explain", "web1", "--table")
    assert done.returncode == 0
    assert done.stdout.startswith("web1: lowered from 2.0 GiB to 1.5 GiB")
    assert all(len(line) <= 80 for line in done.stdout.splitlines()[:3])
    assert "take" in done.stdout and "12 s" in done.stdout
    answer = aerostat.json("explain", "web1")
    assert answer["decisions"][0]["reason"] == "idle" and answer["text"]


def test_events(control: Control, aerostat: Program) -> None:
    control.happen("TARGET_SET", "web1: lowered", name="web1")
    control.happen("SCARCITY", "memory is scarce", on=True)
    control.happen("VM_GONE", "", name="db")
    rows = aerostat.rows("events")
    assert [row[0] for row in rows[1:]] == ["1", "2", "3"]
    assert rows[1][2:] == ["web1", "TARGET_SET", "web1: lowered"]
    assert rows[2][2] == "-"
    assert [row[0] for row in aerostat.rows("events", "db")[1:]] == ["3"]
    assert [row[0] for row in aerostat.rows("events", "--after=2")[1:]] == ["3"]
    assert aerostat.json("events")["last"] == 3
    assert [e["seq"] for e in aerostat.json("events", "web1")["events"]] == [1]


def test_an_answer_that_costs_memory(aerostat: Program, control: Control) -> None:
    """aerostatd is believed more than a machine's monitor, but not anything."""
    control.vms = [machine(f"vm{i}") for i in range(10_000)]
    assert len(aerostat.rows("list")) == 10_001
    control.replies["query-vms"] = lambda _: [{}] * 1_500_000
    done = aerostat("list")
    assert done.returncode == 1 and "token count limit" in done.stderr
