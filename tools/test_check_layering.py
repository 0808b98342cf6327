# SPDX-License-Identifier: MIT
"""check-layering on small trees, built by the real compiler: it must find what it is there for."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKER = Path(__file__).resolve().parent / "check-layering"

BASE_C = "#include \"base/add.h\"\nint base_add(int a, int b) { return a + b; }\n"
BASE_H = "int base_add(int a, int b);\n"
VIRTIO_C = (
    '#include <string.h>\n#include "base/add.h"\n#include "ring.h"\n'
    "int ring_sum(const char *from, unsigned long n)\n"
    "{ char to[64]; memcpy(to, from, n); return base_add(to[0], to[n - 1]); }\n"
)
VIRTIO_H = "int ring_sum(const char *from, unsigned long n);\n"


class Tree:
    """A source tree and its objects, laid out as meson lays them out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.build = root / "build"
        for name in ("lib", "include/aerostat", "build"):
            (root / name).mkdir(parents=True)
        self.write("lib/base/add.h", BASE_H)
        self.write("lib/base/add.c", BASE_C)
        self.write("lib/virtio/ring.h", VIRTIO_H)
        self.write("lib/virtio/ring.c", VIRTIO_C)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def compile(self, *flags: str) -> None:
        for source in (self.root / "lib").rglob("*.c"):
            part = source.parent.name
            target = self.build / "lib" / part / f"lib{part}.a.p" / f"{source.stem}.c.o"
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                ["gcc", "-O1", "-fno-builtin", "-I", "lib", "-I", "include", *flags,
                 "-c", str(source), "-o", str(target)],
                cwd=self.root, check=True)

    def check(self) -> tuple[int, str]:
        done = subprocess.run([CHECKER, "build"], cwd=self.root, capture_output=True, text=True)
        assert done.stderr == ""
        return done.returncode, done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def finds(tree: Tree) -> Callable[..., None]:
    """Compiles the tree with one more file; the one complaint about it must say this."""

    def check(name: str, text: str, *expected: str) -> None:
        tree.write(name, text)
        tree.compile()
        status, output = tree.check()
        assert status == 1
        assert len(output.splitlines()) == 1, output
        for word in expected:
            assert word in output

    return check


def test_clean_tree_passes(tree: Tree) -> None:
    tree.compile()
    assert tree.check() == (0, "layering holds: base, virtio\n")


def test_what_compilers_add_is_no_call(tree: Tree) -> None:
    tree.compile("-fsanitize=address,undefined", "-fstack-protector-all", "-O2",
                 "-D_FORTIFY_SOURCE=2")
    assert tree.check()[0] == 0


@pytest.mark.parametrize("call", ["malloc(1)", "write(1, 0, 0)", "time(0)", "puts(0)", "abort()"])
def test_system_call_in_the_core(finds: Callable[..., None], call: str) -> None:
    name = call.split("(")[0]
    finds("lib/base/bad.c", f"long {name}();\nlong bad(void) {{ return {call}; }}\n",
          "lib/base: bad.c calls", name, "allow-list")


def test_call_upwards_without_a_header(finds: Callable[..., None]) -> None:
    finds("lib/base/up.c", "int ring_sum();\nint up(void) { return ring_sum(); }\n",
          "lib/base: up.c uses ring_sum of lib/virtio")


def test_call_sideways_from_an_edge(finds: Callable[..., None]) -> None:
    finds("lib/qmp/side.c", "int ring_sum();\nint side(void) { return ring_sum(); }\n",
          "lib/qmp: side.c uses ring_sum of lib/virtio")


def test_edge_may_call_the_system(tree: Tree) -> None:
    tree.write("lib/discard/punch.c", "#include <unistd.h>\nint punch(int f)\n"
                                      "{ return ftruncate(f, 0); }\n")
    tree.compile()
    assert tree.check()[0] == 0


def test_protocol_engine_has_no_sockets(finds: Callable[..., None]) -> None:
    finds("lib/qmp/net.c", "#include <unistd.h>\nlong net(int f)\n{ return write(f, 0, 0); }\n",
          "lib/qmp: net.c calls write")


@pytest.mark.parametrize("part, include", [
    ("base", "virtio/ring.h"), ("discard", "virtio/ring.h"), ("virtio", "balloon/device.h"),
    ("vhost_user", "balloon/device.h"), ("driver", "balloon/device.h"),
])
def test_include_of_what_is_not_below(
        tree: Tree, finds: Callable[..., None], part: str, include: str) -> None:
    tree.write("lib/balloon/device.h", "")
    finds(f"lib/{part}/bad.c", f'#include "{include}"\nint bad_{part};\n',
          f"lib/{part}/bad.c:1", f"includes {include}", "not below it")


def test_include_by_a_way_around(finds: Callable[..., None]) -> None:
    finds("lib/base/around.c", '#include "../virtio/ring.h"\nint around;\n', "lib/base/around.c:1")


def test_wire_header_is_for_those_who_know_the_device(
        tree: Tree, finds: Callable[..., None]) -> None:
    tree.write("include/aerostat/virtio_balloon.h", "")
    tree.write("lib/balloon/fine.c", "#include <aerostat/virtio_balloon.h>\nint fine;\n")
    finds("lib/vhost_user/bad.c", "#include <aerostat/virtio_balloon.h>\nint bad;\n",
          "lib/vhost_user/bad.c:1", "nothing of the device")


def test_public_header_includes_nothing_private(tree: Tree) -> None:
    tree.write("include/aerostat/balloon.h", '#include "base/add.h"\n')
    tree.compile()
    status, output = tree.check()
    assert status == 1
    assert "include/aerostat/balloon.h:1" in output


def test_source_that_was_not_built(tree: Tree) -> None:
    tree.compile()
    tree.write("lib/virtio/late.c", "int late;\n")
    status, output = tree.check()
    assert status == 1
    assert "lib/virtio: 2 sources but 1 objects" in output


def test_part_that_the_table_does_not_have(tree: Tree) -> None:
    tree.write("lib/misc/junk.c", "int junk;\n")
    tree.compile()
    status, output = tree.check()
    assert status == 1
    assert "lib/misc: not in the table" in output


def test_wrong_usage(tmp_path: Path) -> None:
    for arguments in ([], ["missing"], ["a", "b"]):
        done = subprocess.run([CHECKER, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
