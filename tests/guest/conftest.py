# SPDX-License-Identifier: MIT
"""Guest tests: a real kernel with the stock driver against the real device.

AEROSTAT_BALLOON names the vhost-user-balloon binary under test.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import tempfile
from collections.abc import Iterator

import pytest

from vmm import Device, DriverGuest, UmlGuest, build_initramfs
from vmm.guest import MIB
from vmm.uml import MODULES


def pytest_configure() -> None:
    # As Ctrl-C: guests and devices are ended, files removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class Bed:
    """Starts devices and guests for one test. At its end all are stopped, and every device must
    have found nothing wrong with its (honest) guests and must end cleanly."""

    def __init__(self, workdir: pathlib.Path, initramfs: pathlib.Path) -> None:
        self._workdir = workdir
        self._initramfs = initramfs
        self._devices: list[Device] = []
        #: Names of errors that even an honest driver may seem to make.
        self.harmless: set[str] = set()
        self._guests: list[UmlGuest | DriverGuest] = []

    @property
    def binary(self) -> pathlib.Path:
        """The program under test."""
        binary = os.environ.get("AEROSTAT_BALLOON")
        assert binary, "set AEROSTAT_BALLOON to the vhost-user-balloon binary"
        return pathlib.Path(binary)

    def device(self, *options: str, program: pathlib.Path | None = None) -> Device:
        device = Device(program or self.binary, self._workdir, *options)
        self._devices.append(device)
        device.start()
        return device

    def guest(self, device: Device | None = None, memory: int = 256 * MIB,
              disk: pathlib.Path | None = None, kernel_options: tuple[str, ...] = ()) -> UmlGuest:
        guest = UmlGuest(self._initramfs, self._workdir, memory,
                         device.socket if device is not None else None, disk, kernel_options)
        self._guests.append(guest)
        guest.start()
        return guest

    def pair(self, *options: str, memory: int = 256 * MIB, disk: pathlib.Path | None = None,
             kernel_options: tuple[str, ...] = (),
             reporting: bool = False,
             program: pathlib.Path | None = None) -> tuple[Device, UmlGuest]:
        """A device and its guest with the driver loaded. A guest that reports its free pages gives
        memory back at times of its own: only the tests of that want it."""
        device = self.device(*([] if reporting else ["--features=no-page-reporting"]), *options,
                             program=program)
        guest = self.guest(device, memory, disk, kernel_options)
        guest.load_balloon()
        return device, guest

    def driver_pair(self, *options: str, memory: int = 128 * MIB,
                    poison: int | None = None) -> tuple[Device, DriverGuest]:
        """A device that offers all there is, and a guest made of our own driver."""
        device = self.device("--features=stats-push,message", *options)
        guest = DriverGuest(self.binary, device.socket, memory // MIB, poison)
        self._guests.append(guest)
        guest.start()
        return device, guest

    def forget(self, device: Device) -> None:
        """The test ends this device itself."""
        self._devices.remove(device)

    def close(self) -> None:
        for device in self._devices:
            state = device.again(device.query)
            errors = {name for name, count in state["driver-errors"].items() if count}
            assert errors <= self.harmless, state
            assert state["unknown-tags"] == 0, state
            assert not any(queue["broken"] for queue in state["queues"]), state
        for guest in self._guests:
            guest.stop()
        for device in self._devices:
            device.stop()

    def kill(self) -> None:
        for thing in [*self._guests, *self._devices]:
            thing.kill()


@pytest.fixture(scope="session")
def workdir() -> Iterator[pathlib.Path]:
    # Not pytest's own: its paths are too long for Unix sockets.
    path = pathlib.Path(tempfile.mkdtemp(prefix="aerostat-guest-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def initramfs(workdir: pathlib.Path) -> pathlib.Path:
    return build_initramfs(MODULES, workdir / "initramfs")


@pytest.fixture
def bed(request: pytest.FixtureRequest, workdir: pathlib.Path,
        initramfs: pathlib.Path) -> Iterator[Bed]:
    bed = Bed(workdir, initramfs)
    failed_before = request.session.testsfailed
    try:
        yield bed
        # A test that failed has said what is wrong; its leftovers would only hide that.
        if request.session.testsfailed == failed_before:
            bed.close()
    finally:
        bed.kill()
