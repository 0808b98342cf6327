# SPDX-License-Identifier: MIT
"""examples/libvirt-domain.xml, given to libvirt: what it makes of it, and the guest that it starts.

libvirt's driver for QEMU runs inside of virsh here (qemu:///embed), so nothing of the host's own
libvirt is touched. It is as in "session" mode: it does not change users. Run by root it would, to
one that only the package of the daemon makes; so root runs it under another number.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import select
import shlex
import shutil
import socket
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import pytest

from conftest import Bed
from documented import ROOT, words
from vmm import GuestError
from vmm.channel import Channel
from vmm.guest import MIB
from vmm.platform import Platform
from vmm.qemu import find_kernel, find_qemu

EXAMPLE = ROOT / "examples" / "libvirt-domain.xml"
QEMU_NAMES = {"qemu": "http://libvirt.org/schemas/domain/qemu/1.0"}
SOCKET = "/run/aerostat/vm1/vhost"  # what the example calls it
DRIVER = "libvirt/connection-driver/libvirt_driver_qemu.so"
WAIT = 60.0
GUEST = 1 << 30  # bytes: less than in the example, which takes longer
END = "that-is-all"

pytestmark = [pytest.mark.vmm("qemu", reason="it is about QEMU"),
              pytest.mark.driver("stock", reason="it is about libvirt"),
              pytest.mark.once(reason="it is about libvirt")]


class Libvirt:
    """One virsh, with what libvirt knows in a directory of its own."""

    def __init__(self, home: pathlib.Path) -> None:
        self.home = home
        self.configuration = home / "config"
        for name in ("config", "root/etc"):
            (home / name).mkdir(parents=True)
        # There is no virtlogd to write the logs.
        (home / "root/etc/qemu.conf").write_text('stdio_handler = "file"\n')
        self.qemu = home / "qemu-system-x86_64"
        self.qemu.write_text(f"#!/bin/sh\nexec {shlex.join(find_qemu())} \"$@\"\n")
        self.qemu.chmod(0o755)
        self._virsh: subprocess.Popen[bytes] | None = None

    @staticmethod
    def _other_number() -> list[str]:
        return ["unshare", "--user", "--map-user=1000", "--map-group=1000"] \
            if os.geteuid() == 0 else []

    @classmethod
    def missing(cls) -> str:
        """What is not there that is needed; empty if nothing."""
        if shutil.which("virsh") is None:
            return "there is no virsh: apt-get install libvirt-clients"
        if not any((path / DRIVER).exists()
                   for path in pathlib.Path("/usr/lib").glob("*-linux-gnu")):
            return "libvirt has no driver for QEMU: apt-get install libvirt-daemon-driver-qemu"
        if subprocess.run([*cls._other_number(), "true"], check=False, timeout=10,
                          capture_output=True).returncode != 0:
            return "user namespaces are not allowed here: libvirt would run as root"
        return ""

    def _command(self, *arguments: str) -> list[str]:
        return [*self._other_number(), "virsh", "-q", "-c",
                f"qemu:///embed?root={self.home / 'root'}", *arguments]

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8",
                "XDG_RUNTIME_DIR": str(self.home), "XDG_CONFIG_HOME": str(self.configuration)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command, in a virsh of its own."""
        return subprocess.run(self._command(*arguments), env=self._environment(), text=True,
                              timeout=WAIT, stdin=subprocess.DEVNULL, check=False,
                              capture_output=True)

    def say(self, command: str) -> str:
        """One command to a virsh that stays, as its domains are gone with it; what it says."""
        if self._virsh is None:
            self._virsh = subprocess.Popen(
                self._command(), env=self._environment(), bufsize=0, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._virsh.stdin is not None and self._virsh.stdout is not None
        self._virsh.stdin.write(f"{command}\necho {END}\n".encode())
        said, deadline = "", time.monotonic() + WAIT
        while END not in said.replace(f"echo {END}", ""):
            left = max(deadline - time.monotonic(), 0)
            ready = select.select([self._virsh.stdout], [], [], left)[0]
            data = os.read(self._virsh.stdout.fileno(), 1 << 16) if ready else b""
            assert data, f"virsh does not answer '{command}': {said}"
            said += data.decode(errors="replace")
        return said

    def close(self) -> None:
        if self._virsh is not None:
            try:
                self.say("destroy vm1")
            finally:
                try:
                    self._virsh.communicate(b"quit\n", timeout=WAIT)
                except subprocess.TimeoutExpired:
                    self._virsh.kill()
                    self._virsh.wait()
                    raise


@pytest.fixture
def libvirt(workdir: pathlib.Path) -> Iterator[Libvirt]:
    missing = Libvirt.missing()
    if missing:
        pytest.skip(missing)
    home = workdir / "libvirt"
    libvirt = Libvirt(home)
    try:
        yield libvirt
    finally:
        libvirt.close()
        shutil.rmtree(home)


def domain(libvirt: Libvirt, platform: Platform, vhost: pathlib.Path | str) -> pathlib.Path:
    """The example, on this host: emulated, with a kernel of the test bed and our agent."""
    top = ElementTree.parse(EXAMPLE).getroot()
    top.set("type", "qemu")
    kernel, home = find_kernel(platform.kernel), libvirt.home
    (home / "vm1.img").write_bytes(bytes(MIB))
    texts = {"memory": str(GUEST // (1 << 30)),  # in GiB
             "vcpu": "1",  # libvirt has no way to say thread=single
             "devices/emulator": str(libvirt.qemu)}
    for path, text in texts.items():
        found = top.find(path)
        assert found is not None
        found.text = text
    system, devices = top.find("os"), top.find("devices")
    source, serial = top.find("devices/disk/source"), top.find("devices/serial")
    assert None not in (system, devices, source, serial)
    source.set("file", str(home / "vm1.img"))
    for name, text in (("kernel", str(kernel.vmlinuz)), ("initrd", str(platform.initramfs)),
                       ("cmdline", "panic=-1 console=ttyS0 quiet AGENT_CHANNEL=/dev/vport1p1")):
        ElementTree.SubElement(system, name).text = text
    for name in ("serial", "console"):
        element = top.find(f"devices/{name}")
        element.set("type", "file")
        ElementTree.SubElement(element, "source", {"path": str(home / "console")})
    channel = ElementTree.SubElement(devices, "channel", {"type": "unix"})
    ElementTree.SubElement(channel, "source", {"mode": "bind", "path": str(home / "agent")})
    ElementTree.SubElement(channel, "target", {"type": "virtio", "name": "agent"})
    changed = 0
    for argument in top.iterfind("qemu:commandline/qemu:arg", QEMU_NAMES):
        value = argument.get("value", "")
        changed += SOCKET in value
        argument.set("value", value.replace(SOCKET, str(vhost)))
    assert changed == 1
    path = home / "vm1.xml"
    ElementTree.ElementTree(top).write(path)
    return path


def test_what_libvirt_makes_of_the_example(libvirt: Libvirt, platform: Platform) -> None:
    """Nothing that QEMU would refuse, and all that the device needs."""
    path = domain(libvirt, platform, SOCKET)
    result = libvirt.run("domxml-to-native", "qemu-argv", str(path))
    assert result.returncode == 0, result.stderr
    argv = shlex.split(result.stdout)
    pairs = list(zip(argv, argv[1:]))
    assert ("-chardev", f"socket,id=aerostat,path={SOCKET}") in pairs
    ours = [value for option, value in pairs if value.startswith("vhost-user-test-device-pci,")]
    # The same as without libvirt, but for names and places.
    named = ("id=", "chardev=", "bus=", "addr=")
    plain = next(word for word in words("qemu") if word.startswith("vhost-user-test-device-pci,"))
    assert len(ours) == 1
    assert [part for part in ours[0].split(",") if not part.startswith(named)] == \
        [part for part in plain.split(",") if not part.startswith(named)]
    # Memory that is shared.
    memory = [json.loads(value) for option, value in pairs
              if option == "-object" and "memory-backend" in value]
    assert [item["qom-type"] for item in memory] == ["memory-backend-memfd"]
    assert memory[0]["share"] is True and memory[0]["size"] == GUEST
    machine = next(value for option, value in pairs if option == "-machine")
    assert f"memory-backend={memory[0]['id']}" in machine.split(",")
    # No other balloon, and nobody else in our place or with our name.
    assert "virtio-balloon" not in result.stdout
    assert sum("aerostat0" in word for word in argv) == 1
    slots = {json.loads(value)["addr"] for option, value in pairs
             if option == "-device" and '"bus":"pcie.0"' in value}
    assert slots and not any(int(slot.partition(".")[0], 16) == 0x10 for slot in slots)


def wait_for(what: str, path: pathlib.Path, console: pathlib.Path) -> None:
    deadline = time.monotonic() + WAIT
    while not path.exists():
        assert time.monotonic() < deadline, f"{what}: {console.read_text(errors='replace')}"
        time.sleep(0.02)


def test_a_guest_that_libvirt_starts(bed: Bed, libvirt: Libvirt, platform: Platform) -> None:
    device = bed.device("--features=no-page-reporting")
    path = domain(libvirt, platform, device.socket)
    # Paused: whoever reads from the channel when nobody is at its other end finds it closed.
    said = libvirt.say(f"create {path} --paused")
    assert "paused" in libvirt.say("domstate vm1"), said
    with socket.socket(socket.AF_UNIX) as sock:
        wait_for("the agent's channel", libvirt.home / "agent", libvirt.home / "console")
        sock.connect(str(libvirt.home / "agent"))
        libvirt.say("resume vm1")
        agent = Channel(sock)
        try:
            agent.wait_ready(90)
        except GuestError as error:
            raise GuestError((libvirt.home / "console").read_text(errors="replace")) from error
        loaded = agent.run(f"insmod /lib/modules/{platform.driver}/virtio_balloon.ko && "
                           "ls /sys/bus/virtio/drivers/virtio_balloon", WAIT)
        assert re.search(r"^virtio\d+$", loaded.text, re.MULTILINE), loaded.text
        touched = agent.run("dd if=/dev/zero of=/data/x bs=1M count=256 && rm /data/x", WAIT)
        assert touched.status == 0, touched.text
        full = device.query()["resident"]
        assert device.memory() == GUEST
        device.inflate_to(GUEST - 512 * MIB, 120)
        assert device.query()["resident"] < full - 200 * MIB
        # What the document says is lost: libvirt knows nothing of all this.
        assert f"Used memory:    {GUEST // 1024} KiB" in libvirt.say("dominfo vm1")
        assert "without the balloon device" in libvirt.say("setmem vm1 512M --live")
        figures = re.findall(r"^([\w-]+) \d+$", libvirt.say("dommemstat vm1"), re.MULTILINE)
        assert figures == ["rss"]
        device.inflate_to(0, 60)
        assert agent.run("true", WAIT).status == 0


def test_libvirt_reads_our_descriptor(libvirt: Libvirt, platform: Platform, bed: Bed) -> None:
    """It looks for a back end for graphics, and reads on its way what there is of others; one that
    it could not read would be in the way of all."""
    folder = libvirt.configuration / "qemu" / "vhost-user"
    folder.mkdir(parents=True)
    path = domain(libvirt, platform, SOCKET)
    tree = ElementTree.parse(path)
    devices = tree.getroot().find("devices")
    assert devices is not None
    video = ElementTree.SubElement(devices, "video")
    ElementTree.SubElement(video, "driver", {"name": "vhostuser"})
    ElementTree.SubElement(video, "model", {"type": "virtio"})
    tree.write(path)

    def complaint() -> str:
        # It always has one: what graphics need beyond the descriptor is not there.
        return libvirt.run("domxml-to-native", "qemu-argv", str(path)).stderr.strip()

    without = complaint()
    assert "vhost-user-gpu" in without
    graphics = libvirt.home / "graphics"
    graphics.write_text("""#!/bin/sh\necho '{"type": "gpu", "features": []}'\n""")
    graphics.chmod(0o755)
    (folder / "60-graphics.json").write_text(json.dumps(
        {"description": "a stand-in", "type": "gpu", "binary": str(graphics)}))
    found = complaint()
    assert found != without
    ours = folder / "50-aerostat-balloon.json"
    shutil.copy(bed.binary.parent / ours.name, ours)
    assert complaint() == found
    # And it does read it:
    ours.write_text(ours.read_text().replace('"balloon"', '"ballon"'))
    assert "ballon" in complaint()
