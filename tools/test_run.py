# SPDX-License-Identifier: MIT
"""`./run`: wrong usage is told before anything is installed or built, and what is said about
packages that are missing.

It runs in a copy of the scripts. The programs that it would install and build with are stand-ins
that write down how they were called.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RECORD = '#!/bin/bash\necho "${0##*/} $*" >>"$CALLS"\n'
INTERRUPTED = '[ ! -e "$CALLS.interrupted" ] || { echo half; exit; }\n'


class Tree:
    """A copy of ./run and its parts, and stand-ins for dpkg, apt-get, id and meson."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self.calls_file = folder / "calls"
        self.bin = folder / "bin"
        (self.root / "tools/lib").mkdir(parents=True)
        for name in ("run", *(f"tools/lib/{path.name}" for path in (ROOT / "tools/lib").iterdir())):
            (self.root / name).write_bytes((ROOT / name).read_bytes())
        (self.root / "run").chmod(0o755)
        for path in (ROOT / "tests").iterdir():
            if path.is_dir():
                (self.root / "tests" / path.name).mkdir(parents=True)
        self.calls_file.touch()
        self.bin.mkdir()
        self.program("id", "echo 0")
        self.program("dpkg-query", 'case ${!#} in gcc | make) exit 1 ;; esac; echo installed')
        self.program("dpkg", INTERRUPTED)
        self.program("apt-get", "")
        self.program("meson", "echo no meson here; exit 1")

    def program(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(RECORD + script + "\n")
        path.chmod(0o755)

    def run(self, *arguments: str, path: str = os.environ["PATH"]) -> tuple[int, str]:
        """Exit status and standard error."""
        done = subprocess.run(
            [self.root / "run", *arguments], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=60, check=False,
            env={**os.environ, "PATH": f"{self.bin}:{path}", "CALLS": str(self.calls_file),
                 "AEROSTAT_CACHE": str(self.root / "cache")})
        assert done.returncode != 2 or done.stdout == ""
        return done.returncode, done.stderr

    def calls(self) -> list[str]:
        lines = self.calls_file.read_text().splitlines()
        self.calls_file.write_text("")
        return [line for line in lines if not line.startswith(("id", "dpkg-query"))]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize("arguments", [
    [], ["bild"], ["build", "x"], ["demo", "--fast"], ["lint", "x"], ["fuzz"], ["fuzz", "0"],
    ["test", "nonsense"], ["test", "unit", "../src"], ["test", ""], ["test", "--kernel=6.1"],
    ["test", "--full", "unit"], ["test", "--vmm=qemu", "unit"], ["test", "--vmm=kvm"],
    ["test", "--kernel=5", "--vmm=qemu"], ["test", "-k"], ["test", "-x"],
    ["bench", "--foo"], ["bench", "quick"], ["bench", "--only"], ["bench", "--only", "nonsense"],
    ["bench", "--only=nonsense"], ["bench", "--peer=kvm"], ["bench", "--only", "reporting"],
    ["bench", "--peer=qemu", "--only", "served"],
])
def test_wrong_usage(tree: Tree, arguments: list[str]) -> None:
    status, errors = tree.run(*arguments)
    assert status == 2
    assert errors.startswith("run: ") and "(./run help)" in errors and len(errors.splitlines()) == 1
    assert tree.calls() == []


def test_every_suite_is_known(tree: Tree) -> None:
    suites = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
    for path in [*ROOT.glob("*/meson.build"), *ROOT.glob("tests/*/meson.build")]:
        suites |= set(re.findall(r"suite: '([a-z]+)'", path.read_text()))
    assert {"unit", "fuzz", "examples", "protocol"} <= suites
    for suite in (*suites, "tools", "module"):
        assert tree.run("test", suite)[0] == 1, suite  # came as far as meson
    for suite in ("guest", "module"):
        assert tree.run("test", "--vmm=qemu", suite)[0] == 1, suite


def test_every_part_of_the_benchmark_is_known(tree: Tree) -> None:
    text = (ROOT / "bench/bench.py").read_text()
    own, peer = (re.findall(r'"(\w+)": lambda', piece)
                 for piece in text[text.index("def own_parts"):].split("def parts_beside_qemu"))
    assert "served" in own and "reporting" in peer
    for options, parts in (([], own), (["--peer=qemu"], peer)):
        for part in parts:
            assert tree.run("bench", *options, "--only", part)[0] == 1, part
            assert tree.run("bench", f"--only={part}", "--quick", *options)[0] == 1, part


def test_packages_are_named_once(tree: Tree) -> None:
    _, errors = tree.run("demo")  # gcc is in two of its lists
    assert errors.splitlines()[0] == "run: installing Debian packages: gcc make"
    assert [line for line in tree.calls() if line.startswith("apt-get")] == [
        "apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 install "
        f"--no-install-recommends {option} gcc make" for option in ("--simulate", "--yes")]


def test_without_root_and_sudo(tree: Tree) -> None:
    tree.program("id", "echo 1000")
    for name in ("bash", "dirname", "readlink", "awk", "env"):
        (tree.bin / name).symlink_to(f"/usr/bin/{name}")
    status, errors = tree.run("build", path="")
    assert status == 1
    assert errors == ("run: Debian packages are missing, and installing them needs root or sudo: "
                      "apt-get install --no-install-recommends gcc\n")
    assert tree.calls() == []


def test_sudo_that_refuses(tree: Tree) -> None:
    tree.program("id", "echo 1000")
    tree.program("sudo", "echo 'sudo: a password is required' >&2; exit 1")
    status, errors = tree.run("build")
    assert status == 1
    assert "a password is required" in errors
    assert errors.splitlines()[-1] == ("run: sudo did not let us; as root: apt-get install "
                                       "--no-install-recommends gcc")
    assert tree.calls() == ["sudo -n true"]


def test_an_interrupted_installation_is_ended(tree: Tree) -> None:
    interrupted = Path(f"{tree.calls_file}.interrupted")
    interrupted.touch()
    tree.program("dpkg", 'case $1 in --configure) rm "$CALLS.interrupted" ;; esac\n' + INTERRUPTED)
    tree.program("apt-get", '[[ $* != *--yes* || ! -e $CALLS.interrupted ]]')
    _, errors = tree.run("build")
    assert "dpkg --configure -a" in errors
    assert "release build" in errors
    assert "dpkg --configure -a" in tree.calls()
