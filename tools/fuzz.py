#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs every libFuzzer target of a fuzz build for some seconds each, two at a time.

The corpus of each target is kept between runs; a seed corpus (fuzz/corpus/TARGET) and a dictionary
(fuzz/TARGET.dict) are used where the tree has them.  A crash, leak or hang leaves its input in the
crash folder, is named at the end, and makes the exit status 1.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

PARALLEL = 2
PROGRESS_S = 10
OVERTIME_S = 60  # past its time limit a target that still runs is ended and counts as hung
INPUT_TIMEOUT_S = 10
MEMORY_LIMIT_MIB = 2048
STATUS = re.compile(r"^#\d")


class Interruption:
    """Remembers a signal: an exception out of a handler could strike inside of subprocess."""

    number: int | None = None

    @classmethod
    def handle(cls, number: int, frame: object) -> None:
        cls.number = number


class Target:
    """One fuzz target and its run."""

    def __init__(self, root: Path, build: Path, program: Path) -> None:
        self.name = program.name
        self.program = program
        self.corpus = root / "build" / "fuzz-corpus" / self.name
        self.crashes = root / "build" / "fuzz-crashes" / self.name
        self.seeds = root / "fuzz" / "corpus" / self.name
        self.dictionary = root / "fuzz" / f"{self.name}.dict"
        self.log = build / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.known: set[Path] = set()
        self.deadline = 0.0
        self.hung = False

    def start(self, seconds: int) -> None:
        self.corpus.mkdir(parents=True, exist_ok=True)
        self.crashes.mkdir(parents=True, exist_ok=True)
        self.known = set(self.crashes.iterdir())
        command = [str(self.program), f"-max_total_time={seconds}", f"-timeout={INPUT_TIMEOUT_S}",
                   f"-rss_limit_mb={MEMORY_LIMIT_MIB}", f"-artifact_prefix={self.crashes}/"]
        if self.dictionary.is_file():
            command.append(f"-dict={self.dictionary}")
        command.append(str(self.corpus))  # the first one named is the one that grows
        if self.seeds.is_dir():
            command.append(str(self.seeds))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, start_new_session=True)
        self.deadline = time.monotonic() + seconds + OVERTIME_S

    def stop(self) -> None:
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def ended(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            return True
        if time.monotonic() > self.deadline:
            self.hung = True
            self.stop()
            return True
        return False

    def failed(self) -> bool:
        assert self.process is not None
        return self.hung or self.process.returncode != 0

    def last_status(self) -> str:
        """libFuzzer's newest line of progress."""
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if STATUS.match(line)), "starting")

    def reproducers(self) -> list[Path]:
        return sorted(set(self.crashes.iterdir()) - self.known)


def report(target: Target, root: Path) -> None:
    if not target.failed():
        print(f"{target.name}: clean, {target.last_status()}", flush=True)
        return
    print(f"{target.name}: FAILED{' (hung)' if target.hung else ''}; end of its log:", flush=True)
    lines = target.log.read_text(errors="replace").splitlines()
    print("\n".join("    " + line for line in lines[-60:]))
    for path in target.reproducers():
        shown = path.relative_to(root)
        print(f"{target.name}: reproducer {shown}")
        print(f"    again: {target.program.relative_to(root)} {shown}", flush=True)


def run_all(targets: list[Target], seconds: int, root: Path) -> list[Target]:
    waiting = list(targets)
    running: list[Target] = []
    next_progress = time.monotonic() + PROGRESS_S
    try:
        while (waiting or running) and Interruption.number is None:
            while waiting and len(running) < PARALLEL:
                target = waiting.pop(0)
                print(f"{target.name}: {seconds} s", flush=True)
                running.append(target)
                target.start(seconds)
            time.sleep(0.2)
            for target in [target for target in running if target.ended()]:
                running.remove(target)
                report(target, root)
            if time.monotonic() >= next_progress:
                next_progress += PROGRESS_S
                for target in running:
                    print(f"{target.name}: {target.last_status()}", flush=True)
    finally:
        for target in running:
            target.stop()
    if Interruption.number is not None:
        sys.exit(128 + Interruption.number)
    return [target for target in targets if target.failed()]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./run fuzz", description="runs every fuzz target")
    parser.add_argument("--build", type=Path, required=True, help="meson build directory")
    parser.add_argument("seconds", type=int, help="how long each target runs")
    options = parser.parse_args(arguments)
    root = Path(__file__).resolve().parent.parent
    build = options.build.resolve()
    programs = sorted(path for path in (build / "fuzz").glob("fuzz_*") if path.is_file())
    if not programs:
        print("run fuzz: this tree has no fuzz target", file=sys.stderr)
        return 1
    bad = run_all([Target(root, build, path) for path in programs], options.seconds, root)
    print(f"fuzz: {len(programs) - len(bad)} targets clean, {len(bad)} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, Interruption.handle)
    sys.exit(main(sys.argv[1:]))
