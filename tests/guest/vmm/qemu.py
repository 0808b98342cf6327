# SPDX-License-Identifier: MIT
"""Guests under QEMU 11.1: a Debian kernel in a q35 machine, and our device beside it.

QEMU and the kernels come from the test bed below ${AEROSTAT_CACHE:-~/.cache/aerostat}, which
`./run module 6.1 6.12 7.2` makes. AEROSTAT_ACCEL says how processors are made: tcg (by turns in
one thread, the default), threads (a thread for each) or kvm. What this does because of QEMU, and
not because it is a test:

- Memory is shared (memfd), or the device would not see it.
- The balloon has the lowest address on the bus, so that it is virtio0 in every guest.
- The command line names all six queues and the 20 bytes of configuration: with fewer queues the
  driver fails to probe, with no configuration it reads a target of 16 TiB.
- The machine is not told to connect again (`reconnect-ms`): QEMU 11.1 aborts when it does.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

from .guest import MIB, GuestError, MissingPackage
from .process import ProcessGuest
from .qmp import QmpClient

#: What the kernel's drivers need between it and our agent, where they are modules.
BOOT_MODULES = ("virtio_pci", "virtio_console", "virtio_blk")

#: What a Debian kernel with two processors takes of the memory before anybody uses any, beyond what
#: user-mode-linux takes. Tests count on what is left to them, so a machine has that much more.
KERNEL_TAKES = {"6.1": 52 * MIB, "6.12": 40 * MIB, "7.2": 60 * MIB}

_PROCESSORS = 2  # a driver that is wrong about concurrency has to be able to fail


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel of the test bed: its file, and the directory of its modules."""

    release: str
    vmlinuz: pathlib.Path
    modules: pathlib.Path
    takes: int  # bytes of memory, as KERNEL_TAKES has them


def cache() -> pathlib.Path:
    """Where the test bed is."""
    named = os.environ.get("AEROSTAT_CACHE")
    if named:
        return pathlib.Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(base) if base else pathlib.Path.home() / ".cache") / "aerostat"


def _test_bed(name: str) -> object:
    index = cache() / "kernels.json"
    try:
        return json.loads(index.read_text(encoding="utf-8"))[name]
    except (OSError, ValueError, KeyError) as error:
        raise MissingPackage(f"the test bed has no '{name}' ({index}): "
                             "./run module 6.1 6.12 7.2 makes it, as root") from error


def find_kernel(version: str) -> Kernel:
    """A kernel by its version, as "6.12"."""
    entry = _test_bed(version)
    assert isinstance(entry, dict)
    kernel = Kernel(entry["release"], pathlib.Path(entry["vmlinuz"]),
                    pathlib.Path(entry["modules"]), KERNEL_TAKES[version])
    for path in (kernel.vmlinuz, kernel.modules):
        if not path.exists():
            raise MissingPackage(f"{path} is gone: ./run module {version} makes it again")
    return kernel


def find_qemu() -> list[str]:
    """The command that starts QEMU."""
    entry = _test_bed("qemu")
    assert isinstance(entry, dict)
    command = [str(word) for word in entry["command"]]
    for word in command:
        if word.endswith("/qemu-system-x86_64") and not os.path.exists(word):
            raise MissingPackage(f"{word} is gone: ./run module 6.12 makes it again")
    return command


class QemuGuest(ProcessGuest):
    """One QEMU process."""

    disk_device = "/dev/vda"

    def __init__(self, kernel: Kernel, initramfs: pathlib.Path, workdir: pathlib.Path,
                 memory: int = 256 * MIB, balloon: pathlib.Path | None = None,
                 disk: pathlib.Path | None = None, kernel_options: tuple[str, ...] = (),
                 own_balloon: str | None = None) -> None:
        """As ProcessGuest. `own_balloon`: QEMU's own virtio-balloon-pci, named balloon0, with
        these properties ("deflate-on-oom=on") instead of our device."""
        super().__init__(initramfs, workdir, memory + kernel.takes, balloon, disk, kernel_options)
        self._kernel = kernel
        self._own_balloon = own_balloon
        self._monitor: QmpClient | None = None

    @property
    def monitor(self) -> QmpClient:
        """QEMU's own monitor."""
        if self._monitor is None:
            if self._home is None:
                raise GuestError("the guest is not running")
            self._monitor = QmpClient(self._home / "qmp")
        return self._monitor

    def stop_machine(self) -> None:
        """As an operator does who stops a machine: the device hears of that, other than of
        pause()."""
        self.monitor.execute("stop")

    def continue_machine(self) -> None:
        self.monitor.execute("cont")

    def memory_file(self) -> pathlib.Path:
        # Below 2 GiB a machine of this kind has each page at the offset of its address.
        return self._open_file("/memfd:memory-backend-memfd")

    def _clean_up(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        super()._clean_up()

    def _command(self, home: pathlib.Path, channel: int) -> list[str]:
        # The port's name has the number of its virtio device, which comes behind the balloon.
        device = 0 if self._balloon is None and self._own_balloon is None else 1
        options = ["panic=-1", "console=ttyS0", "quiet", f"AGENT_CHANNEL=/dev/vport{device}p1",
                   *self._kernel_options]
        return [*find_qemu(), "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
                "-machine", "q35,memory-backend=memory", *self._accelerator(),
                "-smp", str(_PROCESSORS), "-m", f"{self.memory // MIB}M",
                "-object", f"memory-backend-memfd,id=memory,size={self.memory},share=on",
                "-kernel", str(self._kernel.vmlinuz), "-initrd", str(self._initramfs),
                "-append", " ".join(options),
                "-qmp", f"unix:{home / 'qmp'},server=on,wait=off",
                "-chardev", "file,id=console,path=console,append=on", "-serial", "chardev:console",
                *self._balloon_device(),
                "-chardev", f"socket,id=agent,fd={channel}",
                "-device", "virtio-serial-pci,addr=3",
                "-device", "virtserialport,chardev=agent,name=agent",
                *self._disk_device()]

    @staticmethod
    def _accelerator() -> list[str]:
        # Emulation unless told otherwise: where /dev/kvm is, stock kernels need not boot with it.
        # By turns in one thread: with a thread for each processor Linux 7.2, which patches its own
        # code while the other processor runs it, met an int3 that was there no more, and died
        # before any driver was loaded; one boot in some fifty died or hung.
        return {"kvm": ["-accel", "kvm", "-cpu", "host"],
                "threads": ["-accel", "tcg,thread=multi", "-cpu", "max"],
                "tcg": ["-accel", "tcg,thread=single", "-cpu", "max"],
                }[os.environ.get("AEROSTAT_ACCEL") or "tcg"]

    def _balloon_device(self) -> list[str]:
        if self._own_balloon is not None:
            properties = f",{self._own_balloon}" if self._own_balloon else ""
            return ["-device", f"virtio-balloon-pci,id=balloon0,addr=2{properties}"]
        if self._balloon is None:
            return []
        return ["-chardev", f"socket,id=balloon,path={self._balloon}",
                "-device", "vhost-user-test-device-pci,chardev=balloon,virtio-id=5,num_vqs=6,"
                           "vq_size=128,config_size=20,addr=2"]

    def _disk_device(self) -> list[str]:
        if self._disk is None:
            return []
        return ["-drive", f"if=none,id=disk,format=raw,readonly=on,file={self._disk}",
                "-device", "virtio-blk-pci,drive=disk,addr=4"]
