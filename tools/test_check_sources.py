# SPDX-License-Identifier: MIT
"""check-sources on one file at a time: each rule once broken, and what must pass."""

import subprocess
from pathlib import Path

import pytest

CHECKER = Path(__file__).resolve().parent / "check-sources"
LICENCE = "SPDX-" + "License-Identifier: MIT"


KERNEL_LICENCE = "SPDX-" + "License-Identifier: GPL-2.0-only"
IF_7_2 = "#if LINUX_" + "VERSION_CODE >= KERNEL_" + "VERSION(7, 2, 0)\n#endif\n"


def check(folder: Path, name: str, text: str) -> tuple[int, str]:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    done = subprocess.run([CHECKER, name], cwd=folder, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize("name, text", [
    ("a.c", f"// {LICENCE}\nint a;\n"),
    ("a.h", f"/* {LICENCE} */\n"),
    ("a.h", "/* SPDX-" + "License-Identifier: GPL-2.0 OR MIT */\n"),
    ("a.py", f"# {LICENCE}\n"),
    ("tool", f"#!/bin/bash\n# {LICENCE}\n"),
    ("page.1.scd", f"page(1)\n; {LICENCE}\n"),
    ("meson.build", f"# {LICENCE}\n"),
    ("README.md", "no licence line needed \n"),
    ("empty.py", ""),
    ("long.c", f"// {LICENCE}\n" + 649 * "\n"),
    ("guest/linux/a.c", f"// {KERNEL_LICENCE}\nint a;\n"),
    ("guest/linux/compat.h", f"/* {KERNEL_LICENCE} */\n{IF_7_2}"),
    ("guest/linux/Kbuild", f"# {KERNEL_LICENCE}\nobj-m := a.o\n"),
    ("guest/linux/README.md", "about the module\n"),
])
def test_accepts(tmp_path: Path, name: str, text: str) -> None:
    assert check(tmp_path, name, text) == (0, "")


@pytest.mark.parametrize("name, text, complaint", [
    ("a.c", "int a;\n", "a.c:1: no SPDX"),
    ("a.c", f"/* {LICENCE} */\n", "a.c:1: no SPDX"),
    ("a.h", f"// {LICENCE}\n", "a.h:1: no SPDX"),
    ("a.c", "// SPDX-" + "License-Identifier: Proprietary\n", "a.c:1: no SPDX"),
    ("tool", "#!/usr/bin/python3\n", "tool:1: no SPDX"),
    ("a.c", f"// {LICENCE}\nint a; \n", "a.c:2: blanks"),
    ("a.c", f"// {LICENCE}\r\n", "blanks or a carriage return"),
    ("a.c", f"// {LICENCE}\nint a;", "no newline at the end"),
    ("a.c", f"// {LICENCE}\n// TO" + "DO later\n", "a.c:2: a left-over note"),
    ("a.c", f"// {LICENCE}\n" + 650 * "\n", "651 lines"),
    ("a.py", f"# {LICENCE}\n" + 101 * "x" + "\n", "a.py:2: 101 columns"),
    ("guest/linux/a.c", f"// {LICENCE}\nint a;\n", "a.c:1: not under GPL-2.0-only"),
    ("guest/linux/a.h", f"/* {KERNEL_LICENCE} OR MIT */\n", "a.h:1: not under GPL-2.0-only"),
    ("guest/linux/Makefile", f"# {LICENCE}\n", "Makefile:1: not under GPL-2.0-only"),
    ("guest/linux/Kbuild", "obj-m := a.o\n", "Kbuild:1: no SPDX"),
    ("guest/linux/a.c", f"// {KERNEL_LICENCE}\n{IF_7_2}", "a.c:2: asks for the kernel's version"),
    ("a.h", f"/* {LICENCE} */\n{IF_7_2}", "a.h:2: asks for the kernel's version"),
    ("compat.h", f"/* {LICENCE} */\n{IF_7_2}", "compat.h:2: asks for the kernel's version"),
    ("a.py", f"# {LICENCE}\nif a:\n\tb\n", "a.py:3: tab in Python"),
])
def test_finds(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    status, output = check(tmp_path, name, text)
    assert status == 1
    assert complaint in output


@pytest.mark.parametrize("build, text", [
    ("meson.build", "unit_tests = ['test_ring_wrap']\n"),
    ("Kbuild", "module-y := test_ring_wrap.o\n"),
])
def test_finds_a_file_that_is_never_built(tmp_path: Path, build: str, text: str) -> None:
    (tmp_path / build).write_text(text)
    status, output = check(tmp_path, "test_ring.c", f"// {LICENCE}\n")
    assert status == 1
    assert f"test_ring.c: {build} does not name it" in output
    assert check(tmp_path, "test_ring_wrap.c", f"// {LICENCE}\n") == (0, "")
