# SPDX-License-Identifier: MIT
"""The command line, as QEMU's back-end program conventions and systemd expect it."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
from typing import Callable, Iterator

import pytest

from balloon import Guest
from process import Device, connects, run
from vhost_user import FrontEnd, wait_for


@pytest.fixture
def place() -> Iterator[str]:
    """A directory that must be as empty after the test as it was before."""
    with tempfile.TemporaryDirectory(prefix="balloon-test-") as path:
        yield path
        assert os.listdir(path) == []


def test_help_and_version() -> None:
    text = run("--help")
    assert text.returncode == 0 and text.stderr == ""
    for option in ("--socket-path", "--socket-group", "--fd", "--qmp", "--qmp-group", "--name",
                   "--state-dir", "--sandbox", "--features", "--target",
                   "--stats-push-interval", "--on-pressure",
                   "--pressure-steps", "--message-limit", "--health-factors",
                   "--print-capabilities", "--version", "--help"):
        assert f"{option}=" in text.stdout or f"{option} " in text.stdout, option
    assert "--worker" not in text.stdout
    version = run("--version")
    assert version.returncode == 0 and any(char.isdigit() for char in version.stdout)


@pytest.mark.parametrize("others", [[], ["--fd=99"], ["--socket-path=/nonexistent/x"]])
def test_print_capabilities(others: list[str]) -> None:
    """Other options are to be ignored."""
    for args in ([*others, "--print-capabilities"], ["--print-capabilities", *others]):
        done = run(*args)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["type"] == "balloon"
        assert isinstance(told["features"], list)
        assert all(isinstance(feature, str) for feature in told["features"])


NOT_TO_BE_HAD = {"--socket-path=/nonexistent/dir/sock", "--socket-path=/", "--fd=99", "--fd=0",
                 "--socket-path={}/" + "x" * 120, "--qmp=/nonexistent/dir/sock", "--qmp={}/s",
                 "--state-dir=/nonexistent/dir", "--state-dir=/dev/null", "--worker=99"}


@pytest.mark.parametrize("args", [
    [], ["--bogus"], ["positional"], ["--socket-path"], ["--socket-path="],
    ["--socket-path=/nonexistent/dir/sock"], ["--socket-path=/"], ["--socket-path={}/" + "x" * 120],
    ["--fd=99"], ["--fd=-1"], ["--fd=x"], ["--fd=0"], ["--fd=99999999999999999999"], ["--fd=1x"],
    ["--socket-path={}/s", "--fd=3"],
    ["--socket-path={}/s", "--qmp=/nonexistent/dir/sock"], ["--socket-path={}/s", "--qmp="],
    ["--socket-path={}/s", "--qmp={}/s"],
    ["--socket-path={}/s", "--features=bogus"], ["--socket-path={}/s", "--features=stats,,"],
    ["--socket-path={}/s", "--features=no-must-tell-host"],
    ["--socket-path={}/s", "--target=x"], ["--socket-path={}/s", "--target=-1"],
    ["--socket-path={}/s", "--target=1Q"], ["--socket-path={}/s", "--target="],
    ["--socket-path={}/s", "--target=99999999999999999999"],
    ["--socket-path={}/s", "--target=18014398509481984K"], ["--socket-path={}/s", "extra"],
    *(["--socket-path={}/s", option] for option in (
        "--qmp-group=0", "--state-dir=", "--state-dir=/nonexistent/dir", "--state-dir=/dev/null",
        "--sandbox=", "--sandbox=yes", "--sandbox=offf", "--sandbox", "--features=ranges",
        "--features=no-ranges", "--stats-push-interval=100", "--on-pressure=", "--on-pressure=x",
        "--on-pressure=Hold", "--pressure-steps=", "--pressure-steps=1M",
        "--pressure-steps=1M,2M", "--pressure-steps=1M,2M,3M,4M", "--pressure-steps=1M,,3M",
        "--pressure-steps=3M,2M,4M", "--pressure-steps=1M,3M,2M", "--pressure-steps=1M,2M,x",
        "--message-limit=", "--message-limit=-1", "--message-limit=x",
        "--message-limit=4294967296", "--health-factors=", "--health-factors=1.5",
        "--health-factors=1.5,", "--health-factors=,3", "--health-factors=0.5,3",
        "--health-factors=3,1.5", "--health-factors=1.5,3,4", "--health-factors=1.5,1001",
        "--health-factors=1.2345,3", "--health-factors=-1,3", "--health-factors=1e1,30",
        "--worker=99", "--worker=x")),
    *(["--socket-path={}/s", "--features=stats-push", f"--stats-push-interval={value}"]
      for value in ("", "x", "-1", "1.5", "100ms", "4294967296")),
    ["--socket-path={}/s", "--features=stats-push,no-stats", "--stats-push-interval=100"],
], ids=lambda args: " ".join(args)[:60] or "nothing")
def test_bad_options(place: str, args: list[str]) -> None:
    """One clear line, exit status 2, or 1 for what is right and cannot be had; nothing left
    behind."""
    done = run(*(arg.replace("{}", place) for arg in args))
    assert done.returncode == (1 if NOT_TO_BE_HAD & set(args) else 2)
    assert done.stdout == ""
    assert done.stderr.endswith("\n") and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("vhost-user-balloon: ")


@pytest.mark.parametrize("text,pages", [("1M", 256), ("1048576", 256), ("64K", 16), ("1G", 2**18),
                                        ("0", 0)])
def test_target_sizes(spawn: Callable[..., Device], text: str, pages: int) -> None:
    device = spawn(f"--target={text}")
    assert device.monitor().device()["target"] == pages * 4096


def test_sigterm_with_everything_open(spawn: Callable[..., Device]) -> None:
    for signum in (signal.SIGTERM, signal.SIGINT):
        device = spawn()
        device.monitor()
        guest = device.guest()
        guest.inflate(guest.some_pages(10))
        device.process.send_signal(signum)
        device.gone()
        device.kill()


def test_without_a_monitor(spawn: Callable[..., Device]) -> None:
    device = spawn(qmp=False)
    device.good_session()


def serve(where: str, device: Device) -> Guest:
    """A guest on a socket that is not the device's own path."""
    guest = Guest(where)
    device.open.append(guest)
    guest.start()
    guest.inflate(guest.some_pages(10))
    assert guest.freed() == 10 * 4096
    return guest


def test_fd_that_listens(spawn: Callable[..., Device]) -> None:
    """systemd's socket activation: the path is not ours to remove."""
    with tempfile.TemporaryDirectory(prefix="balloon-test-") as path:
        where = f"{path}/listen"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(where)
            sock.listen()
            device = spawn(fd=sock.fileno())
        for _ in range(2):
            device.close(serve(where, device))
        device.stop()
        assert os.path.exists(where)


def test_fd_that_is_connected(spawn: Callable[..., Device]) -> None:
    """One session; when it is over there is nothing left to serve."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        device = spawn(fd=theirs.fileno())
    fe = FrontEnd(ours)
    assert fe.alive()
    device.monitor().cmd("query-status")
    fe.close()
    device.close()
    device.gone()
    device.kill()


def test_socket_in_use(device: Device) -> None:
    """A running device keeps its sockets; the second one says so and removes nothing."""
    with tempfile.TemporaryDirectory(prefix="balloon-test-") as path:
        for args in ([f"--socket-path={device.sock}"],
                     [f"--socket-path={path}/s", f"--qmp={device.mon}"]):
            done = run(*args)
            assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert os.listdir(path) == []
    device.good_session()
    assert device.monitor().cmd("query-status")


def test_stale_socket(spawn: Callable[..., Device]) -> None:
    """What a killed process left behind does not stop the next one."""
    first = Device()
    first.process.kill()
    first.process.wait()
    assert os.path.exists(first.sock) and os.path.exists(first.mon)
    second = spawn(directory=first.dir)
    wait_for(lambda: connects(second.sock), "a socket that is listened on")
    second.good_session()


def test_file_in_the_way(place: str) -> None:
    """A file that is no socket is not ours to remove."""
    path = f"{place}/file"
    with open(path, "w", encoding="ascii") as file:
        file.write("precious")
    done = run(f"--socket-path={path}")
    assert done.returncode == 1
    with open(path, encoding="ascii") as file:
        assert file.read() == "precious"
    os.unlink(path)


def test_name(spawn: Callable[..., Device]) -> None:
    assert spawn("--name=web 1").monitor().cmd("query-status")
