# SPDX-License-Identifier: MIT
"""Guest tests: a real kernel with a balloon driver against the real device.

AEROSTAT_BALLOON names the vhost-user-balloon binary under test, AEROSTAT_MODULES the directory with
our driver, KERNEL/virtio_balloon.ko, AEROSTAT_GUEST_PROGRAMS one of programs for the guest,
AEROSTAT_MANAGER the aerostatd binary, and AEROSTAT_RELEASE the directory of a release build.

Options choose what a test runs on. A test for one driver or one monitor only is marked
driver("stock"), driver("aerostat"), vmm("uml") or vmm("qemu"), with a `reason`, and does not belong
to other runs. One whose subject is neither the guest's kernel nor its driver is marked `once`, with
a `reason`: under QEMU it runs with the newest kernel only, and with the kernel's own driver unless
it is for ours, except that --full is given. once(driver="stock") is for one that has much to say
with the other driver, and so runs with each kernel then. One that under QEMU wants a kernel in any
case is marked kernel("7.2").
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vmm import Device, DriverGuest, Guest, MissingPackage, QemuGuest
from vmm.guest import MIB
from vmm.manager import Manager
from vmm.platform import DRIVERS, KERNELS, MONITORS, Platform, build_platform, our_driver


StartManager = Callable[..., Manager]

#: Tests that belong to this run and are left to the one with another kernel or driver.
LEFT_OUT = pytest.StashKey[list[pytest.Item]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("guests")
    group.addoption("--driver", choices=DRIVERS, default="stock",
                    help="the balloon driver that guests load: the kernel's own, or ours")
    group.addoption("--vmm", choices=MONITORS, default="uml", help="what runs the guests")
    group.addoption("--kernel", choices=KERNELS, default="6.12",
                    help="the kernel of guests under QEMU")
    group.addoption("--full", action="store_true",
                    help="under QEMU: also what is about no kernel runs with each, what is long "
                         "stays so, and every guest boots; else most go on from a snapshot")


def pytest_configure(config: pytest.Config) -> None:
    for mark in ("driver", "vmm"):
        config.addinivalue_line("markers", f"{mark}(name, reason): runs with --{mark}=name only")
    config.addinivalue_line("markers", "kernel(name, reason): for --kernel=name only under QEMU")
    config.addinivalue_line("markers", "once(reason): runs with one of QEMU's kernels, and "
                            "one driver, only; with driver=...: does so with that driver")
    # As Ctrl-C: guests and devices are ended, files removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if config.getoption("--driver") == "aerostat":
        on_qemu = config.getoption("--vmm") == "qemu"
        try:
            our_driver(config.getoption("--kernel") if on_qemu else "uml")
        except MissingPackage as error:
            raise pytest.UsageError(f"--driver=aerostat: {error}") from error


@pytest.hookimpl(trylast=True)  # what -k leaves
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that are not for this driver or monitor are none of this run's."""
    away = [item for item in items
            if any(mark.args[0] != config.getoption(f"--{name}")
                   for name in ("driver", "vmm") for mark in item.iter_markers(name))]
    config.hook.pytest_deselected(items=away)
    items[:] = [item for item in items if item not in away]
    left_out = [item for item in items if _is_for_another_run(item)]
    config.stash[LEFT_OUT] = left_out
    items[:] = [item for item in items if item not in left_out]


def _is_for_another_run(item: pytest.Item) -> bool:
    option = item.config.getoption
    if option("--vmm") != "qemu":
        return False
    kernel, driver = option("--kernel"), option("--driver")
    if any(mark.args[0] != kernel for mark in item.iter_markers("kernel")):
        return True
    if option("--full"):
        return False
    for mark in item.iter_markers("once"):
        its_driver = mark.kwargs.get("driver")
        if its_driver is not None and its_driver != driver:
            continue
        if kernel != KERNELS[-1]:
            return True
        if its_driver is None and driver != DRIVERS[0] and not any(item.iter_markers("driver")):
            return True
    return False


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter,
                            config: pytest.Config) -> None:
    """Nothing is left out in silence. tools/run_tests.py looks for this line."""
    left_out = config.stash.get(LEFT_OUT, [])
    files: dict[str, dict[str, None]] = {}
    for item in left_out:
        file, _, name = item.nodeid.partition("[")[0].partition("::")
        files.setdefault(pathlib.Path(file).stem, {})[name.removeprefix("test_")] = None
    if files:
        terminalreporter.write_line(f"left out: {len(left_out)} tests that run with another kernel "
                                    "or driver only:")
    for file, names in files.items():
        terminalreporter.write_line(f"    {file}: {', '.join(names)}")


class Bed:
    """Starts devices and guests for one test. At its end all are stopped, and every device must
    have found nothing wrong with its (honest) guests and must end cleanly."""

    def __init__(self, workdir: pathlib.Path, platform: Platform) -> None:
        self._workdir = workdir
        #: What the guests are: driver, monitor, kernel.
        self.platform = platform
        self._devices: list[Device] = []
        #: Names of errors that even an honest driver may seem to make.
        self.harmless: set[str] = set()
        self._guests: list[Guest | DriverGuest] = []

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
              disk: pathlib.Path | None = None, kernel_options: tuple[str, ...] = (),
              boots: bool = False) -> Guest:
        """`boots`: with its device, and not without it to go on from a snapshot."""
        guest = self.platform.guest(self._workdir, memory,
                                    device.socket if device is not None else None, disk,
                                    kernel_options, boots)
        self._guests.append(guest)
        guest.start()
        return guest

    def qemu_guest(self, memory: int = 256 * MIB, own_balloon: str | None = None,
                   device: Device | None = None) -> QemuGuest:
        """One with QEMU's own balloon, which gets the properties `own_balloon`, or with ours."""
        guest = self.platform.qemu_guest(self._workdir, memory, own_balloon,
                                         device.socket if device is not None else None)
        self._guests.append(guest)
        guest.start()
        return guest

    def pair(self, *options: str, memory: int = 256 * MIB, disk: pathlib.Path | None = None,
             kernel_options: tuple[str, ...] = (),
             reporting: bool = False, push_and_messages: bool = False,
             program: pathlib.Path | None = None,
             boots: bool = False) -> tuple[Device, Guest]:
        """A device and its guest with the driver loaded. A guest that reports its free pages gives
        memory back at times of its own: only the tests of that want it. `push_and_messages` offers
        what no driver but ours accepts."""
        device = self.device(*([] if reporting else ["--features=no-page-reporting"]),
                             *(["--features=stats-push,message"] if push_and_messages else []),
                             *options, program=program)
        guest = self.guest(device, memory, disk, kernel_options, boots)
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
        """All of it, whatever goes wrong with one."""
        with contextlib.ExitStack() as ends:
            for thing in [*self._devices, *self._guests]:  # the last one is called first
                ends.callback(thing.kill)


class Interruption:
    """Whether somebody wants the run to end."""

    came = False


def pytest_keyboard_interrupt() -> None:
    """Before fixtures are torn down."""
    Interruption.came = True


@pytest.fixture(scope="session")
def workdir() -> Iterator[pathlib.Path]:
    # Not pytest's own: its paths are too long for Unix sockets.
    path = pathlib.Path(tempfile.mkdtemp(prefix="aerostat-guest-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest, workdir: pathlib.Path) -> Iterator[Platform]:
    snapshots, brief = None, not request.config.getoption("--full")
    # With KVM a guest boots in no time.
    if brief and os.environ.get("AEROSTAT_ACCEL") != "kvm":
        snapshots = workdir / "snapshots"
        snapshots.mkdir()
    platform = build_platform(*(request.config.getoption(f"--{name}")
                                for name in ("driver", "vmm", "kernel")), workdir / "initramfs",
                              snapshots, brief)
    yield platform
    if platform.snapshots is not None:
        platform.snapshots.close()


@pytest.fixture
def bed(request: pytest.FixtureRequest, workdir: pathlib.Path,
        platform: Platform) -> Iterator[Bed]:
    bed = Bed(workdir, platform)
    failed_before = request.session.testsfailed
    try:
        yield bed
        # A test that failed has said what is wrong; its leftovers would only hide that. One that
        # was interrupted leaves a guest that is busy, and cannot power itself off soon.
        if request.session.testsfailed == failed_before and not Interruption.came:
            bed.close()
    finally:
        bed.kill()


@pytest.fixture
def manager(workdir: pathlib.Path) -> Iterator[StartManager]:
    """Starts managers; all end with the test, and cleanly."""
    binary = os.environ.get("AEROSTAT_MANAGER")
    assert binary, "set AEROSTAT_MANAGER to the aerostatd binary"
    managers: list[Manager] = []

    def start(*options: str, **more: Any) -> Manager:
        managers.append(Manager(pathlib.Path(binary), workdir, *options, **more))
        managers[-1].start()
        return managers[-1]

    try:
        yield start
        for each in managers:
            each.stop()
    finally:
        for each in managers:
            each.close()
