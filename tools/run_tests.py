#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs every test of a sanitizer build and closes with one line of counts.

The C programs are those that meson knows (`meson introspect --tests`); they report in TAP, which
still tells how far a program came when it crashed.  The Python suites are the directories below
tests/ that hold test_*.py files, and tools/ itself.  The suite `guest` is tests/guest with the
balloon driver that comes with the kernel, `module` the same tests with ours, which is built first.
With --vmm=qemu these two run, and no others, on QEMU with each of Debian's kernels. Tests about
which kernel and driver have no say run with one of them then, unless --full is given.

Several suites run at once, each in a process of this program, whose output is shown when it has
ended.

Each program and each suite runs in a process group of its own, and whatever a test starts becomes a
child of this process when its own parent goes: nothing outlives a run, also an interrupted one, and
what a test leaves running is a failure.

A sanitizer report is a failure even when the process that made it was a child whose exit status
nobody looked at: reports go to files, and files that are there afterwards are counted.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from descendants import (GRACE_S, Interrupted, Interruption, adopt_orphans, end_groups, end_orphans,
                         processor_seconds, run_group)

PYTHON = "/usr/bin/python3"
PYTEST_TIMEOUT_S = 1200
EMULATED_TIMEOUT_S = 2400  # for the same tests where QEMU emulates the processor
MODULE_TIMEOUT_S = 1800  # to fetch a kernel, the first time, and build a module for it
KERNELS = ("6.1", "6.12", "7.2")  # of guests on QEMU
MORE_AT_ONCE = 1  # suites than processors: many tests wait for a time to pass
ORPHANS_S = 5  # for what a test has already told to end
EXIT_SKIPPED = 77  # what a test program without TAP returns for "skipped", as meson has it

COUNTS = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")
LEFT_OUT = re.compile(r"^left out: (\d+) ", re.MULTILINE)  # conftest.py of the guest tests
PERCENT = re.compile(r"\[ *(\d+)%\]$", re.MULTILINE)  # as pytest says how far it is
TAP_PLAN = re.compile(r"^1\.\.(\d+)")
TAP_RESULT = re.compile(r"^(not )?ok\b(.*)$")


@dataclass
class Counts:
    """How many tests ended how."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: "Counts") -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def total(self) -> int:
        return self.passed + self.failed + self.skipped

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def parse_tap(text: str) -> tuple[Counts, int]:
    """Counts of a TAP stream of one or more groups, and how many planned tests never reported."""
    counts = Counts()
    planned = 0
    for line in text.splitlines():
        plan = TAP_PLAN.match(line)
        result = TAP_RESULT.match(line)
        if plan:
            planned += int(plan.group(1))
        elif result:
            if "# SKIP" in result.group(2):  # cmocka says "not ok N # SKIP name"
                counts.skipped += 1
            elif result.group(1):
                counts.failed += 1
            else:
                counts.passed += 1
    return counts, max(0, planned - counts.total())


def judge_program(output: str, returncode: int) -> Counts:
    """Counts of one test program; a crash or an unreported test never looks like success."""
    counts, missing = parse_tap(output)
    if counts.total() == 0 and missing == 0:
        if returncode == EXIT_SKIPPED:
            return Counts(skipped=1)
        return Counts(passed=1) if returncode == 0 else Counts(failed=1)
    counts.failed += missing
    if returncode != 0 and counts.failed == 0:
        counts.failed = 1
    return counts


def judge_junit(path: Path, returncode: int) -> Counts:
    """Counts of one pytest run; no readable report means that pytest itself broke."""
    try:
        suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return Counts(failed=1)
    counts = Counts()
    for suite in suites:
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        counts.failed += failed
        counts.skipped += skipped
        counts.passed += max(0, int(suite.get("tests", 0)) - failed - skipped)
    nothing_collected = 5
    if returncode not in (0, nothing_collected) and counts.failed == 0:
        counts.failed = 1
    return counts


@dataclass
class Program:
    """A C test program as meson describes it."""

    name: str
    suite: str
    command: list[str]
    environment: dict[str, str]
    directory: str | None
    timeout_s: int


def load_programs(build: Path) -> list[Program]:
    text = subprocess.run(
        ["meson", "introspect", "--tests", str(build)], check=True, capture_output=True, text=True
    ).stdout
    programs = []
    for test in json.loads(text):
        suites = [name.split(":")[-1] for name in test["suite"]]
        programs.append(
            Program(
                name=test["name"],
                suite=suites[0] if suites else "unit",
                command=test["cmd"],
                environment=test["env"],
                directory=test["workdir"],
                timeout_s=4 * test["timeout"],  # sanitizers, and a machine that does other things
            )
        )
    return programs


@dataclass
class Suite:
    """A folder with Python tests, and what they are to run on."""

    name: str
    folder: Path
    options: tuple[str, ...] = ()
    module: str = ""  # the kernel for which our module is to be built before
    needs_module: bool = False  # whether nothing of it can run without
    timeout_s: int = PYTEST_TIMEOUT_S


def python_suites(root: Path) -> list[Suite]:
    suites = []
    folders = [path for path in sorted((root / "tests").iterdir()) if path.is_dir()]
    for folder in [*folders, root / "tools"]:
        if any(folder.glob("test_*.py")):
            # Of the guest tests with the kernel's driver one runs the demo, which has both.
            guests = folder.name == "guest"
            suites.append(Suite(folder.name, folder, module="uml" if guests else ""))
            if guests:
                suites.append(Suite("module", folder, ("--driver=aerostat",), "uml", True))
    return suites


def on_qemu(suites: list[Suite], kernel: str, full: bool = False) -> list[Suite]:
    """Those of the suites that have guests, with this kernel under QEMU."""
    return [Suite(f"{suite.name}-{kernel}", suite.folder,
                  (*suite.options, "--vmm=qemu", f"--kernel={kernel}",
                   *(["--full"] if full else [])),
                  kernel if suite.needs_module else "", suite.needs_module, EMULATED_TIMEOUT_S)
            for suite in suites if suite.name in ("guest", "module")]


def judge_child(output: str, returncode: int) -> Counts:
    """Counts of a suite that another process of this program has run: its last line."""
    lines = output.splitlines()
    match = COUNTS.fullmatch(lines[-1]) if lines else None
    if not match:
        return Counts(failed=1)
    counts = Counts(*(int(number) for number in match.groups()))
    if returncode != 0 and counts.failed == 0 and counts.total():
        counts.failed = 1
    return counts


def test_bed_lacks(kernel: str) -> str:
    """What of QEMU's test bed is not there; empty if nothing."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    index = Path(os.environ.get("AEROSTAT_CACHE") or Path(base) / "aerostat") / "kernels.json"
    try:
        entries = json.loads(index.read_text())
    except (OSError, ValueError):
        entries = {}
    return ", ".join(name for name in (kernel, "qemu") if name not in entries)


def how_far(log: Path) -> str:
    """What a suite's output so far says of it."""
    percents = PERCENT.findall(log.read_text(errors="replace"))
    return f" {percents[-1]} %" if percents else ""


class Runner:
    """Runs programs and suites, prints as it goes, keeps the sum."""

    def __init__(self, root: Path, build: Path, scratch: Path, verbose: bool, match: str,
                 results: str = "results", built: str = "") -> None:
        """`scratch` is for what tests write; its path is short, since sockets go there. `results`:
        where logs and reports go, below `build`. `built`: for this kernel somebody else has seen to
        our module."""
        self.root = root
        self.build = build
        self.scratch = scratch
        self.verbose = verbose
        self.match = match
        self.sum = Counts()
        self.built = {built: True} if built else {}  # by kernel: whether there is our module
        self.left_out = 0  # tests that run with another kernel only
        self.results = build / results
        shutil.rmtree(self.results, ignore_errors=True)
        self.reports = self.results / "sanitizer"
        self.reports.mkdir(parents=True)
        self.environment = dict(os.environ)
        programs = build / "src"
        self.environment.update(
            AEROSTAT_BALLOON=str(programs / "vhost-user-balloon" / "vhost-user-balloon"),
            AEROSTAT_MANAGER=str(programs / "aerostatd" / "aerostatd"),
            AEROSTAT_CLI=str(programs / "aerostat" / "aerostat"),
            AEROSTAT_GUEST_PROGRAMS=str(build / "tests" / "guest" / "programs"),
            AEROSTAT_MODULES=str(root / "build" / "module"),
            AEROSTAT_RELEASE=str(root / "build" / "release"),
            CMOCKA_MESSAGE_OUTPUT="tap",
            PYTHONNOUSERSITE="1",
            ASAN_OPTIONS=self.options("detect_leaks=1:detect_stack_use_after_return=1"
                                      ":strict_string_checks=1"),
            UBSAN_OPTIONS=self.options("print_stacktrace=1:halt_on_error=1"),
        )

    def options(self, fixed: str) -> str:
        # The quotes are for a checkout whose path holds a colon or a blank.
        return f"{fixed}:log_path='{self.reports}/report'"

    def take_reports(self) -> list[str]:
        """Contents of the sanitizer reports that came since the last call."""
        texts = []
        for path in sorted(self.reports.glob("report*")):
            texts.append(path.read_text(errors="replace"))
            path.rename(self.results / f"{path.name}.seen")
        return texts

    def show(self, suite: str, name: str, counts: Counts, details: str) -> None:
        print(f"{suite:<9} {name:<28} {counts}", flush=True)
        if details and (counts.failed or self.verbose):
            print("\n".join("    " + line for line in details.rstrip().splitlines()), flush=True)

    def run_program(self, program: Program) -> None:
        log = self.results / f"{program.suite}-{program.name}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                program.command,
                env={**self.environment, "TMPDIR": str(self.scratch), **program.environment},
                cwd=program.directory or self.root, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, text=True, start_new_session=True)
        timed_out = run_group(process, program.timeout_s)
        output = log.read_text(errors="replace")
        counts = judge_program(output, process.returncode)
        if process.returncode != 0:
            output += f"\nended with {describe_status(process.returncode)}"
        if timed_out:
            output += f"\ntimed out after {program.timeout_s} s"
            counts.failed = max(1, counts.failed)
        reports = self.take_reports() + end_orphans(ORPHANS_S)
        if reports and counts.failed == 0:
            counts.failed = 1
        self.show(program.suite, program.name, counts, "\n".join([output, *reports]))
        self.sum.add(counts)

    def build_module(self, *kernels: str) -> tuple[bool, str]:
        """Our module for kernels, which are fetched if need be. Whether that went well, and what
        was said."""
        log = self.results / f"module-build-{kernels[0]}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [self.root / "run", "module", *kernels], cwd=self.root, stdin=subprocess.DEVNULL,
                stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        timed_out = run_group(process, MODULE_TIMEOUT_S)
        output = log.read_text(errors="replace")
        if timed_out:
            output += f"\ntimed out after {MODULE_TIMEOUT_S} s"
        return process.returncode == 0 and not timed_out, output

    def have_module(self, suite: Suite) -> bool:
        """Builds what a suite needs of our module, once for each kernel; whether the suite can run.
        A failure counts as one of a test, success only where no tests were picked."""
        if not suite.module:
            return True
        if suite.module not in self.built:
            built, output = self.build_module(suite.module)
            self.built[suite.module] = built
            counts = Counts(passed=0 if self.match else 1) if built else Counts(failed=1)
            if counts.total():
                self.show("module", f"(build for {suite.module})", counts, output)
                self.sum.add(counts)
        return self.built[suite.module] or not suite.needs_module

    def skip(self, suite: Suite, reason: str) -> None:
        print(f"{suite.name}: SKIPPED: {reason}", flush=True)
        self.sum.add(Counts(skipped=1))

    def run_on_qemu(self, suites: list[Suite], kernels: list[str], full: bool) -> None:
        """Suites with these kernels under QEMU."""
        jobs: list[tuple[Suite, Suite, str]] = []
        for kernel in kernels:
            on_kernel = on_qemu(suites, kernel, full)
            if missing := self.test_bed_misses(kernel):
                for suite in on_kernel:
                    self.skip(suite, missing)
            else:
                jobs += [(suite, job, kernel) for suite, job in zip(suites, on_kernel)]
        # The longest first, or the last one would run alone for long. With one kernel some tests
        # run that run with no other.
        jobs.sort(key=lambda job: (job[2] == KERNELS[-1], job[0].needs_module,
                                   kernels.index(job[2])), reverse=True)
        if len(jobs) > 1:
            self.run_at_once([(job.name, self.alone(suite.name, job.name, "--vmm=qemu",
                                                    f"--kernel={kernel}",
                                                    *(["--full"] if full else [])))
                              for suite, job, kernel in jobs])
            return
        for _, job, _ in jobs:
            if self.have_module(job):
                self.run_pytest(job)

    def run_suites(self, suites: list[Suite]) -> None:
        """Suites with user-mode-linux, or without any guest."""
        suites = [suite for suite in suites if self.have_module(suite)]
        if len(suites) == 1:
            self.run_pytest(suites[0])
            return
        # Those with guests take longest, with our module more than with the kernel's.
        suites.sort(key=lambda suite: (suite.needs_module, suite.module), reverse=True)
        self.run_at_once([(suite.name, self.alone(suite.name, suite.name, "--no-programs",
                                                  f"--built={suite.module}"))
                          for suite in suites])

    def alone(self, suite: str, name: str, *options: str) -> list[str]:
        """The command that runs one suite in a process of its own, its results below `name`."""
        return [PYTHON, str(self.root / "tools" / "run_tests.py"), f"--build={self.build}",
                f"--results=results/{name}", *options, *(["-v"] if self.verbose else []),
                *(["-k", self.match] if self.match else []), suite]

    def test_bed_misses(self, kernel: str) -> str:
        """What of the test bed is not there although it was tried to make it, and why."""
        if not test_bed_lacks(kernel):
            return ""
        # QEMU comes with the kernels that are from the same release of Debian.
        _, output = self.build_module(*dict.fromkeys((kernel, "6.12")))
        missing = test_bed_lacks(kernel)
        last = ([line for line in output.splitlines() if line.strip()] or ["no word"])[-1]
        return missing and f"the test bed lacks {missing}: {last}"

    def run_at_once(self, jobs: list[tuple[str, list[str]]]) -> None:
        """Commands that close with a line of counts, each with a name; what it said, with standard
        error, is shown when it has ended."""
        waiting, running = list(jobs), {}
        shown = time.monotonic()
        try:
            while waiting or running:
                if sys.stdout.isatty() and time.monotonic() > shown + 1:
                    shown = time.monotonic()
                    print("  ".join(name + how_far(self.results / f"{name}.log")
                                    for name in running), end="\033[K\r", flush=True)
                while waiting and len(running) < (os.cpu_count() or 1) + MORE_AT_ONCE:
                    name, command = waiting.pop(0)
                    print(f"{name}: running", flush=True)
                    log = self.results / f"{name}.log"
                    with log.open("w") as file:
                        running[name] = subprocess.Popen(
                            command, cwd=self.root, stdin=subprocess.DEVNULL, stdout=file,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)
                ended = [name for name, process in running.items() if process.poll() is not None]
                for name in ended:
                    self.take_child(name, running.pop(name).returncode)
                if Interruption.number is not None:
                    raise Interrupted(Interruption.number)
                time.sleep(0 if ended else 0.05)
        finally:
            # Each has to end its own first.
            end_groups(list(running.values()), 2 * GRACE_S)
            end_orphans(0)

    def take_child(self, name: str, returncode: int) -> None:
        output = (self.results / f"{name}.log").read_text(errors="replace")
        counts = judge_child(output, returncode)
        lines = output.splitlines()
        if lines and COUNTS.fullmatch(lines[-1]):
            lines.pop()
        elif counts.failed:
            lines.append(f"{name}: ended with {describe_status(returncode)}, and no counts")
        print("\n".join(lines), flush=True)
        self.left_out += sum(int(number) for number in LEFT_OUT.findall(output))
        self.sum.add(counts)

    def run_pytest(self, suite: Suite) -> None:
        junit = self.results / f"{suite.name}.xml"
        command = [PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "--tb=short",
                   "-o", "junit_family=xunit1", "-r", "fEs", f"--rootdir={self.root}",
                   f"--junitxml={junit}", f"--basetemp={self.scratch}/{suite.name}",
                   "-v" if self.verbose else "-q", *suite.options]
        if self.match:
            command += ["-k", self.match]
        words = ["pytest", str(suite.folder.relative_to(self.root)), *suite.options]
        print(f"{suite.name}: {' '.join(words)}", flush=True)
        began, used = time.monotonic(), processor_seconds()
        process = subprocess.Popen(
            [*command, str(suite.folder)], env=self.environment, cwd=self.root,
            stdin=subprocess.DEVNULL, text=True, start_new_session=True)
        timed_out = run_group(process, suite.timeout_s)
        counts = judge_junit(junit, process.returncode)
        reports = self.take_reports() + end_orphans(ORPHANS_S)
        counts.failed += len(reports)
        if timed_out:
            reports.append(f"timed out after {suite.timeout_s} s")
            counts.failed = max(1, counts.failed)
        print(f"{suite.name}: took {time.monotonic() - began:.0f} s, and "
              f"{processor_seconds() - used:.0f} s of processors", flush=True)
        self.show(suite.name, "(all)", counts, "\n".join(reports))
        self.sum.add(counts)


def describe_status(returncode: int) -> str:
    if returncode < 0:
        return f"signal {signal.Signals(-returncode).name}"
    return f"exit status {returncode}"


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run test", description="runs the tests of a build")
    parser.add_argument("--build", type=Path, required=True, help="meson build directory")
    parser.add_argument("-k", dest="match", default="", metavar="EXPR",
                        help="only tests that match (pytest's -k; for C: part of the program name)")
    parser.add_argument("-v", dest="verbose", action="store_true", help="show each test")
    parser.add_argument("--vmm", choices=("uml", "qemu"), default="uml",
                        help="what runs the guests; with qemu only tests with guests run")
    parser.add_argument("--kernel", choices=KERNELS, default="",
                        help="the only kernel of guests under QEMU, instead of all")
    parser.add_argument("--full", action="store_true",
                        help="with QEMU: every test with every kernel, every guest booted")
    parser.add_argument("--results", default="results", help="a directory below that of the build")
    # For the processes of this program that run one suite each.
    parser.add_argument("--no-programs", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--built", default="", help=argparse.SUPPRESS)
    parser.add_argument("--list", action="store_true", help="name the suites and end")
    parser.add_argument("suites", nargs="*", metavar="SUITE")
    options = parser.parse_args(arguments)
    if options.kernel and options.vmm != "qemu":
        parser.error("--kernel goes with --vmm=qemu")
    if options.full and options.vmm != "qemu":
        parser.error("--full goes with --vmm=qemu")
    return options


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    root = Path(__file__).resolve().parent.parent
    build = options.build.resolve()
    with_programs = options.vmm != "qemu" and not options.no_programs
    programs = load_programs(build) if with_programs else []
    suites = python_suites(root)
    if options.vmm == "qemu":
        suites = [suite for suite in suites if on_qemu([suite], "")]
    known = sorted({program.suite for program in programs} | {suite.name for suite in suites})
    if options.list:
        print("\n".join(known))
        return 0
    if "unit" not in known and with_programs:
        print("run test: the build has no unit tests; is cmocka installed?", file=sys.stderr)
        return 1
    unknown = [name for name in options.suites if name not in known]
    if unknown:
        print(f"run test: no suite '{unknown[0]}'; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    wanted = options.suites or known
    suites = [suite for suite in suites if suite.name in wanted]

    with tempfile.TemporaryDirectory(prefix="aerostat-test-", ignore_cleanup_errors=True) as name:
        runner = Runner(root, build, Path(name), options.verbose, options.match, options.results,
                        options.built)
        for program in programs:
            if program.suite in wanted and options.match in program.name:
                runner.run_program(program)
        if options.vmm == "qemu":
            kernels = [options.kernel] if options.kernel else list(KERNELS)
            runner.run_on_qemu(suites, kernels, options.full)
        else:
            runner.run_suites(suites)

    if runner.left_out:
        print(f"left out: {runner.left_out} runs of tests with other kernels than "
              f"{KERNELS[-1]}, or with our driver, where these have no say; --full has them all",
              flush=True)
    status = 1 if runner.sum.failed else 0
    if runner.sum.total() == 0:
        print("run test: no test matched", file=sys.stderr)
        status = 2 if options.match else 1
    print(runner.sum, flush=True)
    return status


if __name__ == "__main__":
    adopt_orphans()
    Interruption.catch()
    try:
        sys.exit(main(sys.argv[1:]))
    except Interrupted as signalled:
        sys.exit(128 + signalled.args[0])
