# SPDX-License-Identifier: MIT
"""What a guest boots: static busybox, kernel modules, test programs and the agent.

In the guest /lib/modules/stock has the modules that come with the kernel, and those that they
need; `load NAME` loads one in the right order. /lib/modules/aerostat has our balloon driver.
"""

from __future__ import annotations

import lzma
import os
import pathlib
import shutil
import subprocess
import tempfile

from .guest import MissingPackage

_ROOTFS = pathlib.Path(__file__).resolve().parent / "rootfs"
_MODULES = ("virtio_balloon", "zsmalloc", "zram")


def build_initramfs(modules: pathlib.Path, target: pathlib.Path,
                    aerostat: pathlib.Path | None = None,
                    boot_modules: tuple[str, ...] = ()) -> pathlib.Path:
    """Pack an initramfs into the new file `target`.

    `modules` is the directory of a kernel's modules, `aerostat` the file of our balloon driver for
    that kernel. The guest loads `boot_modules` before all else: what its channel to us needs."""
    busybox, cpio = (_program(name, package) for name, package in
                     (("busybox", "busybox-static"), ("cpio", "cpio")))
    with tempfile.TemporaryDirectory(prefix="initramfs-", dir=target.parent) as name:
        root = pathlib.Path(name)
        shutil.copytree(_ROOTFS, root, dirs_exist_ok=True)
        for directory in ("data", "dev", "lib/modules/stock", "lib/modules/aerostat", "proc", "run",
                          "sys"):
            (root / directory).mkdir(parents=True)
        shutil.copy(busybox, root / "bin/busybox")
        _copy_programs(root / "bin")
        _copy_modules(modules, (*boot_modules, *_MODULES), root / "lib/modules/stock")
        (root / "lib/modules/boot").write_text("".join(f"{name}\n" for name in boot_modules))
        if aerostat is not None:
            # Without debug information, as it is installed: it would take the guest's memory.
            subprocess.run([_program("strip", "binutils"), "--strip-debug", aerostat, "-o",
                            root / "lib/modules/aerostat/virtio_balloon.ko"], check=True,
                           timeout=60)
        paths = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        with target.open("wb") as archive:
            subprocess.run([cpio, "--quiet", "-o", "-H", "newc"], cwd=root, check=True, timeout=60,
                           input="\n".join(paths).encode(), stdout=archive)
    return target


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MissingPackage(f"'{name}' was not found: apt-get install {package}")
    return path


def _copy_programs(target: pathlib.Path) -> None:
    """The guest programs of the build: its static executables."""
    directory = os.environ.get("AEROSTAT_GUEST_PROGRAMS")
    if not directory:
        return
    if not os.path.isdir(directory):
        raise MissingPackage(f"AEROSTAT_GUEST_PROGRAMS names {directory}, which is not there")
    for path in pathlib.Path(directory).iterdir():
        if path.is_file() and os.access(path, os.X_OK):
            shutil.copy(path, target / path.name)


def _copy_modules(modules: pathlib.Path, wanted: tuple[str, ...], target: pathlib.Path) -> None:
    """Copy modules and what they need, and write for each the list by which they are loaded."""
    files = {_name(path): path for path in modules.rglob("*.ko*")}
    needs = _dependencies(modules)
    lists, copied = [], set()
    for name in wanted:
        if name not in files:
            if name in _builtin(modules):
                continue
            raise MissingPackage(f"there is no {name}.ko below {modules}: is its package whole?")
        order = [*needs.get(name, ()), name]
        lists.append(" ".join([f"{name}:", *order]) + "\n")
        for needed in order:
            if needed not in copied:
                (target / f"{needed}.ko").write_bytes(_unpacked(files[needed]))
                copied.add(needed)
    (target / "order").write_text("".join(lists))


def _name(path: pathlib.Path | str) -> str:
    """A module's name: that of its file, with which /sys/module has dashes as underscores."""
    return pathlib.Path(path).name.partition(".")[0].replace("-", "_")


def _lines(modules: pathlib.Path, name: str) -> list[str]:
    return [line for path in modules.rglob(name)
            for line in path.read_text(encoding="ascii", errors="replace").splitlines()]


def _dependencies(modules: pathlib.Path) -> dict[str, list[str]]:
    """What to load before each module, in order. depmod lists the last one to load first."""
    split = (line.partition(":") for line in _lines(modules, "modules.dep"))
    return {_name(path): [_name(needed) for needed in reversed(rest.split())]
            for path, _, rest in split}


def _builtin(modules: pathlib.Path) -> set[str]:
    return {_name(line) for line in _lines(modules, "modules.builtin")}


def _unpacked(path: pathlib.Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data
