# SPDX-License-Identifier: MIT
"""libvirt's daemon with all that it has in a directory of its own, and the guests that it starts.

It runs in "session" mode, in which it changes no users and touches nothing of the host's libvirt.
Run by root it would not: so root runs it in a user namespace, under another number.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from .channel import Channel
from .guest import MIB, Guest, GuestError, Result
from .platform import Platform
from .qemu import cache, find_kernel, find_qemu

DRIVER = "libvirt/connection-driver/libvirt_driver_qemu.so"
WAIT = 60.0

_DOMAIN = """<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>panic=-1 console=ttyS0 quiet mitigations=off AGENT_CHANNEL=/dev/vport0p1</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <devices>
    <emulator>{qemu}</emulator>
    <serial type='file'><source path='{home}/{name}.console'/></serial>
    <channel type='unix'>
      <source mode='bind' path='{home}/{name}.agent'/>
      <target type='virtio' name='agent'/>
    </channel>
    <memballoon model='{balloon}'{autodeflate}/>
  </devices>
</domain>
"""


def _other_number() -> list[str]:
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000"] \
        if os.geteuid() == 0 else []


def _daemon() -> str | None:
    own = cache() / "libvirt/usr/sbin/libvirtd"
    return shutil.which("libvirtd", path="/usr/sbin:/usr/bin") or (str(own) if own.exists() else
                                                                   None)


def missing() -> str:
    """What is not there that is needed; empty if nothing."""
    if shutil.which("virsh") is None:
        return "there is no virsh: apt-get install libvirt-clients"
    if not any((path / DRIVER).exists() for path in pathlib.Path("/usr/lib").glob("*-linux-gnu")):
        return "libvirt has no driver for QEMU: apt-get install libvirt-daemon-driver-qemu"
    if _daemon() is None:
        return "there is no libvirtd: ./run test --vmm=qemu unpacks it"
    if subprocess.run([*_other_number(), "true"], check=False, timeout=10,
                      capture_output=True).returncode != 0:
        return "user namespaces are not allowed here: libvirt would run as root"
    return ""


class Domain(Guest):
    """A guest that libvirt has started, with our agent in it."""

    def __init__(self, daemon: Libvirtd, name: str, memory: int) -> None:
        self.name, self.memory = name, memory
        self._daemon = daemon
        self._socket = socket.socket(socket.AF_UNIX)
        self._channel = Channel(self._socket)

    def start(self) -> None:
        """Paused first: who reads from the channel when nobody is at its end finds it closed."""
        home = self._daemon.home
        self._daemon.virsh("create", str(home / f"{self.name}.xml"), "--paused")
        deadline = time.monotonic() + WAIT
        while not (home / f"{self.name}.agent").exists():
            if time.monotonic() > deadline:
                raise GuestError("libvirt has made no channel")
            time.sleep(0.02)
        self._socket.connect(str(home / f"{self.name}.agent"))
        self._daemon.virsh("resume", self.name)
        try:
            self._channel.wait_ready(90)
        except GuestError as error:
            raise GuestError(f"{error}\n{self.console()}") from error

    def load_balloon(self, driver: str | None = None) -> None:
        self.check(f"insmod /lib/modules/{driver or self.driver}/virtio_balloon.ko && "
                   "ls /sys/bus/virtio/drivers/virtio_balloon | grep '^virtio'")

    def run(self, script: str, timeout: float = WAIT) -> Result:
        return self._channel.run(script, timeout)

    def console(self) -> str:
        path = self._daemon.home / f"{self.name}.console"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        """QEMU's."""
        return int((self._daemon.runtime / f"libvirt/qemu/run/{self.name}.pid").read_text())

    def running(self) -> bool:
        return "running" in self._daemon.virsh("domstate", self.name)

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._daemon.virsh("destroy", self.name)  # first: the agent would power it off
        self._channel.close()

    stop = kill

    def memory_file(self) -> pathlib.Path:
        raise GuestError("libvirt shares no memory")

    def resident(self) -> int:
        raise GuestError("libvirt shares no memory")

    def cpu_seconds(self) -> float:
        raise GuestError("nobody asks for this")


class Libvirtd:
    """One daemon. Its machines outlive it, until close()."""

    def __init__(self, workdir: pathlib.Path, platform: Platform) -> None:
        self._platform = platform
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="lv-", dir=workdir))
        self.runtime = self.home / "run"
        configuration = self.home / "config/libvirt"
        self.runtime.mkdir()
        configuration.mkdir(parents=True)
        # There is no virtlogd to write the logs.
        (configuration / "qemu.conf").write_text('stdio_handler = "file"\n')
        (self.home / "libvirtd.conf").write_text('log_outputs = "3:stderr"\n')
        self._qemu = self.home / "qemu-system-x86_64"
        self._qemu.write_text(f"#!/bin/sh\nexec {shlex.join(find_qemu())} \"$@\"\n")
        self._qemu.chmod(0o755)
        self._socket = self.runtime / "libvirt/libvirt-sock"
        self.uri = f"qemu:///session?socket={self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        daemon = _daemon()
        assert daemon is not None
        with open(self.home / "libvirtd.log", "ab") as log:
            self._process = subprocess.Popen(
                [*_other_number(), daemon, "--config", str(self.home / "libvirtd.conf")],
                env={"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8",
                     "XDG_RUNTIME_DIR": str(self.runtime),
                     "XDG_CONFIG_HOME": str(self.home / "config")},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + WAIT
        while self._virsh("list").returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise GuestError(f"libvirtd did not start: {self.log()}")
            time.sleep(0.1)

    def log(self) -> str:
        return (self.home / "libvirtd.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def crash(self) -> None:
        """Its machines go on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)
        self._process = None

    def _virsh(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["virsh", "-q", "-c", self.uri, *words], text=True, timeout=WAIT,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8",
                                   "HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.runtime)})

    def virsh(self, *words: str) -> str:
        """One command; what it says."""
        result = self._virsh(*words)
        if result.returncode != 0:
            raise GuestError(f"virsh {shlex.join(words)}: {result.stderr}\n{self.log()}")
        return result.stdout

    def domain(self, name: str, memory: int, balloon: str = "virtio") -> Domain:
        """A machine that is not started yet. memory: what its guest has beyond what its kernel
        takes; balloon: as libvirt names its models."""
        kernel = find_kernel(self._platform.kernel)
        memory += kernel.takes
        (self.home / f"{name}.xml").write_text(_DOMAIN.format(
            name=name, mib=memory // MIB, kernel=kernel.vmlinuz, qemu=self._qemu, home=self.home,
            initrd=self._platform.initramfs, balloon=balloon,
            # As in the guests without libvirt: a test fills them faster than anybody can look.
            autodeflate=" autodeflate='on'" if balloon == "virtio" else ""))
        domain = Domain(self, name, memory)
        domain.driver = self._platform.driver
        return domain

    def close(self) -> None:
        """Ends it and all its machines, whatever their state."""
        if self._process is not None:
            self.crash()
        for path in self.runtime.glob("libvirt/qemu/run/*.pid"):
            try:
                os.kill(int(path.read_text()), signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                pass
        shutil.rmtree(self.home, ignore_errors=True)
