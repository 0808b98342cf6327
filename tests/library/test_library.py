# SPDX-License-Identifier: MIT
"""libaerostat as somebody gets it who installs it: symbols, soname, headers, pkg-config."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADERS = ROOT / "include" / "aerostat"
BINARY = os.environ.get("AEROSTAT_BALLOON", "")
if not os.access(BINARY, os.X_OK):
    pytest.exit("AEROSTAT_BALLOON must name the vhost-user-balloon of the build to test",
                returncode=2)
BUILD = Path(BINARY).resolve().parents[2]  # it stands in src/vhost-user-balloon/
LIBRARY = BUILD / "lib" / "embed" / "libaerostat.so"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]


def run(*command: "str | Path", **kwargs: "dict[str, str]") -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, **kwargs)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def build_option(name: str) -> str:
    options = json.loads(run("meson", "introspect", "--buildoptions", BUILD))
    return str(next(option["value"] for option in options if option["name"] == name))


def project_version() -> str:
    return str(json.loads(run("meson", "introspect", "--projectinfo", BUILD))["version"])


def exported() -> set[str]:
    names = set()
    for line in run("nm", "-D", "--defined-only", "--format=posix", LIBRARY).splitlines():
        name, kind = line.split()[:2]
        assert kind != "A" or name == "AEROSTAT_0"
        if kind != "A":
            name, _, version = name.partition("@@")
            assert version == "AEROSTAT_0", f"{name} has the version '{version}'"
            names.add(name)
    return names


def test_exports_what_the_list_says_and_nothing_else() -> None:
    lines = (ROOT / "tests" / "library" / "symbols.txt").read_text().splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert listed == sorted(set(listed))
    assert exported() == set(listed)


def test_header_declares_what_is_exported() -> None:
    text = re.sub(r"/\*.*?\*/", "", (HEADERS / "balloon.h").read_text(), flags=re.DOTALL)
    declared = set(re.findall(r"\b(aerostat_\w+)\((?!\*)", text))
    assert declared == exported()


def dynamic(tag: str) -> list[str]:
    return re.findall(rf"\({tag}\).*\[(.*)\]", run("readelf", "-d", LIBRARY))


def test_soname_and_dependencies() -> None:
    assert dynamic("SONAME") == ["libaerostat.so." + project_version().split(".")[0]]
    needed = [name for name in dynamic("NEEDED") if not re.match(r"lib[atu]\w*san\.", name)]
    assert set(needed) <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2",
                           "libgcc_s.so.1"}
    assert LIBRARY.resolve().name == f"libaerostat.so.{project_version()}"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library and its headers, installed below a directory."""
    target = tmp_path_factory.mktemp("installed")
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--tags", "devel,runtime",
        "--destdir", target)
    return target


@pytest.fixture(scope="module")
def environment(installed: Path) -> "dict[str, str]":
    """For pkg-config, compilers and programs to find what is installed there, and only there."""
    found = list(installed.rglob("libaerostat.pc"))
    assert len(found) == 1
    return {
        "PATH": os.environ["PATH"],
        "PKG_CONFIG_LIBDIR": str(found[0].parent),
        "PKG_CONFIG_SYSROOT_DIR": str(installed),
        "LD_LIBRARY_PATH": str(found[0].parent.parent),
        "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", ""),
        "UBSAN_OPTIONS": os.environ.get("UBSAN_OPTIONS", ""),
    }


def pkg_config(environment: "dict[str, str]", *arguments: str) -> list[str]:
    return run("pkg-config", *arguments, "libaerostat", env=environment).split()


def sanitizers() -> list[str]:
    """A program that links an instrumented library has to be instrumented, too."""
    chosen = build_option("b_sanitize")
    return [] if chosen == "none" else [f"-fsanitize={chosen}"]


def test_pkg_config_version(environment: "dict[str, str]") -> None:
    assert pkg_config(environment, "--modversion") == [project_version()]


def test_installed_headers_are_the_public_ones(installed: Path) -> None:
    names = {path.name for path in installed.rglob("include/aerostat/*")}
    assert names == {path.name for path in HEADERS.iterdir()}
    assert names == {path.name for path in installed.rglob("*.h")}


LANGUAGES = [
    pytest.param(["gcc", "-x", "c", "-std=c99"], id="c99"),
    pytest.param(["g++", "-x", "c++", "-std=c++11"], id="c++11", marks=pytest.mark.skipif(
        shutil.which("g++") is None, reason="no C++ compiler")),
]


@pytest.mark.parametrize("compiler", LANGUAGES)
@pytest.mark.parametrize("header", sorted(path.name for path in HEADERS.iterdir()))
def test_header_stands_alone(
        environment: "dict[str, str]", tmp_path: Path, compiler: list[str], header: str) -> None:
    source = tmp_path / "alone"
    source.write_text(f"#include <aerostat/{header}>\n#include <aerostat/{header}>\n")
    run(*compiler, *STRICT, *pkg_config(environment, "--cflags"), "-fsyntax-only", source,
        env=environment)


def build_and_run(environment: "dict[str, str]", source: Path, program: Path) -> str:
    run("gcc", *STRICT, *sanitizers(), source, "-o", program,
        *pkg_config(environment, "--cflags", "--libs"), env=environment)
    return run(program, env=environment)


def test_version_of_the_library(environment: "dict[str, str]", tmp_path: Path) -> None:
    source = tmp_path / "version.c"
    source.write_text("#include <aerostat/balloon.h>\n#include <stdio.h>\n"
                      "int main(void) { puts(aerostat_version()); return 0; }\n")
    assert build_and_run(environment, source, tmp_path / "version").strip() == project_version()


def test_example_as_a_user_builds_it(environment: "dict[str, str]", tmp_path: Path) -> None:
    output = build_and_run(environment, ROOT / "examples" / "toy-vmm.c", tmp_path / "toy-vmm")
    assert "balloon 32 MiB" in output


def test_examples_include_public_headers_only() -> None:
    for path in (ROOT / "examples").glob("*.c"):
        for name in re.findall(r'#\s*include\s*[<"]([^>"]+)', path.read_text()):
            local = (ROOT / "lib" / name).exists() or (ROOT / "src" / name).exists()
            assert not local, f"{path.name} includes the private {name}"
