# SPDX-License-Identifier: MIT
"""What a run of the guest tests is about: which driver, in which guest, on which monitor."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from .guest import MIB, Guest, MissingPackage
from .initramfs import build_initramfs
from .qemu import BOOT_MODULES, QemuGuest, Snapshot, find_kernel, find_qemu
from .snapshot import Snapshots
from .uml import MODULES, UmlGuest

DRIVERS = ("stock", "aerostat")
MONITORS = ("uml", "qemu")
KERNELS = ("6.1", "6.12", "7.2")  # of QEMU's guests


def our_driver(kernel: str) -> pathlib.Path:
    """Our balloon driver for a kernel; MissingPackage if nobody has built it."""
    built = os.environ.get("AEROSTAT_MODULES")
    if not built:
        raise MissingPackage("AEROSTAT_MODULES does not name the directory of our driver: "
                             "./run module builds it in build/module")
    path = pathlib.Path(built).resolve() / kernel / "virtio_balloon.ko"
    if not path.is_file():
        raise MissingPackage(f"our driver is not there, {path}: ./run module {kernel}")
    return path


@dataclasses.dataclass(frozen=True)
class Platform:
    """Makes guests that are all alike."""

    driver: str
    vmm: str
    kernel: str  # by its version, "6.1" on user-mode-linux
    initramfs: pathlib.Path
    #: Where guests under QEMU go on from; None: they boot, each of them.
    snapshots: Snapshots | None = None
    #: Whether what goes on for long, or many times, is to go on for less.
    brief: bool = False

    def guest(self, workdir: pathlib.Path, memory: int = 256 * MIB,
              balloon: pathlib.Path | None = None, disk: pathlib.Path | None = None,
              kernel_options: tuple[str, ...] = (), boots: bool = False) -> Guest:
        """A guest that is not started yet; the arguments are those of ProcessGuest. `boots`: it
        does not go on from a snapshot."""
        common = self.initramfs, workdir, memory, balloon, disk, kernel_options
        guest = (UmlGuest(*common) if self.vmm == "uml" else
                 QemuGuest(find_kernel(self.kernel), *common,
                           snapshot=None if boots else self._snapshot(memory, kernel_options)))
        guest.driver = self.driver
        return guest

    def qemu_guest(self, workdir: pathlib.Path, memory: int = 256 * MIB,
                   own_balloon: str | None = None,
                   balloon: pathlib.Path | None = None) -> QemuGuest:
        """A guest for tests of what only QEMU has; the arguments are those of QemuGuest."""
        guest = QemuGuest(find_kernel(self.kernel), self.initramfs, workdir, memory, balloon,
                          own_balloon=own_balloon, snapshot=self._snapshot(memory, ()))
        guest.driver = self.driver
        return guest

    def _snapshot(self, memory: int, kernel_options: tuple[str, ...]) -> Snapshot | None:
        return self.snapshots.get(memory, kernel_options) if self.snapshots is not None else None


def build_platform(driver: str, vmm: str, kernel: str, target: pathlib.Path,
                   snapshots: pathlib.Path | None = None, brief: bool = False) -> Platform:
    """Pack the initramfs `target`, with our driver if there is one, and must be if `driver` says
    so. `snapshots`: an empty folder; guests under QEMU need not boot then, most of the time.
    MissingPackage tells what is not there that is needed."""
    ours = None
    try:
        ours = our_driver("uml" if vmm == "uml" else kernel)
    except MissingPackage:
        if driver == "aerostat":
            raise
    if vmm == "uml":
        return Platform(driver, vmm, "6.1", build_initramfs(MODULES, target, ours))
    find_qemu()
    found = find_kernel(kernel)
    build_initramfs(found.modules, target, ours, BOOT_MODULES)
    return Platform(driver, vmm, kernel, target,
                    Snapshots(found, target, snapshots) if snapshots is not None else None, brief)
