# SPDX-License-Identifier: MIT
"""What the worker is kept from, seen from outside through /proc; and who may use the monitor."""

from __future__ import annotations

import grp
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Callable, Iterator

import pytest

from process import Device, run
from vhost_user import wait_for

Spawn = Callable[..., Device]
ROOT = os.geteuid() == 0
NAMESPACES = ("net", "mnt", "ipc", "uts")
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

as_root = pytest.mark.skipif(not ROOT, reason="what only root may look at, or do")


def status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return {key: value.strip() for key, value in (line.split(":", 1) for line in file)}


def descriptors(pid: int) -> list[str]:
    """What the process has open."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            pass
    return found


def busy(device: Device) -> None:
    """All that a worker has to do with: a guest, monitor clients, memory."""
    guest = device.guest()
    device.monitor().cmd("query-status")
    guest.inflate(guest.some_pages(20))


@pytest.fixture(name="worker", params=["first", "after-a-death", "after-an-upgrade"])
def any_worker(device: Device, request: pytest.FixtureRequest) -> int:
    """A worker at work; those that come later are confined as the first one is."""
    busy(device)
    first = device.worker()
    if request.param == "after-a-death":
        return device.replaced(device.kill_worker())
    if request.param == "after-an-upgrade":
        device.process.send_signal(signal.SIGHUP)
        return device.replaced(first)
    return first


def confined(pid: int) -> dict[str, str]:
    """A worker's status once it is in its sandbox."""
    return dict(wait_for(lambda: status(pid)["Seccomp"] == "2" and status(pid), "the sandbox"))


def test_no_privileges(worker: int) -> None:
    told = confined(worker)
    assert told["NoNewPrivs"] == "1"
    for name in CAPABILITIES[:3] + CAPABILITIES[4:]:
        assert int(told[name], 16) == 0, name
    assert told["Threads"] == "1"
    if ROOT:
        assert int(told["CapBnd"], 16) == 0
        assert "0" not in told["Uid"].split() and "0" not in told["Gid"].split()
        assert len(set(told["Uid"].split())) == len(set(told["Gid"].split())) == 1
        assert told["Groups"] == ""


@as_root
def test_no_files(device: Device, worker: int) -> None:
    """An empty root; or at least Landlock, which cannot be seen from here but in the log."""
    confined(worker)
    ours, theirs = os.stat("/"), os.stat(f"/proc/{worker}/root/")
    if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino):
        assert re.search(r"sandbox: .*Landlock \d", device.stderr())
        return
    assert os.listdir(f"/proc/{worker}/root/") == []
    assert os.listdir(f"/proc/{worker}/cwd/") == []
    assert theirs.st_mode & 0o222 == 0
    with pytest.raises(OSError):
        os.mkdir(f"/proc/{worker}/root/x")
    with open(f"/proc/{worker}/mounts", encoding="ascii") as file:
        assert len(file.readlines()) == 1


@as_root
def test_no_network(device: Device, worker: int) -> None:
    """Namespaces of its own, with nothing in them."""
    confined(worker)
    if "not network namespace" in device.stderr():
        pytest.skip("no namespaces here: seccomp alone keeps it from the network")
    for name in NAMESPACES:
        theirs, ours = (os.readlink(f"/proc/{pid}/ns/{name}") for pid in (worker, "self"))
        assert theirs != ours, name
    with open(f"/proc/{worker}/net/dev", encoding="ascii") as file:
        interfaces = [line.split(":")[0].strip() for line in file if ":" in line]
    assert interfaces == ["lo"]
    with open(f"/proc/{worker}/net/unix", encoding="ascii") as file:
        assert len(file.readlines()) == 1, "sockets in its network"
    with open(f"/proc/{worker}/net/route", encoding="ascii") as file:
        assert len(file.readlines()) <= 1  # with or without a headline


def test_limits(worker: int) -> None:
    confined(worker)
    with open(f"/proc/{worker}/limits", encoding="ascii") as file:
        limits = {line[:25].strip(): line[25:].split()[:2] for line in file}
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max processes"] == ["0", "0"]


@as_root
def test_others_of_its_user_cannot_look_in(worker: int) -> None:
    """Not dumpable: its files in /proc are root's."""
    confined(worker)
    assert os.stat(f"/proc/{worker}/mem").st_uid == 0
    looking = "import os, sys; os.open(f'/proc/{sys.argv[1]}/mem', os.O_RDONLY)"
    uid = int(status(worker)["Uid"].split()[0])
    done = subprocess.run([sys.executable, "-c", looking, str(worker)], user=uid, group=uid,
                          extra_groups=[], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode and "PermissionError" in done.stderr, done.stderr


ALLOWED = re.compile(r"/memfd:aerostat-\w+( \(deleted\))?|/memfd:protocol-test-ram( \(deleted\))?"
                     r"|socket:\[\d+\]|pipe:\[\d+\]|anon_inode:\[(eventfd|eventpoll)\]|/dev/null"
                     r"|.*/stderr")


def test_only_what_it_needs_is_open(spawn: Spawn, tmp_path: Path) -> None:
    """No folder, no file, none of the sockets that are listened on; nothing that the program
    itself was started with."""
    inherited = os.open(str(tmp_path), os.O_RDONLY)
    os.set_inheritable(inherited, True)
    ours, theirs = socket.socketpair()
    try:
        device = spawn(f"--state-dir={tmp_path}", "--target=1M")
        busy(device)
        found = descriptors(device.worker())
        assert not [name for name in found if not ALLOWED.fullmatch(name)]
        kinds = Counter(name.split(":")[0].split("/")[-1] for name in found)
        # The channel to the parent, the back-end channel, one monitor client.
        assert kinds["socket"] <= 3 and kinds["null"] <= 1 and kinds["pipe"] <= 4, kinds
        assert "/memfd:protocol-test-ram (deleted)" in found
    finally:
        os.close(inherited)
        ours.close()
        theirs.close()


def mappings(pid: int) -> list[tuple[str, str]]:
    """Permissions and names."""
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as file:
        parts = [line.split(maxsplit=5) for line in file]
    return [(part[1], part[5].strip() if len(part) > 5 else "") for part in parts]


def test_no_memory_is_writable_and_executable(device: Device, worker: int) -> None:
    confined(worker)
    wait_for(lambda: [m for m in mappings(worker)
                      if "protocol-test-ram" in m[1] and m[0] == "rw-s"], "guest memory")
    for pid in (worker, device.process.pid):
        assert not [m for m in mappings(pid) if "w" in m[0] and "x" in m[0]]


def test_the_parent_has_no_guest_memory(device: Device) -> None:
    """It keeps the descriptors and never looks in."""
    busy(device)
    assert not [m for m in mappings(device.process.pid) if "protocol-test-ram" in m[1]]
    assert any("protocol-test-ram" in name for name in descriptors(device.process.pid))


def test_the_log_says_what_is_in_force(device: Device) -> None:
    busy(device)
    device.replaced(device.kill_worker())
    device.close()
    device.good_session()
    lines = [line for line in device.stderr().splitlines() if "sandbox: " in line]
    assert len(lines) == 1, "once, not for each worker"
    for part in ("no new privileges", "no capabilities", "seccomp"):
        assert part in lines[0]


def test_the_worker_does_not_outlive_the_parent() -> None:
    """Not even one that can do nothing for it."""
    device = Device()
    try:
        busy(device)
        worker = device.worker()
        confined(worker)
        os.kill(worker, signal.SIGSTOP)
        device.process.kill()
        device.process.wait()
        wait_for(lambda: not os.path.exists(f"/proc/{worker}")
                 or status(worker)["State"].startswith("Z"), "the worker gone")
    finally:
        device.kill()


def test_sandbox_off(spawn: Spawn) -> None:
    """For debugging: it is as the one who started it, and works the same."""
    device = spawn("--sandbox=off")
    busy(device)
    for pid in device.pids():
        told, ours = status(pid), status(os.getpid())
        assert told["NoNewPrivs"] == ours["NoNewPrivs"] and told["Seccomp"] == ours["Seccomp"]
        assert told["Uid"] == ours["Uid"] and told["CapEff"] == ours["CapEff"]
        assert os.stat(f"/proc/{pid}/root/").st_ino == os.stat("/").st_ino
        for name in NAMESPACES:
            assert os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")
    device.replaced(device.kill_worker())
    device.close()
    device.good_session()
    assert "sandbox: " not in device.stderr()


@pytest.mark.skipif(ROOT, reason="for those who are not root")
def test_without_root(device: Device) -> None:
    """Most of it takes no privileges."""
    busy(device)
    told = confined(device.worker())
    assert told["NoNewPrivs"] == "1" and int(told["CapEff"], 16) == 0


# Who may use the monitor


@pytest.fixture(autouse=True)
def careless_umask() -> Iterator[None]:
    """Whatever the umask is, it does not decide who may connect."""
    old = os.umask(0)
    yield
    os.umask(old)


def mode(path: str) -> int:
    found = os.stat(path)
    assert stat.S_ISSOCK(found.st_mode)
    return stat.S_IMODE(found.st_mode)


def test_sockets_are_private(device: Device) -> None:
    assert mode(device.mon) == 0o600 and mode(device.sock) == 0o600


def some_group() -> grp.struct_group:
    """Another than the one that files get anyway, if there is one that we may give."""
    groups = grp.getgrall() if ROOT else [grp.getgrgid(gid) for gid in os.getgroups()]
    return next((g for g in groups if g.gr_gid not in (0, os.getegid())), groups[0])


@pytest.mark.parametrize("by", ["name", "number"])
def test_qmp_group(spawn: Spawn, by: str) -> None:
    group = some_group()
    device = spawn(f"--qmp-group={group.gr_name if by == 'name' else group.gr_gid}")
    assert mode(device.mon) == 0o660 and os.stat(device.mon).st_gid == group.gr_gid
    assert mode(device.sock) == 0o600, "the group is for the monitor"
    assert device.monitor().cmd("query-status")
    device.replaced(device.kill_worker())
    assert device.monitor().cmd("query-status")


@as_root
def test_who_can_connect(spawn: Spawn) -> None:
    """Tried by another user, with and without the group."""
    group = some_group().gr_gid
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"

    def can(path: str, *groups: int) -> bool:
        done = subprocess.run([sys.executable, "-c", connect, path], user=65534, group=65534,
                              extra_groups=groups, capture_output=True, text=True, check=False,
                              cwd="/")
        assert done.returncode == 0 or "PermissionError" in done.stderr, done.stderr
        return done.returncode == 0

    closed, shared = spawn(), spawn(f"--qmp-group={group}")
    served = spawn(f"--socket-group={group}")
    for device in (closed, shared, served):
        os.chmod(device.dir, 0o711)
        assert not can(device.sock) and can(device.sock, group) == (device is served)
        assert not can(device.mon) and can(device.mon, group) == (device is shared)


@pytest.mark.parametrize("group", ["no-such-group-here", "", "-1", "4294967295", "4294967296", "1x",
                                   "99999999999999999999"])
def test_no_such_group(tmp_path: Path, group: str) -> None:
    done = run(f"--socket-path={tmp_path}/s", f"--qmp={tmp_path}/q", f"--qmp-group={group}")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "--qmp-group" in done.stderr, done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(ROOT, reason="root may give files to any group")
def test_group_of_others(tmp_path: Path) -> None:
    other = next(g.gr_gid for g in grp.getgrall() if g.gr_gid not in os.getgroups())
    done = run(f"--socket-path={tmp_path}/s", f"--qmp={tmp_path}/q", f"--qmp-group={other}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []
