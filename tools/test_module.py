# SPDX-License-Identifier: MIT
"""`./run module`: what it fetches, when, and what it never takes for whole.

It runs in a copy of the tree, with programs in its PATH that stand in for Debian's: they write down
how they were called, and make what the real ones would make, as far as anybody looks at it.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RELEASE_6_1 = "6.1.0-56-amd64"
RELEASE_7_2 = "7.2.12+deb13-amd64"

STAND_IN = ROOT / "tools/test_module_stand_in.sh"
PROGRAMS = ("linux.uml", "dpkg-query", "apt-cache", "apt-get", "dpkg-deb", "make", "depmod", "id",
            "debootstrap", "chroot", "unshare", "sudo")


class Tree:
    """A copy of what `./run module` uses, and the programs that it finds."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self.fakes = folder / "fakes"
        self.cache = folder / 'cache "1"'
        for directory in ("tools/lib", "guest/linux", "include/aerostat"):
            (self.root / directory).mkdir(parents=True)
        for name in ("run", "guest/linux/Kbuild", "guest/linux/dkms.conf",
                     *(f"tools/lib/{path.name}" for path in (ROOT / "tools/lib").iterdir())):
            (self.root / name).write_bytes((ROOT / name).read_bytes())
        (self.root / "run").chmod(0o755)
        (self.root / "guest/linux/main.c").write_text("int a;\n")
        (self.root / "include/aerostat/virtio_balloon.h").write_text("/* the wire */\n")
        self.fakes.mkdir()
        (self.fakes / "id").write_text("0\n")
        (self.fakes / "calls").touch()
        (self.fakes / "bin").mkdir()
        for name in PROGRAMS:
            (self.fakes / "bin" / name).write_bytes(STAND_IN.read_bytes())
            (self.fakes / "bin" / name).chmod(0o755)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        path = f"{self.fakes / 'bin'}:{os.environ['PATH']}"
        return subprocess.Popen(
            [self.root / "run", "module", *arguments], cwd=self.root, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "PATH": path, "AEROSTAT_CACHE": str(self.cache),
                 "FAKES": str(self.fakes), **environment})

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors

    def built(self, kernel: str) -> str:
        status, output, errors = self.run(kernel)
        assert status == 0, errors
        assert output == f"build/module/{kernel}/virtio_balloon.ko\n"
        return (self.root / output.strip()).read_text()

    def fails(self, what: str, times: int = 1) -> None:
        (self.fakes / f"fail-{what}").write_text("once\n" * times)

    def calls(self, start: str = "") -> list[str]:
        """How the programs were called since the last time that this was asked."""
        path = self.fakes / "calls"
        lines = path.read_text().splitlines()
        path.write_text("")
        return [line for line in lines if line.startswith(start)]

    def index(self) -> dict[str, dict[str, str | list[str]]]:
        return json.loads((self.cache / "kernels.json").read_text())


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    yield Tree(tmp_path)


@pytest.mark.parametrize("arguments", [
    ["6.13"], ["uml", "6.10"], ["uml 6.1"], [""], ["--print", "uml"], ["-k"],
])
def test_wrong_usage(tree: Tree, arguments: list[str]) -> None:
    status, output, errors = tree.run(*arguments)
    assert status == 2
    assert output == ""
    assert "./run help" in errors
    assert tree.calls() == []
    assert not tree.cache.exists()


def test_uml_gets_the_source_of_its_own_version(tree: Tree) -> None:
    tree.built("uml")
    calls = tree.calls()
    assert "apt-get -q download linux-source-6.1=6.1.176-1" in calls
    kernel = tree.cache / "uml-6.1.176"
    assert (kernel / ".config").read_text() == "CONFIG_UML=y\n"
    assert (kernel / "scripts/checkpatch.pl").exists()
    assert (kernel / "sound/Kconfig").exists()
    assert not (kernel / "sound/big.c").exists()  # 1.4 GB of these
    [prepare] = [line for line in calls if "modules_prepare" in line]
    assert "ARCH=um" in prepare
    [build] = [line for line in calls if line.endswith(" modules")]
    assert f"-C {kernel} ARCH=um M={tree.root}/build/module/uml/build" in build
    assert "W=1" in build and "-Werror" in build


def test_nothing_is_done_twice(tree: Tree) -> None:
    tree.built("uml")
    tree.calls()
    status, _, errors = tree.run("uml")
    assert (status, errors) == (0, "")
    assert tree.calls("apt-get") == []
    assert tree.calls("make") == []


@pytest.mark.parametrize("changed", [
    "guest/linux/main.c", "guest/linux/Kbuild", "guest/linux/dkms.conf",
    "include/aerostat/virtio_balloon.h",
])
def test_a_changed_source_is_built_again(tree: Tree, changed: str) -> None:
    first = tree.built("uml")
    tree.calls()
    with (tree.root / changed).open("a") as file:
        file.write("\n")
    assert (tree.built("uml") != first) == changed.endswith("main.c")
    calls = tree.calls()
    assert [line for line in calls if line.startswith("make")] != []
    assert [line for line in calls if line.startswith("apt-get")] == []


def test_builds_leave_the_sources_alone(tree: Tree) -> None:
    # What a build inside the tree leaves behind is no source.
    (tree.root / "guest/linux/virtio_balloon.mod.c").write_text("int old;\n")
    before = sorted((tree.root / "guest").rglob("*"))
    tree.built("uml")
    assert sorted((tree.root / "guest").rglob("*")) == before
    copied = tree.root / "build/module/uml/build"
    assert (copied / "aerostat/virtio_balloon.h").read_text() == "/* the wire */\n"
    assert (copied / "main.c").exists()
    assert not (copied / "virtio_balloon.mod.c").exists()


def test_a_failed_build_shows_why_and_leaves_no_module(tree: Tree) -> None:
    tree.built("uml")
    (tree.root / "guest/linux/main.c").write_text("int wrong;\n")
    tree.fails("build")
    status, output, errors = tree.run("uml")
    assert (status, output) == (1, "")
    assert "build went wrong" in errors
    assert not (tree.root / "build/module/uml/virtio_balloon.ko").exists()
    tree.built("uml")


def test_what_was_half_made_is_made_anew(tree: Tree) -> None:
    tree.fails("prepare")
    status, _, errors = tree.run("uml")
    assert status == 1
    assert "prepare went wrong" in errors
    assert not (tree.cache / "uml-6.1.176").exists()
    left_over = tree.cache / "uml-6.1.176.new/left-over"
    left_over.parent.mkdir(exist_ok=True)
    left_over.touch()
    tree.built("uml")
    assert not (tree.cache / "uml-6.1.176/left-over").exists()


def test_interrupted(tree: Tree) -> None:
    process = tree.start("uml", FAKE_DELAY="30")
    while not any("modules_prepare" in line
                  for line in (tree.fakes / "calls").read_text().splitlines()):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, 15)
    process.communicate(timeout=10)
    assert process.returncode == 143
    assert not (tree.cache / "uml-6.1.176").exists()
    tree.built("uml")


def test_two_at_once(tree: Tree) -> None:
    both = [tree.start("uml", FAKE_DELAY="1") for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert any("waiting for it" in line for line in errors)
    calls = tree.calls()
    assert len([line for line in calls if "download" in line]) == 1
    assert len([line for line in calls if line.endswith(" modules")]) == 1


def test_stale_package_lists(tree: Tree) -> None:
    tree.fails("download")
    tree.built("uml")
    updates = [line for line in tree.calls("apt-get") if line.endswith(" update")]
    assert len(updates) == 1
    (tree.cache / "uml-6.1.176").rename(tree.cache / "gone")
    tree.fails("download", 2)
    status, _, errors = tree.run("uml")
    assert status == 1
    assert "download went wrong" in errors and "could not download" in errors


def test_6_1_is_unpacked_and_not_installed(tree: Tree) -> None:
    tree.built("6.1")
    calls = tree.calls()
    [download] = [line for line in calls if "download" in line]
    assert set(download.split()[3:]) == {
        f"linux-image-{RELEASE_6_1}", f"linux-headers-{RELEASE_6_1}",
        "linux-headers-6.1.0-56-common", "linux-kbuild-6.1"}
    assert not any(" install " in line for line in calls)
    headers = tree.cache / "6.1/usr/src" / f"linux-headers-{RELEASE_6_1}"
    makefile = (headers / "Makefile").read_text()
    assert "/usr/src" not in makefile
    assert makefile.endswith("../linux-headers-6.1.0-56-common/Makefile\n")
    assert tree.index() == {"6.1": {
        "release": RELEASE_6_1,
        "vmlinuz": f"{tree.cache}/6.1/vmlinuz",
        "modules": f"{tree.cache}/6.1/lib/modules/{RELEASE_6_1}",
    }}
    assert (tree.cache / "6.1/vmlinuz").is_file()
    assert list(tree.cache.rglob("*.deb")) == []


def test_7_2_comes_from_a_system_of_its_own(tree: Tree) -> None:
    tree.built("7.2")
    calls = tree.calls()
    trixie = tree.cache / "trixie"
    assert [line for line in calls if line.startswith("debootstrap")] == [
        f"debootstrap --variant=minbase trixie {trixie}.new http://deb.debian.org/debian"]
    sources = (trixie / "etc/apt/sources.list").read_text()
    assert "trixie-backports" in sources
    assert any(line.endswith(f"install linux-headers-{RELEASE_7_2} make") for line in calls)
    assert any(line.endswith("install -t trixie-backports qemu-system-x86") for line in calls)
    # The newest of its series, of that flavour, with all packages that make it up.
    [download] = [line for line in calls if line.startswith("trixie sh ")]
    assert set(download.split()[-4:]) == {
        f"linux-{part}-{RELEASE_7_2}" for part in ("image", "base", "binary", "modules")}
    index = tree.index()
    assert index["7.2"]["vmlinuz"] == f"{tree.cache}/7.2/vmlinuz"
    assert (tree.cache / "7.2/vmlinuz").is_file()
    assert Path(str(index["7.2"]["modules"])).is_dir()
    command = index["qemu"]["command"]
    assert f"{trixie}/usr/bin/qemu-system-x86_64" in command
    # Built inside, from a copy that is gone.
    assert any(line.startswith("trixie make ") and f"-C /lib/modules/{RELEASE_7_2}/build" in line
               for line in calls)
    assert list((trixie / "var/tmp").iterdir()) == []


def test_7_2_is_brought_to_its_end(tree: Tree) -> None:
    tree.fails("install", 2)
    status, _, errors = tree.run("7.2")
    assert status == 1
    assert "install went wrong" in errors
    tree.calls()
    tree.built("7.2")
    calls = tree.calls()
    assert not any(line.startswith("debootstrap") for line in calls)
    assert not any("apt-get -q download" in line for line in calls)
    assert "trixie dpkg --configure -a" in calls


def test_half_a_system_is_none(tree: Tree) -> None:
    tree.fails("debootstrap")
    status, _, errors = tree.run("7.2")
    assert status == 1
    assert "debootstrap went wrong" in errors
    assert not (tree.cache / "trixie").exists()
    tree.built("7.2")


def test_a_system_of_its_own_needs_root(tree: Tree) -> None:
    (tree.fakes / "id").write_text("1000\n")
    for arguments in (["6.12"], ["uml", "7.2"], []):
        status, output, errors = tree.run(*arguments)
        assert (status, output) == (1, "")
        assert "needs root" in errors
        assert [line for line in tree.calls() if not line.startswith("id")] == []
    tree.built("uml")
