# SPDX-License-Identifier: MIT
"""Guests that are started as docs/vmm-support.md says, word for word.

A fenced block of the document that stands below a line <!-- tested: NAME --> is run by the tests.
Only what belongs to the host is put in other words: where files and sockets are, and that a
processor is emulated.
"""

from __future__ import annotations

import json
import pathlib
import re
import shlex
from typing import Any

from vmm import Device, UmlGuest
from vmm.platform import Platform
from vmm.process import ProcessGuest
from vmm.qemu import find_kernel, find_qemu
from vmm.qmp import QmpClient

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "vmm-support.md"

# What the document calls them.
SOCKET, DEVICE_MONITOR = "/run/vm1/balloon", "/run/vm1/balloon-qmp"
MONITOR, DISK = "/run/vm1/monitor", "vm1.img"


def block(name: str) -> str:
    """The text of a block of the document."""
    found = re.findall(rf"^<!-- tested: {re.escape(name)} -->\n+```\w*\n(.*?)^```$",
                       DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{DOCUMENT} has {len(found)} blocks '{name}'"
    return str(found[0])


def words(name: str) -> list[str]:
    """The words of a block that is one command."""
    return shlex.split(block(name).replace("\\\n", " "))


def tell(monitor: QmpClient, name: str, socket: pathlib.Path) -> list[Any]:
    """Say a block of QMP commands, one a line; what each returned."""
    answers = []
    for line in block(name).splitlines():
        message = json.loads(line.replace(SOCKET, str(socket)))
        answers.append(monitor.execute_as_is(message["execute"], message.get("arguments", {})))
    return answers


class DocumentedGuest(ProcessGuest):
    """A guest under QEMU."""

    def __init__(self, platform: Platform, workdir: pathlib.Path, device: Device,
                 command: list[str], memory: int, virtio_devices: int = 2) -> None:
        """`command` is the document's, of a machine with so many bytes of `memory` and so many
        devices of virtio."""
        super().__init__(platform.initramfs, workdir, memory, device.socket)
        self._kernel = find_kernel(platform.kernel)
        self._words = command
        self._virtio_devices = virtio_devices
        self._monitor: QmpClient | None = None
        self.driver = platform.driver

    @property
    def monitor(self) -> QmpClient:
        assert self._home is not None
        if self._monitor is None:
            self._monitor = QmpClient(self._home / "qmp")
        return self._monitor

    def wait_booted(self, timeout: float = 90.0) -> None:
        """Until the guest is there again after a reset."""
        assert self._channel is not None
        self._channel.wait_ready(timeout)

    def memory_file(self) -> pathlib.Path:
        return self._open_file("/memfd:memory-backend-memfd")

    def _clean_up(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        super()._clean_up()

    def _command(self, home: pathlib.Path, channel: int) -> list[str]:
        assert self._words[0] == "qemu-system-x86_64"
        (home / DISK).write_bytes(bytes(1 << 20))
        # By turns, whatever AEROSTAT_ACCEL says: these tests are about QEMU's devices.
        other = {"-accel": "tcg,thread=single", "-cpu": "max"}
        command = []
        for before, word in zip(self._words, self._words[1:]):
            word = word.replace(SOCKET, str(self._balloon)).replace(MONITOR, str(home / "qmp"))
            command.append(other.get(before, word))
        # The kernel and the agent are the tests' own, beside what the document has.
        append = f"panic=-1 console=ttyS0 quiet AGENT_CHANNEL=/dev/vport{self._virtio_devices}p1"
        return [*find_qemu(), *command, "-kernel", str(self._kernel.vmlinuz),
                "-initrd", str(self._initramfs), "-append", append,
                "-chardev", "file,id=console,path=console,append=on", "-serial", "chardev:console",
                "-chardev", f"socket,id=agent,fd={channel}", "-device", "virtio-serial-pci",
                "-device", "virtserialport,chardev=agent,name=agent"]


class DocumentedUmlGuest(UmlGuest):
    """A guest under user-mode-linux."""

    def __init__(self, platform: Platform, workdir: pathlib.Path, device: Device, memory: int) \
            -> None:
        super().__init__(platform.initramfs, workdir, memory, device.socket)
        self.driver = platform.driver

    def _arguments(self, channel: int) -> list[str]:
        command = words("user-mode-linux")
        assert command[:3] == ["setarch", "-R", "linux.uml"]
        ours = [word for word in super()._arguments(channel)
                if not word.startswith(("mem=", "initrd=", "virtio_uml.device="))]
        own = [word.replace(SOCKET, str(self._balloon)).replace("initrd.img", str(self._initramfs))
               for word in command[3:]]
        return [*own, *ours]
