# SPDX-License-Identifier: MIT
"""top on a terminal: what it shows, its keys, and that the terminal is as it was at every end."""

from __future__ import annotations

import signal
import time
from typing import Any, Callable

import pytest

from conftest import Program
from control import GIB, CommandError, Control, machine
from screen import Terminal

Start = Callable[..., Terminal]

ENTER, ESCAPE, UP, DOWN = "\r", "\x1b", "\x1bOA", "\x1bOB"
PAGE_DOWN, END, HOME = "\x1b[6~", "\x1bOF", "\x1bOH"
HEAD = 4  # lines above the first machine


def names(text: str) -> list[str]:
    """Of the rows, in their order."""
    return [line.split()[0] for line in text.splitlines()[HEAD:-1] if line.split()]


def top(terminal: Start, *args: str, **kwargs: Any) -> Terminal:
    screen = terminal("top", "--interval=0.1", *args, **kwargs)
    screen.wait_for("? help")
    screen.wait_for(lambda text: len(names(text)) > 0 and "waiting" not in text)
    return screen


def test_what_it_shows(control: Control, terminal: Start) -> None:
    control.vms.append(machine("old", stats_age_ms=12_000, health="unresponsive"))
    control.vms.append(machine("weak", verdict="pressed", verdict_weak=True))
    screen = top(terminal)
    rows = {"web1": ("1.50G", "1.56G", "300M", "fine", "healthy", "0.4 s"), "db": ("thrashing",),
            "idle": ("no driver",), "old": ("stale 12 s", "unresp."), "weak": ("pressed?",)}

    def is_whole(shown: str) -> bool:
        """A screen is drawn in pieces, in any order."""
        lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
        return (all(word in lines.get(name, "") for name, words in rows.items() for word in words)
                and all(word in shown for word in ("3 VMs, 2 managed", "host 64.0G", "psi 0.2 %"))
                and shown.splitlines()[1].endswith("\u2591]"))

    text = screen.wait_for(is_whole)
    bar = text.splitlines()[1]
    assert bar.startswith("[\u2588") and len(bar) == 80
    assert 0.58 < bar.count("\u2588") / 78 < 0.66  # 40 of 64 GiB
    assert "300M" not in next(line for line in text.splitlines() if line.startswith("old"))
    screen.wait_for(lambda shown: "\u2585" in shown)  # half of its size is in use
    screen.type("q")
    assert screen.end() == 0


def test_without_utf8(terminal: Start) -> None:
    screen = top(terminal, environment={"LC_ALL": "C"})
    assert screen.screen.text().isascii()
    screen.wait_for(lambda text: text.splitlines()[1].startswith("[####"))
    screen.type("q")
    assert screen.end() == 0


def test_sorting(control: Control, terminal: Start) -> None:
    control.vms = [machine("a", target=GIB, actual=3 * GIB), machine("b", target=3 * GIB,
                                                                      actual=GIB),
                   machine("c", target=2 * GIB, actual=2 * GIB, verdict="critical")]
    screen = top(terminal)
    for keys, order in (("", "abc"), ("t", "bca"), ("t", "acb"), ("a", "acb"), ("v", "cab"),
                        ("n", "abc"), ("n", "cba"), ("n", "abc"), (">", "bca"), ("<", "abc")):
        if keys:
            screen.type(keys)
        screen.wait_for(lambda text, order=order: names(text) == list(order))
    screen.type("q")
    assert screen.end() == 0


def test_a_thousand(control: Control, terminal: Start) -> None:
    control.vms = [machine(f"vm{i:04}") for i in range(1000)]
    screen = top(terminal, "--interval=1")
    screen.wait_for("1 of 1000")
    screen.type(PAGE_DOWN)
    screen.wait_for("20 of 1000")
    screen.type(END)
    screen.wait_for(lambda text: "1000 of 1000" in text and names(text)[-1] == "vm0999")
    screen.type(UP * 3)
    screen.wait_for("997 of 1000")
    screen.type("/7" + "77" + ENTER)
    screen.wait_for(lambda text: names(text) == ["vm0777"] and "only: 777" in text)
    screen.type("/\x7f\x7f\x7f" + ENTER)
    screen.wait_for("778 of 1000")  # it is still selected
    screen.type(HOME)
    screen.wait_for("1 of 1000")
    control.vms = control.vms[:5]
    screen.wait_for("1 of 5")
    screen.type("q")
    assert screen.end() == 0


def test_selection_stays_with_its_machine(control: Control, terminal: Start) -> None:
    control.vms = [machine(name) for name in "bcd"]
    screen = top(terminal)
    screen.type(DOWN)
    screen.wait_for("2 of 3")
    control.vms.insert(0, machine("a"))
    screen.wait_for("3 of 4")
    control.vms = [machine("a")]
    screen.wait_for("1 of 1")
    control.vms = []
    screen.wait_for("no virtual machines")
    screen.type("es" + DOWN)  # nothing to explain or to set
    screen.wait_for("0 of 0")
    screen.type("q")
    assert screen.end() == 0


def test_setting_a_target(control: Control, terminal: Start) -> None:
    screen = top(terminal)
    screen.type(DOWN * 2)
    screen.wait_for("3 of 3")
    screen.type("s")
    screen.wait_for(lambda shown: "Keep web1 at" in shown and screen.screen.cursor_shown)
    screen.type("1T\x7fG" + ENTER)
    screen.wait_for("Pin web1 at 1G? (y/n)")
    assert control.commands("set-vm") == []
    screen.type("y")
    screen.wait_for("web1: its target is 1.00G now")
    assert control.commands("set-vm") == [{"name": "web1", "floor": GIB, "ceiling": GIB}]
    for keys in ("s2G" + ENTER + "n", "s2G" + ESCAPE, "s" + ENTER, "squatsch" + ENTER):
        screen.type(keys)
        time.sleep(0.2)
        screen.wait_for(lambda text: "Keep" not in text and "Pin" not in text)
    assert len(control.commands("set-vm")) == 1
    screen.type("sauto" + ENTER)
    screen.wait_for("Manage as configured: web1?")
    screen.type("y")
    screen.wait_for(lambda _: control.commands("reset-vm") == [{"name": "web1"}])

    def refuse(_: Any) -> Any:
        raise CommandError("GenericError", "it is not allowed")

    control.replies["set-vm"] = refuse
    screen.type("s1G" + ENTER + "y")
    screen.wait_for("it is not allowed")
    screen.type("q")
    assert screen.end() == 0


def test_explaining(control: Control, terminal: Start) -> None:
    screen = top(terminal)
    screen.type("e")
    screen.wait_for("Why: db")
    screen.wait_for(lambda shown: all(words in shown for words in
                                      ("db: lowered from 2.0 GiB", "12 s ago", "idle")))
    screen.type(DOWN * 2)
    screen.wait_for("web1: lowered from")
    screen.type(ESCAPE)
    screen.wait_for(lambda shown: "Why" not in shown)
    screen.type(ENTER + ENTER + "?")
    screen.wait_for("Keys")
    screen.type("x")
    screen.wait_for(lambda shown: "Keys" not in shown)
    screen.type("q")
    assert screen.end() == 0


@pytest.mark.parametrize("rows,columns", [(10, 40), (50, 200), (1, 1), (3, 10), (24, 80)])
def test_resizing(terminal: Start, rows: int, columns: int) -> None:
    screen = top(terminal)
    screen.resize(rows, columns)
    if rows > 6:
        screen.wait_for(lambda text: "web1" in text and "aerostat top" in text)
        assert max(len(line) for line in screen.screen.lines()) <= columns
    else:
        time.sleep(0.5)
        screen.read(0.1)
    screen.type("e?")
    time.sleep(0.2)
    screen.type("xq")
    assert screen.end() == 0


def test_connection_lost_and_found(control: Control, terminal: Start) -> None:
    screen = top(terminal)
    control.stop()
    text = screen.wait_for("NO CONNECTION for")
    assert "web1" in text
    # What is shown gets older, until it is no more a number.
    screen.wait_for("stale 5.")
    screen.type("s1G" + ENTER + "y")
    screen.wait_for("there is no connection")
    control.listen()
    screen.wait_for(lambda text: "NO CONNECTION" not in text and "stale" not in text)
    screen.type("q")
    assert screen.end() == 0


def test_alarms(control: Control, terminal: Start) -> None:
    control.host |= {"scarce": True, "pressed": True, "unmet": 3 * GIB}
    screen = top(terminal)
    screen.wait_for("SCARCE BY 3.00G UNDER PRESSURE")
    assert b"\x1b[" in screen.screen.all
    control.host["dry-run"] = True
    screen.wait_for("DRY RUN")
    screen.type("q")
    assert screen.end() == 0


def test_no_colours(terminal: Start) -> None:
    screen = top(terminal, environment={"NO_COLOR": "1"})
    screen.wait_for("thrashing")
    for ink in (b"31", b"32", b"33"):
        assert b"\x1b[" + ink + b"m" not in screen.screen.all
        assert b";" + ink + b"m" not in screen.screen.all
    screen.type("q")
    assert screen.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT,
                                    signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_ends_by_signal(terminal: Start, number: signal.Signals) -> None:
    """The terminal is as it was, and who started it sees what ended it."""
    screen = top(terminal, environment={"ASAN_OPTIONS": "handle_segv=0:handle_abort=0:"
                                                        "handle_sigbus=0:detect_leaks=0"})
    assert screen.screen.alternate
    screen.process.send_signal(number)
    # Those of faults come back to it only when it faults; here it is told twice.
    if number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        screen.wait_for(lambda _: not screen.screen.alternate)
        screen.process.send_signal(number)
    assert screen.end() == (0 if number == signal.SIGINT else -number)


def test_control_c(terminal: Start) -> None:
    screen = top(terminal)
    screen.type("\x03")
    assert screen.end() == 0


def test_stop_and_go_on(terminal: Start) -> None:
    """Ctrl-Z gives the terminal back, and going on takes it again. (What has no shell above it goes
    on at once.)"""
    screen = top(terminal)
    shown = screen.screen
    screen.process.send_signal(signal.SIGTSTP)
    screen.wait_for(lambda _: shown.all.count(b"[?1049h") == 2)
    assert shown.all.count(b"[?1049l") == 1
    screen.wait_for(lambda text: shown.alternate and "web1" in text)
    screen.type("q")
    assert screen.end() == 0


def test_stop_while_it_draws(terminal: Start) -> None:
    """Ctrl-Z is not lost, whenever it comes: here after all times in which it may be drawing."""
    screen = top(terminal)
    for turn in range(80):
        screen.process.send_signal(signal.SIGWINCH)
        time.sleep(turn * 0.00005)
        screen.process.send_signal(signal.SIGTSTP)
        screen.wait_for(lambda _: screen.screen.all.count(b"[?1049h") == turn + 2)
    screen.type("q")
    assert screen.end() == 0


def test_without_a_terminal(aerostat: Program, control: Control, terminal: Start) -> None:
    done = aerostat("top")
    assert done.returncode == 1 and "terminal" in done.stderr
    assert aerostat.json("top") == {"schema": 1, "host": control.host, "vms": control.vms}
    screen = terminal("top", environment={"TERM": "none-such"})
    assert screen.end() == 1 and "terminal" in screen.screen.text()


def test_names_that_want_to_be_more(control: Control, terminal: Start) -> None:
    control.vms = [machine("\x1b[2Jx\ny"), machine("日本語" * 10)]
    screen = top(terminal)
    assert "?[2Jx?y" in screen.wait_for("?[2Jx?y")
    screen.type("q")
    assert screen.end() == 0
