# SPDX-License-Identifier: MIT
"""The shells' completions, as the shells themselves do it; and the manual page has all of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Program, program
from control import Control, machine

MANUAL = Path(__file__).parents[2] / "man" / "aerostat.1.scd"


def bash(control: Control, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    script = (f"source <({program()} --completion=bash)\n"
              'compopt() { :; }\n'
              f"COMP_WORDS=({program()} \"$@\")\n"
              "COMP_CWORD=$#\n"
              "_aerostat\n"
              "printf '%s\\n' \"${COMPREPLY[@]}\"\n")
    done = subprocess.run(["bash", "-u", "-c", script, "bash", *words], capture_output=True,
                          text=True, timeout=30, check=False, cwd=control.dir,
                          env={**os.environ, "AEROSTAT_CONTROL": control.path})
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def test_verbs_and_options(control: Control) -> None:
    assert bash(control, "re") == ["reserve", "release", "record", "replay", "reload"]
    assert bash(control, "setm") == ["setmem"]
    offered = bash(control, "set", "--")
    assert "--floor=" in offered and "--json" in offered and "--follow" not in offered
    assert bash(control, "list", "--j") == ["--json"]
    assert bash(control, "--json", "events", "--f") == ["--follow"]


def test_values(control: Control) -> None:
    assert bash(control, "replay", "--policy", "=", "m") == ["mom", "mom-available"]
    assert bash(control, "replay", "--policy", "=") == ["aerostat", "proxmox", "mom",
                                                       "mom-available", "static", "all"]
    assert bash(control, "list", "--color", "n") == ["never"]
    assert bash(control, "list", "--control", "=", "con") == ["control"]
    assert bash(control, "set", "--floor", "=", "") == []
    assert bash(control, "--timeout", "=", "3", "li") == ["list"]
    assert bash(control, "record", "con") == ["control"]


def test_names_of_machines(control: Control) -> None:
    control.vms.append(machine("two words"))
    control.vms.append(machine("web2"))
    assert bash(control, "info", "web") == ["web1", "web2"]
    assert bash(control, "set", "--priority", "=", "3", "db") == ["db"]
    assert bash(control, "explain", "two") == ["two\\ words"]
    assert bash(control, "set", "web1", "w") == []
    control.stop()
    assert bash(control, "info", "web") == []


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh")
def test_zsh(control: Control, tmp_path: Path) -> None:
    """zsh itself completes, on a terminal of its own."""
    text = subprocess.run([program(), "--completion=zsh"], capture_output=True, text=True,
                          check=True).stdout
    assert text.startswith("#compdef aerostat\n")
    (tmp_path / "_aerostat").write_text(text)
    os.symlink(program(), tmp_path / "aerostat")
    script = (f"fpath=({tmp_path} $fpath); path=({tmp_path} $path)\n"
              "zmodload zsh/zpty\n"
              "zpty z 'zsh -f -i'\n"
              f"zpty -w z 'PS1=; fpath=({tmp_path} $fpath); path=({tmp_path} $path)'\n"
              "zpty -w z 'autoload -Uz compinit; compinit -u -D; zstyle \":completion:*\" "
              "list-grouped no; LISTMAX=0; echo ready'\n"
              "zpty -r -m z line '*ready*ready*'\n"
              "zpty -n -w z \"aerostat $1\"$'\\t'\n"
              "sleep 2\n"
              "while zpty -r -t z line; do print -r -- $line; done\n")
    for typed, expected in (("explai", "explain "), ("info we", "info web1 "),
                            ("list --js", "--json"), ("replay --policy=prox", "proxmox")):
        done = subprocess.run(["zsh", "-f", "-c", script, "zsh", typed], capture_output=True,
                              text=True, timeout=60, check=False,
                              env={**os.environ, "AEROSTAT_CONTROL": control.path, "TERM": "dumb",
                                   "HOME": str(tmp_path)})
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|[\x00-\x08\r]", "", done.stdout)
        assert expected in shown, (typed, shown, done.stderr)


def test_no_other_shell(aerostat: Program) -> None:
    assert aerostat("--completion=fish").returncode == 2


def test_the_manual_has_all_of_it(aerostat: Program) -> None:
    """Every verb, every second name and every option is in the manual page, and no others."""
    manual = MANUAL.read_text()
    helped = aerostat("--help").stdout
    verbs = set(re.findall(r"^  ([a-z]+)", helped, re.MULTILINE))
    options = set()
    for verb in verbs:
        text = aerostat(verb, "--help").stdout
        options |= set(re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE))
        assert f"\n*{verb}*" in manual, verb
        also = re.search(r"^Also called ([a-z]+)", text, re.MULTILINE)
        assert not also or f"*{also.group(1)}*" in manual, also
    assert options <= set(re.findall(r"--[a-z-]+", manual))
    assert set(re.findall(r"^\*(--[a-z-]+)", manual, re.MULTILINE)) <= options
