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
- Most guests do not boot, they go on from a snapshot (snapshot.py): that takes a quarter of a
  second instead of four. A snapshot is of a machine without a vhost-user device, as QEMU neither
  saves nor loads one that has it; the new machine gets one, and its guest finds it and sets it up.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import socket
import time

from .channel import Channel
from .guest import MIB, GuestError, MissingPackage
from .process import ProcessGuest
from .qmp import QmpClient, QmpError

#: What the kernel's drivers need between it and our agent, where they are modules.
BOOT_MODULES = ("virtio_pci", "virtio_console", "virtio_blk")

#: What a Debian kernel with two processors takes of the memory before anybody uses any, beyond what
#: user-mode-linux takes. Tests count on what is left to them, so a machine has that much more.
KERNEL_TAKES = {"6.1": 52 * MIB, "6.12": 40 * MIB, "7.2": 60 * MIB}

#: Our device as QEMU knows it.
_DEVICE = "vhost-user-test-device-pci"
_DEVICE_PROPERTIES = {"virtio-id": 5, "num_vqs": 6, "vq_size": 128, "config_size": 20}

#: Where a machine out of a snapshot gets it.
PORT = ("-device", "pcie-root-port,id=balloon-port,addr=1,chassis=1")

_PROCESSORS = 2  # a driver that is wrong about concurrency has to be able to fail


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel of the test bed: its file, and the directory of its modules."""

    release: str
    vmlinuz: pathlib.Path
    modules: pathlib.Path
    takes: int  # bytes of memory, as KERNEL_TAKES has them


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A machine whose guest has booted and waits to be told what its channel is."""

    memory: int  # a file descriptor
    state: pathlib.Path  # all but the memory


def copy_memory(source: int, target: int) -> None:
    """Make a new file like the other: what is a hole there, a page never touched, stays one."""
    size, offset = os.fstat(source).st_size, 0
    os.ftruncate(target, size)
    while offset < size:
        try:
            offset = os.lseek(source, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: there is no more
            return
        end = os.lseek(source, offset, os.SEEK_HOLE)
        os.lseek(target, offset, os.SEEK_SET)
        while offset < end:
            offset += os.sendfile(target, source, offset, end - offset)


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
                 own_balloon: str | None = None, snapshot: Snapshot | None = None) -> None:
        """As ProcessGuest. `own_balloon`: QEMU's own virtio-balloon-pci, named balloon0, with
        these properties ("deflate-on-oom=on") instead of our device. `snapshot`: where to go on
        from instead of booting, one with the same kernel, memory and options."""
        super().__init__(initramfs, workdir, memory + kernel.takes, balloon, disk, kernel_options)
        self._kernel = kernel
        self._own_balloon = own_balloon
        self._snapshot = snapshot
        self._monitor: QmpClient | None = None
        self._starter: socket.socket | None = None  # the host's end of the second serial line
        self._inherited: list[int] = []

    @property
    def monitor(self) -> QmpClient:
        """QEMU's own monitor."""
        if self._monitor is None:
            if self._home is None:
                raise GuestError("the guest is not running")
            self._monitor = QmpClient(self._home / "qmp")
        return self._monitor

    def start(self) -> None:
        try:
            super().start()
        finally:
            for descriptor in self._inherited:
                os.close(descriptor)
            self._inherited.clear()

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
        if self._starter is not None:
            self._starter.close()
            self._starter = None
        super()._clean_up()

    def _files(self) -> list[int]:
        return self._inherited

    def _ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if self._snapshot is not None:
            self._go_on(deadline)
        super()._ready(deadline - time.monotonic())

    def _go_on(self, deadline: float) -> None:
        """Bring a guest out of its snapshot to where one is that has booted."""
        assert self._snapshot is not None and self._starter is not None
        try:
            self._load(self._when_it_listens(deadline), self._snapshot.state, deadline)
        except (OSError, QmpError) as error:
            raise GuestError(f"the snapshot could not be loaded: {error}") from error
        # Not before: what a serial line has taken by then is overwritten.
        Channel(self._starter).say(self._agent_channel(), deadline - time.monotonic())

    def _load(self, monitor: QmpClient, state: pathlib.Path, deadline: float) -> None:
        monitor.execute("migrate-incoming", uri=f"file:{state}")
        while (status := monitor.execute("query-status")["status"]) != "paused":
            if time.monotonic() > deadline or status != "inmigrate":
                raise GuestError(f"the snapshot could not be loaded: {status}")
            time.sleep(0.005)
        if self._balloon is not None:
            # QEMU loads nothing into a machine that has this device.
            monitor.execute_as_is("device_add", {"driver": _DEVICE, "bus": "balloon-port",
                                                 "chardev": "balloon", **_DEVICE_PROPERTIES})
        monitor.execute("cont")

    def _when_it_listens(self, deadline: float) -> QmpClient:
        while True:
            try:
                return self.monitor
            except (FileNotFoundError, ConnectionError) as error:
                if time.monotonic() > deadline or not self.running():
                    raise GuestError(f"QEMU did not start: {error}") from error
                time.sleep(0.005)

    def _agent_channel(self) -> str:
        # The port's name has the number of its virtio device, which comes behind the balloon.
        return f"/dev/vport{0 if self._balloon is None and self._own_balloon is None else 1}p1"

    def _command(self, home: pathlib.Path, channel: int) -> list[str]:
        return [*self._machine(home), *self._origin(), *self._balloon_device(),
                "-chardev", f"socket,id=agent,fd={channel}",
                "-device", "virtio-serial-pci,addr=3",
                "-device", "virtserialport,chardev=agent,name=agent",
                *self._disk_device()]

    def _machine(self, home: pathlib.Path) -> list[str]:
        """All that a snapshot is of."""
        return [*find_qemu(), "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
                "-machine", "q35,memory-backend=memory", *self._accelerator(),
                "-smp", str(_PROCESSORS), "-m", f"{self.memory // MIB}M",
                "-qmp", f"unix:{home / 'qmp'},server=on,wait=off",
                "-chardev", "file,id=console,path=console,append=on", "-serial", "chardev:console"]

    def _origin(self) -> list[str]:
        """What the guest begins with: a kernel, or a snapshot."""
        if self._snapshot is None:
            return [*self._kernel_to_boot(f"AGENT_CHANNEL={self._agent_channel()}"),
                    "-object", f"memory-backend-memfd,id=memory,size={self.memory},share=on"]
        # The same that QEMU would have made.
        memory = os.memfd_create("memory-backend-memfd")
        self._inherited.append(memory)
        copy_memory(self._snapshot.memory, memory)
        return [*self._memory_that_stays(memory), *self._second_line(), *PORT,
                "-incoming", "defer", "-S"]

    def _kernel_to_boot(self, *options: str) -> list[str]:
        # Mitigations are for real processors; an emulated one has nothing but their cost.
        words = ["panic=-1", "console=ttyS0", "quiet", "mitigations=off", *options,
                 *self._kernel_options]
        return ["-kernel", str(self._kernel.vmlinuz), "-initrd", str(self._initramfs),
                "-append", " ".join(words)]

    def _memory_that_stays(self, memory: int) -> list[str]:
        """Memory that is in a file which we have, and hence not in what QEMU saves or loads."""
        return ["-object", f"memory-backend-file,id=memory,size={self.memory},share=on,"
                           f"mem-path=/proc/self/fd/{memory}",
                "-global", "migration.x-ignore-shared=on"]

    def _second_line(self) -> list[str]:
        """On which a guest waits that is made for a snapshot, before it has any of our devices."""
        self._starter, theirs = socket.socketpair()
        self._inherited.append(theirs.detach())
        return ["-chardev", f"socket,id=starter,fd={self._inherited[-1]}",
                "-serial", "chardev:starter"]

    @staticmethod
    def _accelerator() -> list[str]:
        # Emulation unless told otherwise: where /dev/kvm is, stock kernels need not boot with it.
        # By turns in one thread: with a thread for each processor Linux 7.2, which patches its own
        # code while the other processor runs it, met an int3 that was there no more, and died
        # before any driver was loaded; one boot in some fifty died or hung.
        # Without fast string instructions, which are not fast here: the kernel would clear and copy
        # its pages by the byte.
        return {"kvm": ["-accel", "kvm", "-cpu", "host"],
                "threads": ["-accel", "tcg,thread=multi", "-cpu", "max,-erms,-fsrm"],
                "tcg": ["-accel", "tcg,thread=single", "-cpu", "max,-erms,-fsrm"],
                }[os.environ.get("AEROSTAT_ACCEL") or "tcg"]

    def _balloon_device(self) -> list[str]:
        if self._own_balloon is not None:
            properties = f",{self._own_balloon}" if self._own_balloon else ""
            return ["-device", f"virtio-balloon-pci,id=balloon0,addr=2{properties}"]
        if self._balloon is None:
            return []
        connection = ["-chardev", f"socket,id=balloon,path={self._balloon}"]
        if self._snapshot is not None:
            return connection
        properties = ",".join(f"{name}={value}" for name, value in _DEVICE_PROPERTIES.items())
        return [*connection, "-device", f"{_DEVICE},chardev=balloon,{properties},addr=2"]

    def _disk_device(self) -> list[str]:
        if self._disk is None:
            return []
        return ["-drive", f"if=none,id=disk,format=raw,readonly=on,file={self._disk}",
                "-device", "virtio-blk-pci,drive=disk,addr=4"]
