# SPDX-License-Identifier: MIT
"""What a guest boots: static busybox, the stock kernel modules and the agent."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile

from .guest import MissingPackage

_ROOTFS = pathlib.Path(__file__).resolve().parent / "rootfs"
_MODULES = ("virtio_balloon", "zsmalloc", "zram")


def build_initramfs(modules: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Pack an initramfs with the modules found below `modules` into the new file `target`."""
    busybox, cpio = (_program(name, package) for name, package in
                     (("busybox", "busybox-static"), ("cpio", "cpio")))
    with tempfile.TemporaryDirectory(prefix="initramfs-", dir=target.parent) as name:
        root = pathlib.Path(name)
        shutil.copytree(_ROOTFS, root, dirs_exist_ok=True)
        for directory in ("data", "dev", "lib/modules", "proc", "run", "sys"):
            (root / directory).mkdir(parents=True)
        shutil.copy(busybox, root / "bin/busybox")
        for module in _MODULES:
            shutil.copy(_find_module(modules, module), root / "lib/modules")
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


def _find_module(modules: pathlib.Path, name: str) -> pathlib.Path:
    for path in modules.rglob(f"{name}.ko"):
        return path
    raise MissingPackage(f"there is no {name}.ko below {modules}: "
                         "apt-get install --reinstall user-mode-linux")
