# SPDX-License-Identifier: MIT
"""What a guest can do, whatever virtual machine monitor runs it."""

from __future__ import annotations

import abc
import dataclasses
import pathlib
import types

MIB = 1 << 20
PAGE = 4096

# A guest boots in 1 to 2 s alone; twenty at once on two cores take twenty times that.
BOOT_TIMEOUT = 90.0
COMMAND_TIMEOUT = 60.0


class GuestError(Exception):
    """The guest died, did not answer in time, or a checked command failed in it."""


class MissingPackage(Exception):
    """Something that a guest needs is not installed; the text says what to install."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command in the guest printed (stdout and stderr together), and its exit status."""

    output: bytes
    status: int

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace")


class Guest(abc.ABC):
    """A virtual machine with one balloon device. Use it as a context manager: it starts on entry
    and nothing of it is left after exit."""

    #: The size of the guest's memory in bytes, as it was configured.
    memory: int

    #: The balloon driver that load_balloon() loads: "stock" or "aerostat".
    driver = "stock"

    #: What the guest calls its disk, if it has one.
    disk_device: str

    @abc.abstractmethod
    def start(self) -> None:
        """Boot, and return when the guest runs commands. The device must be listening before."""

    @abc.abstractmethod
    def run(self, script: str, timeout: float = COMMAND_TIMEOUT) -> Result:
        """Run a shell script in the guest and wait for its end, at most `timeout` seconds."""

    @abc.abstractmethod
    def pause(self) -> None:
        """Stop the guest's processor. The guest does not notice; the host gets no answer."""

    @abc.abstractmethod
    def resume(self) -> None:
        """Undo pause()."""

    @abc.abstractmethod
    def kill(self) -> None:
        """End the guest as a crash of its monitor would: at once, without a word to anybody."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Power off; kill() when the guest takes too long. Harmless on a guest that has ended."""

    @abc.abstractmethod
    def running(self) -> bool:
        """Whether the guest's process still exists."""

    @abc.abstractmethod
    def resident(self) -> int:
        """Bytes of host memory that the guest's memory occupies now, as the host kernel says."""

    @abc.abstractmethod
    def memory_file(self) -> pathlib.Path:
        """The file on the host that is the guest's memory: a page is where its guest physical
        address says."""

    @abc.abstractmethod
    def cpu_seconds(self) -> float:
        """Host processor time that the guest has used so far."""

    @property
    @abc.abstractmethod
    def pid(self) -> int:
        """The host's process that is the guest, and leads its process group."""

    @abc.abstractmethod
    def console(self) -> str:
        """Everything that the guest's kernel has printed."""

    def check(self, script: str, timeout: float = COMMAND_TIMEOUT) -> str:
        """Run a script that must succeed and return its output as text."""
        result = self.run(script, timeout)
        if result.status != 0:
            raise GuestError(f"exit status {result.status} from:\n{script}\n{result.text}")
        return result.text

    def load_balloon(self, driver: str | None = None) -> None:
        """Load the guest's balloon driver, or the one named ("stock" comes with the kernel,
        "aerostat" is ours), and make sure that it took the device."""
        self.check(f"insmod /lib/modules/{driver or self.driver}/virtio_balloon.ko && "
                   "test -e /sys/bus/virtio/drivers/virtio_balloon/virtio0")

    def unload_balloon(self) -> None:
        """Unload the balloon driver; it hands all its pages back to the guest."""
        self.check("rmmod virtio_balloon")

    def features(self) -> set[int]:
        """The feature bits that the driver negotiated."""
        bits = self.check("cat /sys/bus/virtio/devices/virtio0/features").strip()
        return {index for index, bit in enumerate(bits) if bit == "1"}

    def meminfo(self) -> dict[str, int]:
        """/proc/meminfo in bytes."""
        lines = (line.split() for line in self.check("cat /proc/meminfo").splitlines())
        return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}

    def free_memory(self) -> int:
        """Bytes that nobody has. MemFree is less by what lies in the processors' own lists, where
        Linux 6.7 and later keep many MiB of what was freed for half a minute."""
        text = self.check("cat /proc/meminfo /proc/zoneinfo")
        lines = [line.split() for line in text.splitlines()]
        listed = sum(int(words[1]) for words in lines if words[:1] == ["count:"])
        return listed * PAGE + sum(int(words[1]) for words in lines
                                   if words[:1] == ["MemFree:"]) * 1024

    def vmstat(self) -> dict[str, int]:
        """/proc/vmstat as it is: counts of pages or events."""
        lines = (line.split() for line in self.check("cat /proc/vmstat").splitlines())
        return {name: int(value) for name, value in lines}

    def counters(self) -> dict[str, int | str]:
        """What our driver counts: every file of its directory in sysfs."""
        lines = self.check("cd /sys/bus/virtio/devices/virtio0/balloon && grep -H . *").splitlines()
        split = (line.partition(":") for line in lines)
        return {name: int(value) if value.lstrip("-").isdigit() else value
                for name, _, value in split}

    def __enter__(self) -> Guest:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: types.TracebackType | None) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()
