# SPDX-License-Identifier: MIT
"""monitor: commands to a virtual machine's own monitor, from a pipe and on a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from conftest import Program
from control import CommandError, Control
from screen import Terminal

HELP = ("balloon target -- request VM to change its memory allocation\r\n"
        "block_resize device size -- resize a block image\r\n"
        "block_set_io_throttle device -- change I/O throttle limits\r\n"
        "c|cont  -- resume emulation\r\n"
        "info [subcommand] -- show various information\r\n")


@pytest.fixture
def machine(control: Control) -> Iterator[Control]:
    """The monitor of web1."""
    monitor = Control()
    control.vms[0]["monitor"] = monitor.path

    def human(arguments: dict[str, Any]) -> Any:
        line = arguments["command-line"]
        if line == "help":
            return HELP
        if line == "info balloon":
            return "balloon: actual=1540\r\n\tcolumn \x1b[31mred\r\n"
        if line == "break":
            raise CommandError("GenericError", "it broke")
        if line == "die":
            monitor.stop()
        return f"unknown command: '{line}'\r\n"

    monitor.replies["human-monitor-command"] = human
    yield monitor
    monitor.close()


def lines(machine: Control) -> list[str]:
    return [arguments["command-line"] for arguments in machine.commands("human-monitor-command")]


def test_from_a_pipe(aerostat: Program, machine: Control) -> None:
    done = aerostat("monitor", "web1", input="info balloon\n\n  stop now\r\nquit")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines()[:2] == ["balloon: actual=1540", "\tcolumn ?[31mred"]
    assert lines(machine) == ["info balloon", "  stop now", "quit"]


def test_json(aerostat: Program, machine: Control) -> None:
    done = aerostat("monitor", "web1", "--json", input="info balloon\nbreak\n")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[0] == {"schema": 1, "command": "info balloon",
                          "return": "balloon: actual=1540\r\n\tcolumn \x1b[31mred\r\n"}
    assert answers[1] == {"schema": 1, "command": "break", "error": "it broke"}
    assert done.returncode == 1


def test_one_that_fails(aerostat: Program, machine: Control) -> None:
    """The others are run all the same."""
    done = aerostat("monitor", "web1", input="break\ninfo balloon\n")
    assert done.returncode == 1
    assert "it broke" in done.stderr and "actual=1540" in done.stdout


def test_the_monitor_goes(aerostat: Program, machine: Control) -> None:
    done = aerostat("monitor", "web1", input="die\ninfo balloon\n")
    assert done.returncode == 1 and lines(machine) == ["die"]


def test_a_path(machine: Control) -> None:
    """Works without aerostatd."""
    done = Program("/nonexistent")("monitor", machine.path, input="info balloon\n")
    assert done.returncode == 0 and "actual=1540" in done.stdout


def test_no_monitor(control: Control, aerostat: Program) -> None:
    control.vms[0]["monitor"] = "qemu:///system"
    done = aerostat("monitor", "web1", input="")
    assert done.returncode == 1 and "no monitor socket" in done.stderr


def test_a_monitor_that_is_busy(aerostat: Program, machine: Control) -> None:
    """QEMU serves one client at a socket; the next one gets no greeting."""
    machine.greets = False
    done = aerostat("monitor", "web1", "--timeout=0.3", input="info balloon\n")
    assert done.returncode == 4 and "another client" in done.stderr


def start(terminal: Callable[..., Terminal], path: Path) -> Terminal:
    screen = terminal("monitor", "web1", environment={"XDG_STATE_HOME": str(path)})
    screen.wait_for_prompt("(web1)")
    return screen


def test_on_a_terminal(terminal: Callable[..., Terminal], machine: Control,
                       tmp_path: Path) -> None:
    screen = start(terminal, tmp_path)
    screen.type("infx\x7fo balloon\n")  # a letter is taken back
    screen.wait_for("actual=1540")
    screen.type("quit\n")
    screen.wait_for("quit would end the virtual machine")
    screen.type("break\n")
    screen.wait_for("it broke")
    machine.happen("STOP", "")
    screen.type("\x1b[A\x1b[A\x1b[A\n")  # the command before those
    screen.wait_for(lambda text: text.count("actual=1540") == 2 and "(event STOP)" in text)
    screen.type("exit\n")
    assert screen.end() == 0
    assert lines(machine) == ["help", "info balloon", "break", "info balloon"]


def test_completion(terminal: Callable[..., Terminal], machine: Control, tmp_path: Path) -> None:
    screen = start(terminal, tmp_path)
    screen.type("blo\t")
    screen.wait_for("(web1) block_")
    screen.type("r\t")
    screen.wait_for("(web1) block_resize")
    screen.type("x 1\n")
    screen.wait_for("unknown command: 'block_resize x 1'")
    screen.wait_for_prompt("(web1)")
    screen.type("\x04")
    assert screen.end() == 0


def test_history_is_kept(terminal: Callable[..., Terminal], machine: Control,
                         tmp_path: Path) -> None:
    screen = start(terminal, tmp_path)
    screen.type("info balloon\n")
    screen.wait_for("actual=1540")
    screen.process.terminate()
    screen.end()
    file = tmp_path / "aerostat" / "monitor_history"
    assert file.stat().st_mode & 0o777 == 0o600
    screen = start(terminal, tmp_path)
    screen.type("\x1b[A\n")
    screen.wait_for("actual=1540")
    screen.type("quit!\n")
    screen.wait_for("unknown command: 'quit'")
    screen.wait_for_prompt("(web1)")
    screen.type("\x04")
    assert screen.end() == 0


def test_it_goes_while_it_is_looked_at(terminal: Callable[..., Terminal], machine: Control,
                                       tmp_path: Path) -> None:
    screen = start(terminal, tmp_path)
    screen.type("die\n")
    screen.wait_for("closed the connection")
    assert screen.end() == 1


def test_a_machine_that_costs_memory(aerostat: Program, machine: Control) -> None:
    """What it answers is text, of which there may be much; of brackets, each of which costs a
    hundred times its size, there may be few."""
    machine.replies["human-monitor-command"] = lambda _: "x" * (1 << 20)
    done = aerostat("monitor", "web1", input="info much\n")
    assert done.returncode == 0 and len(done.stdout) == (1 << 20) + 1
    machine.replies["human-monitor-command"] = lambda _: [[]] * 30_000
    done = aerostat("monitor", "web1", input="info much\n")
    assert done.returncode == 1 and "token count limit" in done.stderr
