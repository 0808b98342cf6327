# SPDX-License-Identifier: MIT
"""run_tests.py must never count a crash, a hang or a report as success."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import descendants
import run_tests
from run_tests import (Counts, Program, Runner, Suite, judge_child, judge_junit, judge_program,
                       on_qemu, parse_tap, python_suites)

CMOCKA = """\
1..4
ok 1 - a
not ok 2 - b
# 0x1 != 0x2
not ok 3 # SKIP c
ok 4 - d
# not ok - group
1..1
ok 1 - e
# ok - second
"""


def test_tap_as_cmocka_writes_it() -> None:
    assert parse_tap(CMOCKA) == (Counts(3, 1, 1), 0)


def test_tap_group_set_up_that_failed() -> None:
    text = "1..2\nnot ok 0 - second [  FAILED  ] GROUP SETUP\n# ok - second\n"
    assert judge_program(text, 1) == Counts(failed=2)


@pytest.mark.parametrize("text, status, expected", [
    ("1..3\nok 1 - a\n", -11, Counts(1, 2, 0)),
    ("1..3\nok 1 - a\n", 0, Counts(1, 2, 0)),
    ("1..1\nok 1 - a\n", 0, Counts(1, 0, 0)),
    ("1..1\nok 1 - a\n", 1, Counts(1, 1, 0)),  # a leak found at the end
    ("", 0, Counts(1, 0, 0)),
    ("", 1, Counts(0, 1, 0)),
    ("", -6, Counts(0, 1, 0)),
    ("", 77, Counts(0, 0, 1)),
])
def test_judging_a_program(text: str, status: int, expected: Counts) -> None:
    assert judge_program(text, status) == expected


@pytest.mark.parametrize("attributes, status, expected", [
    ('tests="5" failures="1" errors="1" skipped="1"', 1, Counts(2, 2, 1)),
    ('tests="5" failures="0" errors="0" skipped="0"', 0, Counts(5, 0, 0)),
    ('tests="5" failures="0" errors="0" skipped="0"', 2, Counts(5, 1, 0)),  # interrupted
    ('tests="0" failures="0" errors="0" skipped="0"', 5, Counts(0, 0, 0)),  # nothing matched
])
def test_judging_a_suite(tmp_path: Path, attributes: str, status: int, expected: Counts) -> None:
    path = tmp_path / "junit.xml"
    path.write_text(f"<testsuites><testsuite {attributes}/></testsuites>")
    assert judge_junit(path, status) == expected


def test_suite_without_a_readable_report(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    assert judge_junit(path, 0) == Counts(failed=1)
    path.write_text("<testsuites><tests")
    assert judge_junit(path, 0) == Counts(failed=1)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_tests, "GRACE_S", 1)
    monkeypatch.setattr(run_tests, "ORPHANS_S", 0.5)


def run_script(tmp_path: Path, script: str, timeout_s: int = 20) -> Runner:
    runner = Runner(tmp_path, tmp_path, tmp_path, verbose=False, match="")
    runner.run_program(Program("script", "unit", ["/bin/sh", "-c", script], {}, None, timeout_s))
    return runner


def test_program_in_tap(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runner = run_script(tmp_path, f"cat <<'END'\n{CMOCKA}END\nexit 1")
    assert runner.sum == Counts(3, 1, 1)
    output = capfd.readouterr().out
    assert "not ok 2 - b" in output and "ended with exit status 1" in output


def test_program_that_hangs_ends_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    runner = run_script(tmp_path, f"sleep 60 & echo $! >{pid_file}; wait", timeout_s=1)
    assert runner.sum == Counts(failed=1)
    assert gone(int(pid_file.read_text()))


def test_report_of_a_child_that_nobody_waited_for(tmp_path: Path) -> None:
    script = 'for o in $(echo "$ASAN_OPTIONS" | tr : " "); do case $o in log_path=*) ' \
             'eval "path=${o#log_path=}";; esac; done; echo leaked >$path.123'
    runner = run_script(tmp_path, script)
    assert runner.sum.failed == 1
    assert runner.take_reports() == []


def gone(pid: int) -> bool:
    """True when the process has ended, which may take the kernel a moment."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def drive(tmp_path: Path, script: str, after: str) -> "subprocess.Popen[str]":
    """Another process that runs a shell script as a test program, as run_tests.py itself does."""
    text = (
        "from pathlib import Path\n"
        "import descendants, run_tests\n"
        "descendants.adopt_orphans()\n"
        "run_tests.ORPHANS_S = 0.5\n"
        "descendants.Interruption.catch()\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "runner = run_tests.Runner(folder, folder, folder, False, '')\n"
        f"command = ['/bin/sh', '-c', {script!r}]\n"
        "program = run_tests.Program('script', 'unit', command, {}, None, 60)\n"
        f"try:\n    runner.run_program(program)\n{after}\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent)}
    return subprocess.Popen([sys.executable, "-c", text], env=environment, text=True,
                            stdout=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("start", ["", "setsid "])
def test_interrupt_ends_the_children(tmp_path: Path, number: signal.Signals, start: str) -> None:
    pid_file = tmp_path / "pid"
    script = f"{start}sh -c 'echo $$ >{pid_file}; sleep 60' & wait"
    process = drive(tmp_path, script, "except descendants.Interrupted:\n    raise SystemExit(3)")
    try:
        deadline = time.monotonic() + 20
        while not (pid_file.exists() and pid_file.read_text().strip()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=20) == 3
    finally:
        process.kill()
        process.communicate()
    assert gone(int(pid_file.read_text()))


def test_what_a_test_leaves_running_is_a_failure(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"setsid sh -c 'echo $$ >{pid_file}; exec sleep 60' >/dev/null 2>&1 & sleep 0.5"
    process = drive(tmp_path, script, "finally:\n    print(runner.sum)")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "left running: sleep 60" in output
    assert output.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"
    assert gone(int(pid_file.read_text()))


def runner_with_run(tmp_path: Path, run: str, match: str = "") -> Runner:
    """A tree whose `./run` is this script."""
    script = tmp_path / "run"
    script.write_text(f"#!/bin/sh\n{run}\n")
    script.chmod(0o755)
    folder = tmp_path / "tests" / "guest"
    folder.mkdir(parents=True)
    (folder / "conftest.py").write_text(
        "def pytest_addoption(parser):\n"
        "    for name in ('--driver', '--vmm', '--kernel'):\n"
        "        parser.addoption(name, default='')\n")
    (folder / "test_options.py").write_text(
        "def test_options(request):\n"
        "    print('OPTIONS', *(request.config.getoption(n) for n in"
        " ('--driver', '--vmm', '--kernel')))\n"
        "    assert request.config.getoption('--kernel') != '7.2'\n")
    (tmp_path / "tools").mkdir()
    for module in (run_tests, descendants):
        shutil.copy(module.__file__, tmp_path / "tools")
    return Runner(tmp_path, tmp_path / "build", tmp_path, verbose=False, match=match)


def test_guest_tests_run_with_either_driver(tmp_path: Path) -> None:
    runner_with_run(tmp_path, "exit 0")
    suites = {suite.name: suite for suite in python_suites(tmp_path)}
    assert list(suites) == ["guest", "module"]
    assert suites["guest"].options == () and not suites["guest"].needs_module
    assert suites["module"].options == ("--driver=aerostat",) and suites["module"].needs_module
    assert {suite.module for suite in suites.values()} == {"uml"}
    on_seven = on_qemu([*suites.values(), Suite("tools", tmp_path)], "7.2")
    assert [(suite.name, suite.module) for suite in on_seven] == [("guest-7.2", ""),
                                                                  ("module-7.2", "7.2")]


def test_module_that_does_not_build(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runner = runner_with_run(tmp_path, 'echo "$1 $2: no such function"; exit 2')
    guest, module = python_suites(tmp_path)
    assert runner.have_module(guest) and not runner.have_module(module)
    assert runner.sum == Counts(failed=1)
    assert capfd.readouterr().out.count("module uml: no such function") == 1


@pytest.mark.parametrize("match, passed", [("", 1), ("something", 0)])
def test_module_that_builds(tmp_path: Path, match: str, passed: int) -> None:
    """It is one test, but not one that `-k` has found: nothing found has to be told."""
    runner = runner_with_run(tmp_path, "exit 0", match)
    assert all(runner.have_module(suite) for suite in python_suites(tmp_path))
    assert runner.sum == Counts(passed=passed)


def test_suites_run_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The module is built once for both, and nobody but who starts them runs C programs."""
    runner = runner_with_run(tmp_path, f"echo built >>{tmp_path}/builds")
    suites = python_suites(tmp_path)
    runner.run_suites(suites)
    assert (tmp_path / "builds").read_text() == "built\n"
    assert runner.sum == Counts(passed=3)
    lines = capfd.readouterr().out.splitlines()
    assert lines[1:3] == ["module: running", "guest: running"]
    runner.run_suites(suites[:1])
    lines = capfd.readouterr().out.splitlines()
    assert "guest: running" not in lines and runner.sum == Counts(passed=4)


@pytest.mark.parametrize("text, expected", [
    ("", ""),
    ("guest: pytest tests/guest\n...    [ 70%]\n.....  [100%]\n3 passed", " 100 %"),
    ("...    [  7%]\n....", " 7 %"),
    ("fell by [ 70%] and more\n", ""),
])
def test_how_far_a_suite_is(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "log").write_text(text)
    assert run_tests.how_far(tmp_path / "log") == expected


def test_no_test_bed_is_said_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AEROSTAT_CACHE", str(tmp_path / "cache"))
    runner = runner_with_run(tmp_path, "echo fetching; echo run: 6.12: needs root; exit 1")
    runner.run_on_qemu(python_suites(tmp_path), ["6.12"], full=False)
    assert runner.sum == Counts(skipped=2)
    output = capfd.readouterr().out.splitlines()
    assert output == [f"{name}-6.12: SKIPPED: the test bed lacks 6.12, qemu: run: 6.12: needs root"
                      for name in ("guest", "module")]


def test_test_bed_is_made_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                     capfd: pytest.CaptureFixture[str]) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("AEROSTAT_CACHE", str(cache))
    runner = runner_with_run(
        tmp_path, f"""echo '{{"6.12": {{}}, "7.2": {{}}, "qemu": {{}}}}' >{cache}/kernels.json""")
    runner.run_on_qemu(python_suites(tmp_path), ["6.1", "6.12", "7.2"], full=False)
    # Twice the one test on each kernel, two builds; with 7.2 the test fails. 6.1 is not to be had.
    assert runner.sum == Counts(4, 2, 2)
    output = capfd.readouterr().out
    assert "module-6.1: SKIPPED: the test bed lacks 6.1" in output
    assert "OPTIONS aerostat qemu 7.2" in output and "OPTIONS aerostat qemu 6.12" not in output
    # Each suite's output is in one piece, and whoever shows it has the last word on counts.
    lines = [line for line in output.splitlines() if line.startswith("guest-6.12")]
    assert len(lines) == 4 and lines[-1].endswith("1 passed, 0 failed, 0 skipped")
    assert re.fullmatch(r"guest-6.12: took \d+ s, and \d+ s of processors", lines[-2])
    assert "\n1 passed, 0 failed, 0 skipped\n" not in output


@pytest.mark.parametrize("output, status, expected", [
    ("all is well\n3 passed, 0 failed, 1 skipped\n", 0, Counts(3, 0, 1)),
    ("3 passed, 1 failed, 0 skipped\n", 1, Counts(3, 1, 0)),
    ("3 passed, 0 failed, 0 skipped\n", 1, Counts(3, 1, 0)),
    ("0 passed, 0 failed, 0 skipped\n", 2, Counts()),  # -k found nothing there
    ("3 passed, 0 failed, 0 skipped\nTraceback\n", 0, Counts(failed=1)),
    ("", -9, Counts(failed=1)),
])
def test_judging_a_suite_of_another_process(output: str, status: int, expected: Counts) -> None:
    assert judge_child(output, status) == expected


def test_suites_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                        capfd: pytest.CaptureFixture[str]) -> None:
    """No more than processors and one, in order, and none is lost."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    runner = Runner(tmp_path, tmp_path / "build", tmp_path, verbose=False, match="")
    # Either of the first two ends only when the other runs.
    meets = "touch {0}; until [ -e {1} ]; do sleep 0.02; done; echo {0} met; echo {2}"
    right, wrong = "2 passed, 0 failed, 0 skipped", "1 passed, 1 failed, 0 skipped"
    left_out = f"echo 'left out: 7 tests'; echo {right}"
    runner.run_at_once([("a", ["/bin/sh", "-c", meets.format("a", "b", right)]),
                        ("b", ["/bin/sh", "-c", meets.format("b", "a", wrong)]),
                        ("dies", ["/bin/sh", "-c", "echo dying; kill -9 $$"]),
                        ("last", ["/bin/sh", "-c", left_out])])
    assert runner.sum == Counts(5, 2, 0) and runner.left_out == 7
    lines = capfd.readouterr().out.splitlines()
    assert lines[:2] == ["a: running", "b: running"] and {"a met", "b met"} <= set(lines)
    assert lines.index("a met") < lines.index("last: running")
    assert "dies: ended with signal SIGKILL, and no counts" in lines
    assert right not in lines and wrong not in lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_suites_at_once(tmp_path: Path, number: signal.Signals) -> None:
    pids = [tmp_path / name for name in ("one", "two")]
    jobs = [(path.name, ["/bin/sh", "-c", f"setsid sh -c 'echo $$ >{path}; sleep 60' & wait"])
            for path in pids]
    text = ("from pathlib import Path\nimport os, descendants, run_tests\n"
            "descendants.adopt_orphans()\ndescendants.Interruption.catch()\n"
            "os.cpu_count = lambda: 2\n"
            f"folder = Path({str(tmp_path)!r})\n"
            "runner = run_tests.Runner(folder, folder, folder, False, '')\n"
            f"try:\n    runner.run_at_once({jobs!r})\n"
            "except descendants.Interrupted:\n    raise SystemExit(3)\n")
    process = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent)})
    try:
        deadline = time.monotonic() + 20
        while not all(path.exists() and path.read_text().strip() for path in pids):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=20) == 3
    finally:
        process.kill()
        process.wait()
    assert all(gone(int(path.read_text())) for path in pids)


def test_whose_parent_ended_does_not_stay_a_zombie(tmp_path: Path) -> None:
    """Who waits until a process is gone, and is not its parent, waits for us to take its status."""
    script = ("import os, pathlib, time\n"
              "first = os.fork()\n"
              "if first == 0:\n"
              "    second = os.fork()\n"
              "    if second == 0:\n"
              "        time.sleep(0.1)\n"
              "        os._exit(0)\n"
              f"    pathlib.Path('{tmp_path}/pid').write_text(str(second))\n"
              "    os._exit(0)\n"
              "os.waitpid(first, 0)\n"
              f"pid = pathlib.Path('{tmp_path}/pid').read_text()\n"
              "end = time.monotonic() + 10\n"
              "while os.path.exists('/proc/' + pid):\n"
              "    if time.monotonic() > end: os._exit(1)\n"
              "    time.sleep(0.05)\n")
    code = ("import subprocess, sys\nimport descendants\ndescendants.adopt_orphans()\n"
            f"process = subprocess.Popen([sys.executable, '-c', {script!r}], text=True)\n"
            "assert descendants.wait_for(process, 20, heed_signals=False)\n"
            "sys.exit(process.returncode)\n")
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False)
    assert done.returncode == 0
