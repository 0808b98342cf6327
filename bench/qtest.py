# SPDX-License-Identifier: MIT
"""A QEMU without a guest: its device driven by hand over QEMU's test protocol, `-accel qtest`.

Nothing runs in the machine. Its PCI bus, the device's registers and the split rings are worked as a
driver would, from here: ports and registers by commands of the protocol, the rings and their
buffers by writing to the machine's memory through /proc/PID/mem. That is QEMU's own mapping, which
is the only one that a guest's pages are in: a page that is mapped by another process too costs
more to give back. For the same reason touch() has QEMU fill memory.

The protocol: a line for each command, "OK [VALUE]" for an answer. The machine is a q35, of which
this knows the ports of PCI's configuration space and where there is room for a BAR.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import types
from collections.abc import Sequence

from vmm.guest import MIB, PAGE
from vmm.qemu import find_qemu
from vmm.qmp import QmpClient

_TIMEOUT = 30.0  # seconds for an answer; QEMU waits for a device in some of them

_SLOT = 2  # where the device is on bus 0
_PCI_ADDRESS, _PCI_DATA = 0xcf8, 0xcfc
_PCI_COMMAND, _PCI_STATUS_HAS_LIST = 0x04, 0x10
_PCI_MEMORY_AND_MASTER = 0x6
_BAR_ADDRESS = 0xe0000000  # below 4 GiB, above memory and the memory-mapped configuration space

_CAP_VENDOR = 0x09
_CAP_COMMON, _CAP_NOTIFY, _CAP_ISR = 1, 2, 3

# virtio_pci_common_cfg
_FEATURE_SELECT, _FEATURE, _DRIVER_SELECT, _DRIVER_FEATURE = 0, 4, 8, 12
_STATUS, _QUEUE_SELECT, _QUEUE_SIZE, _QUEUE_ENABLE, _QUEUE_NOTIFY = 20, 22, 24, 28, 30
_QUEUE_DESC, _QUEUE_DRIVER, _QUEUE_DEVICE = 32, 40, 48

ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET = 1, 2, 4, 8, 64
F_MUST_TELL_HOST, F_EVENT_IDX, F_VERSION_1 = 1 << 0, 1 << 29, 1 << 32

RING_SIZE = 128
PFNS = 256  # in a buffer, as the stock driver of Linux fills them
_BUFFER = 4 * PFNS
_RING_BYTES = 256 * 1024  # what a ring and its buffers have of the memory
RESERVED = 1 * MIB  # at the end of memory, for rings


class QtestError(Exception):
    """QEMU died, refused a command or did not answer in time, or the device is not what it should
    be."""


class QtestMachine:
    """One QEMU process with one device. Use it as a context manager."""

    def __init__(self, workdir: pathlib.Path, size: int, shared: bool,
                 device: Sequence[str]) -> None:
        """`size` bytes of memory that tests may use; `shared`: it is a memfd, else anonymous.
        `device` are QEMU's options for the device, which has to be at addr=2."""
        self.size = size
        self._workdir = workdir
        self._shared = shared
        self._device = device
        self._process: subprocess.Popen[bytes] | None = None
        self._home: pathlib.Path | None = None
        self._sock: socket.socket | None = None
        self._buffer = b""
        self._memory = -1
        self._base = 0

    def start(self) -> None:
        # Short names: a Unix socket's path has 107 bytes.
        self._home = pathlib.Path(tempfile.mkdtemp(prefix="qt-", dir=self._workdir))
        with socket.socket(socket.AF_UNIX) as listener, open(self._home / "log", "wb") as log:
            listener.bind(str(self._home / "qtest"))
            listener.listen(1)
            self._process = subprocess.Popen(self._command(self._home), stdin=subprocess.DEVNULL,
                                             stdout=log, stderr=log, cwd=self._home)
            self._sock = self._connection(listener)
        self._sock.settimeout(_TIMEOUT)
        with QmpClient(self._home / "qmp") as monitor:
            said = monitor.execute("human-monitor-command", command_line=f"gpa2hva {MIB}")
        found = re.search(r" is (0x[0-9a-f]+)", said)
        if not found:
            raise QtestError(f"where is the memory? {said}")
        # Memory of this size is in one piece, so that one address tells all.
        self._base = int(found[1], 16) - MIB
        self._memory = os.open(f"/proc/{self.pid}/mem", os.O_RDWR)

    def _connection(self, listener: socket.socket) -> socket.socket:
        deadline = time.monotonic() + _TIMEOUT
        listener.settimeout(0.2)
        while time.monotonic() < deadline:
            try:
                return listener.accept()[0]
            except TimeoutError:
                if self._process is None or self._process.poll() is not None:
                    break
        raise QtestError(f"QEMU did not start: {self.log()}")

    def _command(self, home: pathlib.Path) -> list[str]:
        size = self.size + RESERVED
        backend = (f"memory-backend-memfd,id=memory,size={size},share=on" if self._shared else
                   f"memory-backend-ram,id=memory,size={size}")
        return [*find_qemu(), "-no-user-config", "-nodefaults", "-display", "none",
                "-machine", "q35,memory-backend=memory", "-accel", "qtest",
                "-m", f"{size // MIB}M", "-object", backend,
                "-qtest", f"unix:{home / 'qtest'}", "-qtest-log", "none",
                "-qmp", f"unix:{home / 'qmp'},server=on,wait=off", *self._device]

    @property
    def pid(self) -> int:
        if self._process is None or self._process.poll() is not None:
            raise QtestError(f"QEMU is not running: {self.log()}")
        return self._process.pid

    def log(self) -> str:
        """What QEMU said on standard output and standard error."""
        return (self._home / "log").read_text(errors="replace") if self._home else ""

    def stop(self) -> None:
        """End the process and remove its files. Harmless when it has ended."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
        if self._process is not None:
            self._process.kill()
            self._process.wait(_TIMEOUT)
            self._process = None
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def __enter__(self) -> QtestMachine:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: types.TracebackType | None) -> None:
        self.stop()

    def send(self, line: str) -> int:
        """Run one command of the protocol; the number that it answers with, 0 if none."""
        if self._sock is None:
            raise QtestError("QEMU is not running")
        self._sock.sendall(line.encode() + b"\n")
        while True:
            answer, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                data = self._sock.recv(4096)
                if not data:
                    raise QtestError(f"QEMU went away at '{line}': {self.log()}")
                self._buffer += data
                continue
            self._buffer = rest
            words = answer.decode(errors="replace").split()
            if words[:1] == ["IRQ"]:
                continue
            if words[:1] != ["OK"]:
                raise QtestError(f"'{line}' was answered with '{answer!r}'")
            return int(words[1], 0) if len(words) > 1 else 0

    def config_read(self, offset: int) -> int:
        """A 32-bit word of the device's PCI configuration space."""
        self.send(f"outl {_PCI_ADDRESS:#x} {1 << 31 | _SLOT << 11 | offset:#x}")
        return self.send(f"inl {_PCI_DATA:#x}")

    def config_write(self, offset: int, value: int) -> None:
        self.send(f"outl {_PCI_ADDRESS:#x} {1 << 31 | _SLOT << 11 | offset:#x}")
        self.send(f"outl {_PCI_DATA:#x} {value:#x}")

    def read(self, address: int, size: int) -> bytes:
        """Guest memory, by guest physical address."""
        data = os.pread(self._memory, size, self._base + address)
        if len(data) != size:
            raise QtestError(f"only {len(data)} of {size} bytes could be read")
        return data

    def write(self, address: int, data: bytes) -> None:
        if os.pwrite(self._memory, data, self._base + address) != len(data):
            raise QtestError(f"{len(data)} bytes could not be written")

    def touch(self, first: int, last: int, value: int = 1) -> None:
        """Have QEMU fill the pages of these numbers with a byte, as a guest that uses them all."""
        step = 16 * MIB  # what QEMU allocates for that meanwhile
        at, end = first * PAGE, (last + 1) * PAGE
        while at < end:
            size = min(step, end - at)
            self.send(f"memset {at:#x} {size:#x} {value:#x}")
            at += size

    def resident(self) -> int:
        """Bytes of host memory that the machine's memory occupies, as the host kernel says."""
        if self._shared:
            for path in pathlib.Path(f"/proc/{self.pid}/fd").iterdir():
                if os.readlink(path).startswith("/memfd:memory-backend-memfd"):
                    return path.stat().st_blocks * 512
            raise QtestError("the machine's memory was not found")
        # Two bits of a word for each page: it is there, or it is in swap.
        with open(f"/proc/{self.pid}/pagemap", "rb", buffering=0) as pagemap:
            count = (self.size + RESERVED) // PAGE
            data = os.pread(pagemap.fileno(), 8 * count, self._base // PAGE * 8)
        return PAGE * sum(1 for byte in data[7::8] if byte & 0xc0)


class VirtioPci:
    """The device of a machine, by the virtio standard's PCI transport."""

    def __init__(self, machine: QtestMachine) -> None:
        self.machine = machine
        self.features = 0
        self._found: dict[int, int] = {}
        self._multiplier = 0
        self._rings = 0
        self._find()

    def _find(self) -> None:
        """Map the BAR that the device's structures are in."""
        machine, bars = self.machine, set()
        if machine.config_read(0) & 0xffff != 0x1af4:
            raise QtestError("there is no virtio device")
        if not machine.config_read(_PCI_COMMAND) >> 16 & _PCI_STATUS_HAS_LIST:
            raise QtestError("the device has no capabilities")
        at = machine.config_read(0x34) & 0xfc
        while at:
            head, bar, offset = (machine.config_read(at + word) for word in (0, 4, 8))
            kind = head >> 24
            if head & 0xff == _CAP_VENDOR and kind in (_CAP_COMMON, _CAP_NOTIFY, _CAP_ISR):
                bars.add(bar & 0xff)
                self._found[kind] = _BAR_ADDRESS + offset
                if kind == _CAP_NOTIFY:
                    self._multiplier = machine.config_read(at + 16)
            at = head >> 8 & 0xfc
        if len(self._found) != 3 or len(bars) != 1:
            raise QtestError(f"not a modern virtio device: {self._found}, BARs {bars}")
        register = 0x10 + 4 * bars.pop()
        if machine.config_read(register) & 7 == 4:  # 64 bits
            machine.config_write(register + 4, 0)
        machine.config_write(register, _BAR_ADDRESS)
        machine.config_write(_PCI_COMMAND, _PCI_MEMORY_AND_MASTER)

    def _read(self, width: str, offset: int) -> int:
        return self.machine.send(f"read{width} {self._found[_CAP_COMMON] + offset:#x}")

    def _write(self, width: str, offset: int, value: int) -> None:
        self.machine.send(f"write{width} {self._found[_CAP_COMMON] + offset:#x} {value:#x}")

    def _write_address(self, offset: int, value: int) -> None:
        self._write("l", offset, value & 0xffffffff)
        self._write("l", offset + 4, value >> 32)

    @property
    def status(self) -> int:
        return self._read("b", _STATUS)

    def negotiate(self, wanted: int) -> None:
        """Reset, then accept those of the features `wanted` that are offered."""
        self._write("b", _STATUS, 0)
        self._rings = 0
        if self.status:
            raise QtestError("the device does not reset")
        self._write("b", _STATUS, ACKNOWLEDGE)
        self._write("b", _STATUS, ACKNOWLEDGE | DRIVER)
        offered = 0
        for half in (0, 1):
            self._write("l", _FEATURE_SELECT, half)
            offered |= self._read("l", _FEATURE) << 32 * half
        self.features = offered & wanted
        for half in (0, 1):
            self._write("l", _DRIVER_SELECT, half)
            self._write("l", _DRIVER_FEATURE, self.features >> 32 * half & 0xffffffff)
        self._write("b", _STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        if not self.status & FEATURES_OK:
            raise QtestError(f"the device does not accept the features {self.features:#x}")

    def add_ring(self, queue: int) -> Ring:
        """Set a queue up, before start()."""
        address = self.machine.size + self._rings * _RING_BYTES
        self._rings += 1
        if self._rings * _RING_BYTES > RESERVED:
            raise QtestError("there is no room for so many rings")
        self._write("w", _QUEUE_SELECT, queue)
        if self._read("w", _QUEUE_SIZE) < RING_SIZE:
            raise QtestError(f"queue {queue} is too small")
        self._write("w", _QUEUE_SIZE, RING_SIZE)
        notify = self._found[_CAP_NOTIFY] + self._read("w", _QUEUE_NOTIFY) * self._multiplier
        ring = Ring(self, queue, address, notify)
        self._write_address(_QUEUE_DESC, ring.descriptors)
        self._write_address(_QUEUE_DRIVER, ring.driver)
        self._write_address(_QUEUE_DEVICE, ring.device)
        self._write("w", _QUEUE_ENABLE, 1)
        return ring

    def start(self) -> None:
        self._write("b", _STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)

    def acknowledge_interrupt(self) -> int:
        """What the interrupt was for: bit 0 a ring, bit 1 the configuration. It is over then."""
        return self.machine.send(f"readb {self._found[_CAP_ISR]:#x}")


class Ring:
    """A split ring with a buffer of page numbers to each of its descriptors."""

    def __init__(self, pci: VirtioPci, queue: int, address: int, notify: int) -> None:
        self._machine = pci.machine
        self._queue = queue
        self._notify = notify
        self._event_idx = bool(pci.features & F_EVENT_IDX)
        self.descriptors, self.driver, self.device = address, address + 4096, address + 8192
        self._buffers = address + 12288
        self._next = 0  # the index that the next buffer has, modulo 2^16
        self._machine.write(address, bytes(_RING_BYTES))  # all of it is resident from now on

    def put(self, buffers: Sequence[bytes]) -> None:
        """Make page numbers available: little-endian, 32 bits each, at most PFNS a buffer. All
        buffers put before must be used. The device is not told, and is asked for an interrupt with
        the last one of them."""
        if len(buffers) > RING_SIZE:
            raise QtestError("the ring is not that large")
        where = [self._buffers + i * _BUFFER for i in range(len(buffers))]
        self._machine.write(self._buffers, b"".join(data.ljust(_BUFFER) for data in buffers))
        self._machine.write(self.descriptors, b"".join(
            struct.pack("<QIHH", address, len(data), 0, 0)
            for address, data in zip(where, buffers)))
        ring = list(struct.unpack(f"<{RING_SIZE}H",
                                  self._machine.read(self.driver + 4, 2 * RING_SIZE)))
        for i in range(len(buffers)):
            ring[(self._next + i) % RING_SIZE] = i
        self._next = (self._next + len(buffers)) & 0xffff
        if self._event_idx:
            ring.append((self._next - 1) & 0xffff)
        self._machine.write(self.driver + 4, struct.pack(f"<{len(ring)}H", *ring))
        self._machine.write(self.driver + 2, struct.pack("<H", self._next))

    def kick(self) -> None:
        self._machine.send(f"writew {self._notify:#x} {self._queue:#x}")

    def all_used(self) -> bool:
        return struct.unpack("<H", self._machine.read(self.device + 2, 2))[0] == self._next

    def wait(self, pause: float = 0.0) -> None:
        """Until all buffers are used, looking every `pause` seconds, else all the time."""
        deadline = time.monotonic() + _TIMEOUT
        while not self.all_used():
            if time.monotonic() > deadline:
                raise QtestError(f"queue {self._queue} makes no progress: {self._machine.log()}")
            if pause:
                time.sleep(pause)

    def run(self, buffers: Sequence[bytes]) -> None:
        """Have the device work off any number of buffers."""
        for i in range(0, len(buffers), RING_SIZE):
            self.put(buffers[i:i + RING_SIZE])
            self.kick()
            self.wait(0.0002)


def pack(pages: Sequence[int]) -> list[bytes]:
    """Buffers as the stock driver fills them, of these page numbers."""
    return [struct.pack(f"<{len(part)}I", *part)
            for part in (pages[i:i + PFNS] for i in range(0, len(pages), PFNS))]


def own_balloon() -> list[str]:
    """QEMU's own device."""
    return ["-device", f"virtio-balloon-pci,addr={_SLOT}"]


def vhost_user_balloon(path: pathlib.Path) -> list[str]:
    """A device that listens on a Unix socket."""
    return ["-chardev", f"socket,id=balloon,path={path}",
            "-device", "vhost-user-test-device-pci,chardev=balloon,virtio-id=5,num_vqs=6,"
                       f"vq_size={RING_SIZE},config_size=20,addr={_SLOT}"]


def start_balloon(machine: QtestMachine) -> tuple[VirtioPci, Ring, Ring]:
    """Bring the device of a machine up as the stock driver does; its inflate and deflate rings."""
    pci = VirtioPci(machine)
    pci.negotiate(F_VERSION_1 | F_EVENT_IDX | F_MUST_TELL_HOST)
    if not pci.features & F_VERSION_1:
        raise QtestError("the device is not a modern one")
    inflate, deflate = pci.add_ring(0), pci.add_ring(1)
    pci.start()
    if pci.status & NEEDS_RESET:
        raise QtestError("the device has a problem with the rings")
    return pci, inflate, deflate
