# SPDX-License-Identifier: MIT
"""--state-dir: what operators set is there again after a cold start, whatever the disk does."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from balloon import MIB, PUSH_INTERVAL, STATS_PUSH
from process import Device, run
from qmp import Client, QMPError
from vhost_user import wait_for

Spawn = Callable[..., Device]
NAME = "vhost-user-balloon.state"
ODD = "a b=c%25\n\"\\€ü\x7f/.."
MOST = "x" * 63  # the longest reason


def settings(client: Client) -> dict[str, Any]:
    """All that is to survive."""
    told = client.device()
    return {"target": told["target"], "inhibitors": told["inhibitors"],
            "push": told["stats-push-interval-ms"],
            "poll": client.get("guest-stats-polling-interval")}


def written(directory: Path, name: str = NAME) -> str:
    try:
        return (directory / name).read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def change(client: Client) -> None:
    client.set("guest-stats-polling-interval", 7)
    client.cmd("set-stats-push-interval", {"interval-ms": 250})
    for reason in ("vfio", ODD, MOST):
        client.cmd("balloon-inhibit", {"reason": reason})
    client.cmd("balloon-inhibit", {"reason": "gone"})
    client.cmd("balloon-uninhibit", {"reason": "gone"})


CHANGED = {"inhibitors": ["vfio", ODD, MOST], "push": 250, "poll": 7}


def ended(pid: int) -> bool:
    """Whoever inherits a dead process may take its time to bury it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def murdered(device: Device) -> None:
    """The parent is killed; its worker dies with it, and what it left is removed."""
    worker = device.worker()
    device.process.kill()
    device.process.wait()
    wait_for(lambda: ended(worker), "the worker gone")
    device.kill()


@pytest.mark.parametrize("end", ["kill", "terminate", "quit"])
def test_what_was_set_is_there_after_a_cold_start(spawn: Spawn, tmp_path: Path, end: str) -> None:
    args = (f"--state-dir={tmp_path}", "--features=stats-push")
    device = Device(*args) if end == "kill" else spawn(*args)
    guest = device.guest(extra=[STATS_PUSH])
    client = device.monitor()
    change(client)
    client.cmd("balloon", {"value": 5 * MIB})
    before = settings(client)
    assert before == {**CHANGED, "target": 3 * MIB}
    if end == "kill":
        wait_for(lambda: f"target={3 * MIB}\n" in written(tmp_path), "the file")
        murdered(device)
    elif end == "terminate":
        device.stop()
    else:
        client.cmd("quit")
        device.close()
        device.gone()
        device.kill()
    assert os.listdir(tmp_path) == [NAME]
    assert guest.fe.sock.fileno() < 0
    second = spawn(*args)
    client = second.monitor()
    guest = second.guest(extra=[STATS_PUSH])
    assert settings(client) == before
    assert guest.num_pages() == 3 * 256 and guest.config_field(PUSH_INTERVAL) == 250
    pages = guest.some_pages(20)
    guest.inflate(pages)
    assert guest.freed() == 0, "inhibitors have no effect"
    for reason in before["inhibitors"]:
        client.cmd("balloon-uninhibit", {"reason": reason})
    wait_for(lambda: guest.freed() == 20 * 4096, "what was kept")


def test_a_wish_that_waits_for_a_guest(spawn: Spawn, tmp_path: Path) -> None:
    """`balloon` before there is a driver: what the guest shall keep, whatever its size."""
    device = spawn(f"--state-dir={tmp_path}")
    device.monitor().cmd("balloon", {"value": 6 * MIB})
    device.stop()
    device = spawn(f"--state-dir={tmp_path}")
    guest = device.guest()
    assert guest.num_pages() == 2 * 256


def test_options_win(spawn: Spawn, tmp_path: Path) -> None:
    """... and are what the next start finds."""
    features = "--features=stats-push"
    device = spawn(f"--state-dir={tmp_path}", features, "--target=1M")
    change(device.monitor())
    device.stop()
    device = spawn(f"--state-dir={tmp_path}", features, "--target=3M", "--stats-push-interval=40")
    expected = {**CHANGED, "target": 3 * MIB, "push": 40}
    assert settings(device.monitor()) == expected
    device.stop()
    device = spawn(f"--state-dir={tmp_path}", features)
    assert settings(device.monitor()) == expected
    device.stop()
    device = spawn(f"--state-dir={tmp_path}", features, "--target=0", "--stats-push-interval=0")
    assert settings(device.monitor()) == {**CHANGED, "target": 0, "push": 0}


def test_nothing_is_written_that_was_not_set(spawn: Spawn, tmp_path: Path) -> None:
    device = spawn(f"--state-dir={tmp_path}")
    device.good_session()
    device.stop()
    assert os.listdir(tmp_path) == []


def test_names_have_files_of_their_own(spawn: Spawn, tmp_path: Path) -> None:
    names = ["web", "web/1", "..", "€ %2F", "web%2F1", ""]
    place = tmp_path / "state"
    place.mkdir()
    for number, name in enumerate(names):
        device = spawn(f"--state-dir={place}", f"--name={name}", f"--target={number + 1}M")
        device.stop()
    assert len(os.listdir(place)) == len(names)
    assert os.listdir(tmp_path) == ["state"], "written elsewhere"
    for number, name in enumerate(names):
        device = spawn(f"--state-dir={place}", f"--name={name}")
        assert device.monitor().device()["target"] == (number + 1) * MIB
        device.stop()


def test_the_file_is_private(spawn: Spawn, tmp_path: Path) -> None:
    spawn(f"--state-dir={tmp_path}", "--target=1M").stop()
    assert (tmp_path / NAME).stat().st_mode & 0o7777 == 0o600


# What is found there


@pytest.fixture(name="sample", scope="module")
def sample_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is in a good file."""
    place = tmp_path_factory.mktemp("sample")
    device = Device(f"--state-dir={place}", "--features=stats-push", "--target=2M")
    try:
        change(device.monitor())
        wait_for(lambda: MOST in written(place) and "gone" not in written(place), "the file")
    finally:
        device.kill()
    return written(place)


def starts_without(spawn: Spawn, directory: Path, content: bytes, name: str = NAME) -> None:
    """The file is not used, but kept under another name, with a word in the log."""
    (directory / name).write_bytes(content)
    device = spawn(f"--state-dir={directory}", "--features=stats-push", "--target=1M")
    assert settings(device.monitor()) == {"target": MIB, "inhibitors": [], "push": 0, "poll": 0}
    assert NAME + ".bad" in device.stderr() and device.stderr().count("--state-dir") == 1
    assert (directory / (name + ".bad")).read_bytes() == content
    device.stop()
    assert written(directory).count(f"target={MIB}\n") == 1, "not written anew"
    assert sorted(os.listdir(directory)) == [NAME, NAME + ".bad"]


def test_cut_after_any_line(spawn: Spawn, tmp_path: Path, sample: str) -> None:
    """Less than all of it is nothing: half of the inhibitors would be the worst."""
    lines = sample.splitlines(keepends=True)
    assert len(lines) > 6
    for count in range(len(lines)):
        starts_without(spawn, tmp_path, "".join(lines[:count]).encode())
    starts_without(spawn, tmp_path, sample[:-1].encode())
    starts_without(spawn, tmp_path, sample[:-9].encode())


FOREIGN = {
    "empty": b"", "binary": bytes(range(256)), "zeros": bytes(4096), "newlines": b"\n" * 100,
    "json": b'{"target": 1}\n', "huge-line": b"version=1" + b"1" * 60000 + b"\n",
    "version-2": b"version=2\n", "version-10": b"version=10\n",
}


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_foreign(spawn: Spawn, tmp_path: Path, kind: str) -> None:
    starts_without(spawn, tmp_path, FOREIGN[kind])


@pytest.mark.parametrize("old,new", [
    ("target=", "target=-"), ("target=", "target=9999999999999999999999"), ("\n", "\r\n"),
    ("=7000", "=7000 "), ("=250", "=99999999999"), ("=vfio", "="), ("=vfio", "=" + "v" * 64),
    ("=vfio", "=v%00"), ("=vfio", "=" + MOST), ("inhibitors=3", "inhibitors=2"),
    ("version=1\n", "version=1\ntarget=5\n"), ("version=1\n", "version=1\nfuture=5\n")])
def test_damaged(spawn: Spawn, tmp_path: Path, sample: str, old: str, new: str) -> None:
    assert old in sample
    starts_without(spawn, tmp_path, sample.replace(old, new).encode())


def test_so_large_that_it_is_none(spawn: Spawn, tmp_path: Path) -> None:
    with (tmp_path / NAME).open("wb") as file:
        file.truncate(1 << 40)
    device = spawn(f"--state-dir={tmp_path}")
    assert device.monitor().device()["target"] == 0
    assert (tmp_path / (NAME + ".bad")).stat().st_size == 1 << 40


def refused(directory: Path | str, *args: str) -> str:
    """The program does not start, says why in one line, and leaves nothing behind."""
    sock = os.path.join("/tmp", f"balloon-test-{os.getpid()}.sock")
    done = run(f"--socket-path={sock}", f"--state-dir={directory}", *args)
    assert done.returncode == (1 if directory else 2) and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "--state-dir" in done.stderr, done.stderr
    assert not os.path.exists(sock)
    return done.stderr


def test_directories_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "No such file" in refused(tmp_path / "absent")
    assert "Not a directory" in refused(tmp_path / "file")
    assert "empty" in refused("")
    assert refused(tmp_path / ("n" * 300))
    assert "name" in refused(tmp_path, "--name=" + "n" * 300)
    assert sorted(os.listdir(tmp_path)) == ["file"]


@pytest.mark.parametrize("kind", ["directory", "symlink", "socket", "unreadable"])
def test_files_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    """Going on without would lose what is there when the first change is saved."""
    path = tmp_path / NAME
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to("/etc/passwd")
    elif kind == "socket":
        os.mknod(path, 0o140600)
    else:
        path.write_text("version=1\n")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("root may read everything")
    assert NAME in refused(tmp_path)
    assert os.listdir(tmp_path) == [NAME]


def test_a_pipe_is_not_waited_for(spawn: Spawn, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / NAME)
    device = spawn(f"--state-dir={tmp_path}", "--target=1M")
    device.stop()
    assert written(tmp_path).startswith("version=1\n")


def test_what_a_crash_has_left(spawn: Spawn, tmp_path: Path) -> None:
    """A file that was being written, or whatever stands under its name."""
    (tmp_path / (NAME + ".new")).write_text("half of it")
    device = spawn(f"--state-dir={tmp_path}", "--target=1M")
    device.stop()
    assert os.listdir(tmp_path) == [NAME]
    (tmp_path / (NAME + ".new")).symlink_to("/dev/full")
    spawn(f"--state-dir={tmp_path}", "--target=2M").stop()
    assert os.listdir(tmp_path) == [NAME] and f"target={2 * MIB}\n" in written(tmp_path)


# Disks that are full or cannot be written to


@pytest.fixture(name="disk")
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", place],
                          capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting is not permitted")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_17_full_disk(disk: Path, spawn: Spawn) -> None:
    """threats.md 17: the old file stays, whole; the device goes on and says so once; and when
    there is room again, what is set then is written."""
    device = spawn(f"--state-dir={disk}", "--target=1M")
    client = device.monitor()
    wait_for(lambda: written(disk), "the file")
    old = written(disk)
    with (disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(1024))
    for n in range(1, 5):
        client.set("guest-stats-polling-interval", n)
    wait_for(lambda: "cannot write" in device.stderr(), "a word in the log")
    device.good_session()
    assert written(disk) == old and sorted(os.listdir(disk)) == ["ballast", NAME]
    assert device.stderr().count("cannot write") == 1
    (disk / "ballast").unlink()
    client.set("guest-stats-polling-interval", 9)
    wait_for(lambda: "poll-interval-ms=9000" in written(disk), "the new file")
    wait_for(lambda: "written again" in device.stderr(), "a word in the log")
    device.stop()
    assert os.listdir(disk) == [NAME]


def test_17_full_disk_at_the_end(disk: Path, spawn: Spawn) -> None:
    """What could not be saved is tried once more; the end is orderly all the same."""
    device = spawn(f"--state-dir={disk}", "--target=1M")
    wait_for(lambda: written(disk), "the file")
    old = written(disk)
    (disk / "ballast").write_bytes(bytes(12288))
    device.monitor().set("guest-stats-polling-interval", 3)
    wait_for(lambda: "cannot write" in device.stderr(), "a word in the log")
    device.stop()
    assert written(disk) == old


def test_17_disk_without_files_left(disk: Path, spawn: Spawn) -> None:
    subprocess.run(["mount", "-o", "remount,nr_inodes=2", disk], check=True)
    device = spawn(f"--state-dir={disk}", "--target=1M")
    wait_for(lambda: written(disk), "the file")
    device.monitor().set("guest-stats-polling-interval", 3)
    wait_for(lambda: "cannot write" in device.stderr(), "a word in the log")
    device.stop()
    assert "poll-interval-ms=0\n" in written(disk)


def test_read_only_directory(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert "Read-only" in refused(disk)


def test_disk_that_becomes_read_only(disk: Path, spawn: Spawn) -> None:
    device = spawn(f"--state-dir={disk}", "--target=1M")
    wait_for(lambda: written(disk), "the file")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    device.monitor().set("guest-stats-polling-interval", 3)
    wait_for(lambda: "cannot write" in device.stderr(), "a word in the log")
    device.good_session()


def test_directory_that_is_removed(spawn: Spawn, tmp_path: Path) -> None:
    """The device does not depend on it."""
    place = tmp_path / "state"
    place.mkdir()
    device = spawn(f"--state-dir={place}")
    place.rmdir()
    device.monitor().set("guest-stats-polling-interval", 3)
    wait_for(lambda: "cannot write" in device.stderr(), "a word in the log")
    device.good_session()


# Ends at any moment


def parse(text: str) -> dict[str, list[str]]:
    """What a reader that trusts nothing makes of the file: all of it, or it is torn."""
    assert text.startswith("version=1\n") and text.endswith("\n"), text
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, value = line.split("=", 1)
        found.setdefault(key, []).append(value)
    assert set(found) - {"inhibitor"} == {
        "version", "target", "guest-size", "stats-poll-interval-ms", "stats-push-interval-ms",
        "inhibitors"}
    assert [int(n) for n in found["inhibitors"]] == [len(found.get("inhibitor", []))]
    return found


def keep_changing(client: Client, done: list[int]) -> None:
    """Sets one value after another, each once more than the last, until the end."""
    try:
        number = done[0]
        while True:
            number += 1
            client.set("guest-stats-polling-interval", number)
            done[0] = number
    except (EOFError, ConnectionError, TimeoutError, QMPError, AssertionError):
        pass


def test_16_killed_at_any_moment(tmp_path: Path) -> None:
    """threats.md 16: the file is one that was to be written, never less or a mixture; and the next
    start begins with it."""
    dice = random.Random(7)
    last = [0]
    seen = set()
    for _ in range(14):
        device = Device(f"--state-dir={tmp_path}")
        try:
            client = device.monitor()
            found = client.get("guest-stats-polling-interval")
            assert found == (int(parse(written(tmp_path))["stats-poll-interval-ms"][0]) // 1000
                             if written(tmp_path) else 0)
            last[0] = max(last[0], found)
            for n in range(dice.randrange(4)):
                reason = dice.choice(["a", "b", "c"])
                verb = "un" * (reason in client.device()["inhibitors"])
                client.cmd(f"balloon-{verb}inhibit", {"reason": reason})
            thread = threading.Thread(target=keep_changing, args=(client, last))
            thread.start()
            wait_for(lambda: last[0] > found + dice.randrange(20), "changes")
            thread.join(dice.uniform(0, 0.03))
            device.process.send_signal(signal.SIGKILL)
            thread.join(20)
            assert not thread.is_alive()
            assert "makes no sense" not in device.stderr()
        finally:
            device.kill()
        text = written(tmp_path)
        if text:
            number = int(parse(text)["stats-poll-interval-ms"][0]) // 1000
            assert number <= last[0] + 1, "from the future"
            seen.add(text)
        assert set(os.listdir(tmp_path)) <= {NAME, NAME + ".new"}
    assert len(seen) > 5, "hardly anything was written"


def test_the_last_change_is_written(spawn: Spawn, tmp_path: Path) -> None:
    """However many there were in a moment."""
    device = spawn(f"--state-dir={tmp_path}")
    client = device.monitor()
    for number in range(1, 301):
        client.set("guest-stats-polling-interval", number)
    wait_for(lambda: "poll-interval-ms=300000\n" in written(tmp_path), "the last one")
    for number in range(16):
        client.cmd("balloon-inhibit", {"reason": f"{number}" + "€" * 20})
    device.process.terminate()
    device.close()
    device.gone()
    device.kill()
    assert len(parse(written(tmp_path))["inhibitor"]) == 16


def test_a_worker_that_dies_changes_nothing(spawn: Spawn, tmp_path: Path) -> None:
    device = spawn(f"--state-dir={tmp_path}", "--features=stats-push", "--target=1M")
    change(device.monitor())
    before = settings(device.monitor())
    device.close()
    wait_for(lambda: MOST in written(tmp_path) and "gone" not in written(tmp_path), "the file")
    text = written(tmp_path)
    for _ in range(3):
        device.replaced(device.kill_worker())
    assert settings(device.monitor()) == before
    assert written(tmp_path) == text

