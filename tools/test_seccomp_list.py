# SPDX-License-Identifier: MIT
"""seccomp-list: what it understands, what it refuses, and whether our sources say all they call."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GENERATOR = ROOT / "tools" / "seccomp-list"
FOLDERS = ["lib/discard", "lib/vhost_user", "src/common", "src/vhost-user-balloon"]


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([GENERATOR, *arguments], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def generate(folder: Path, **sources: str) -> tuple[int, list[str], str]:
    """The list's lines but for its head and where they come from; what is said of errors."""
    (folder / "src").mkdir()
    for name, text in sources.items():
        (folder / "src" / f"{name}.c").write_text(text)
    status, output, errors = run(folder, "--output", "list.inc", "src")
    assert output == ""
    if status:
        assert not (folder / "list.inc").exists()
        return status, [], errors
    lines = (folder / "list.inc").read_text().split("\n")
    assert lines.pop() == ""
    return status, [line.split(" /*")[0] for line in lines[2:]], errors


@pytest.mark.parametrize("text, expected", [
    ("/* seccomp: read */", ["ALLOW(read)"]),
    ("// seccomp: read\n", ["ALLOW(read)"]),
    ("call(); /* seccomp: write read */", ["ALLOW(read)", "ALLOW(write)"]),
    ("/*\n * Why.\n * seccomp: read\n * seccomp: write\n */", ["ALLOW(read)", "ALLOW(write)"]),
    ("/* seccomp: read */ /* seccomp: read */", ["ALLOW(read)"]),
    ("/* seccomp: read */ /* seccomp-kill: execve */", ["KILL(execve)", "ALLOW(read)"]),
    ("/* seccomp: read */ /* seccomp-before: open socket */", ["ALLOW(read)"]),
    ("/* seccomp: madvise(2 == MADV_REMOVE) */", ["ALLOW_IF(madvise, 2, UINT32_MAX, MADV_REMOVE)"]),
    ("/* seccomp: fallocate(1 == A | B) read */",
     ["ALLOW_IF(fallocate, 1, UINT32_MAX, A | B)", "ALLOW(read)"]),
    ("/* seccomp: mmap(2 & PROT_EXEC == 0) */", ["ALLOW_IF(mmap, 2, PROT_EXEC, 0)"]),
    ("/* seccomp: tgkill(0 == (uint32_t)getpid()) */",
     ["ALLOW_IF(tgkill, 0, UINT32_MAX, (uint32_t)getpid())"]),
    ("/* seccomp: fcntl(1 == F_GETFL) fcntl(1 == F_SETFL) */",
     ["ALLOW_IF(fcntl, 1, UINT32_MAX, F_GETFL)", "ALLOW_IF(fcntl, 1, UINT32_MAX, F_SETFL)"]),
    ("/* seccomp: read */ /* seccomp-if X: write */",
     ["ALLOW(read)", "#ifdef X", "ALLOW(write)", "#endif"]),
    # Allowed already: once is enough.
    ("/* seccomp: read */ /* seccomp-if X: read write */",
     ["ALLOW(read)", "#ifdef X", "ALLOW(write)", "#endif"]),
    # No annotations: strings, code, and prose.
    ('/* seccomp: read */ const char *s = "/* seccomp: write */";', ["ALLOW(read)"]),
    ("/* seccomp: read */ seccomp: write;", ["ALLOW(read)"]),
    ("/* seccomp: read */ /* Not a seccomp: write. */", ["ALLOW(read)"]),
    ("/* seccomp: read */ /* seccomp(2) is a system call. */", ["ALLOW(read)"]),
    ("char c = '\"'; /* seccomp: read */ char d = '\"';", ["ALLOW(read)"]),
])
def test_understands(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert generate(tmp_path, a=text) == (0, expected, "")


@pytest.mark.parametrize("text, complaint", [
    ("", "no annotations found"),
    ("\n/* seccomp read */", "src/a.c:2: not understood"),
    ("/*\n * seccomp:read\n */", "src/a.c:2: not understood"),
    ("/* seccomp: */", "not understood"),
    ("/* seccomp-al: read */", "not understood"),
    ("/* seccomp-if: read */", "not understood"),
    ("/* seccomp-kill X: read */", "not understood"),
    ("/* seccomp: read, write */", "read: a blank should stand behind it"),
    ("/* seccomp: Read */", "no name of a system call"),
    ("/* seccomp: read - from the ring */", "no name of a system call"),
    ("/* seccomp: mmap(2 & PROT_EXEC == 0 */", "no closing parenthesis"),
    ("/* seccomp: mmap(PROT_EXEC == 0) */", "mmap(PROT_EXEC == 0): not NUMBER"),
    ("/* seccomp: mmap(7 == 0) */", "not NUMBER"),
    ("/* seccomp: mmap() */", "not NUMBER"),
    ("/* seccomp: mmap(2 == 0; abort()) */", "strange expression"),
    ("/* seccomp-kill: mmap(2 == 0) */", "not NUMBER"),
    # What the sandbox is for is not to be had by a comment.
    ("/* seccomp: read openat */", "openat: the sandbox is there to forbid it"),
    ("/* seccomp: socket(0 == AF_UNIX) */", "socket: the sandbox is there to forbid it"),
    ("/* seccomp-if X: execve */", "execve: the sandbox is there to forbid it"),
    # A condition would be worth nothing.
    ("/* seccomp: mmap */ /* seccomp: mmap(2 == 0) */", "contradict: src/a.c"),
    ("/* seccomp: bpf */ /* seccomp-kill: bpf */", "contradict"),
])
def test_refuses(tmp_path: Path, text: str, complaint: str) -> None:
    status, _, errors = generate(tmp_path, a=text)
    assert status == 1
    assert complaint in errors


def test_gathers_from_all_files(tmp_path: Path) -> None:
    (tmp_path / "lib" / "deep").mkdir(parents=True)
    (tmp_path / "lib" / "deep" / "x.h").write_text("/* seccomp: read */\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "y.c").write_text("/* seccomp: read */\n")
    (tmp_path / "src" / "notes.txt").write_text("/* seccomp: write */\n")
    assert run(tmp_path, "--output", "o", "--depfile", "d", "lib", "src") == (0, "", "")
    assert "ALLOW(read) /* deep/x.h src/y.c */\n" in (tmp_path / "o").read_text()
    assert "write" not in (tmp_path / "o").read_text()
    # Ninja makes it anew when a file changes, comes or goes.
    target, files = (tmp_path / "d").read_text().split(": ")
    assert target == "o"
    assert files.split() == ["lib", "lib/deep", "lib/deep/x.h", "src", "src/y.c"]


def test_knows_its_folders(tmp_path: Path) -> None:
    status, _, errors = run(tmp_path, "--output", "o", "gone")
    assert (status, errors) == (1, "seccomp-list: gone: no such folder\n")
    assert run(tmp_path, "gone")[0] == 2


@pytest.mark.parametrize("path, text, found", [
    ("lib/a.c", "close(fd);\n", ["lib/a.c:1: close() without a word to seccomp"]),
    ("lib/a.c", "/* seccomp: close */\nclose(fd);\n", []),
    ("lib/a.c", "/* seccomp-before: open */\nopen(path, 0);\n", []),
    ("lib/a.c", "/* seccomp: read */\n\nx = fallocate(fd, 0, 0, 1);\n",
     ["lib/a.c:3: fallocate() without a word to seccomp"]),
    ("lib/a.c", "/* seccomp: newfstatat(3 == 1) sendto */ fstat(fd, &st); send(fd, b, 1, 0);", []),
    ("lib/a.c", "/* close(fd) */ s.close(fd); p->close(fd); uv_close(h); x = \"close(fd)\";\n", []),
    # Outside of lib/ there is the parent too, which is in no sandbox.
    ("src/a.c", "close(fd);\n", []),
    ("src/a.c", "/* seccomp: read */\nread(fd, b, 1); close(fd);\n",
     ["src/a.c:2: close() without a word to seccomp"]),
])
def test_unsaid(tmp_path: Path, path: str, text: str, found: list[str]) -> None:
    file = tmp_path / path
    file.parent.mkdir()
    file.write_text(text)
    status, output, errors = run(tmp_path, "--unsaid", file.parent.name)
    assert (status, output.splitlines(), errors) == (1 if found else 0, found, "")


def test_our_sources_say_all() -> None:
    assert run(ROOT, "--unsaid", *FOLDERS) == (0, "", "")
