# SPDX-License-Identifier: MIT
"""Real guests beside the real device: the harness of the guest tests and of tools/demo.py.

guest      what a guest can do, whatever runs it (the interface `Guest`)
process    what all guests have in common that are processes of the host
uml        guests under user-mode-linux
system     a guest that is the host's own system, with our programs installed as services
qemu       guests under QEMU, with kernels of Debian
platform   which driver, monitor and kernel a run of the tests is about
initramfs  what a guest boots: busybox, the stock modules and the agent of rootfs/bin
channel    the host's end of the conversation with that agent
data       data whose checksum the host knows without having read it back
hints      the file of free page hints
driver     a guest made of the portable driver: what no stock driver can
device     a vhost-user-balloon process and its monitor
qmp        a QMP client
"""

from .data import GuestData
from .device import Device, DeviceError
from .driver import DriverGuest
from .guest import Guest, GuestError, MissingPackage, Result
from .hints import Hints, read_hints
from .initramfs import build_initramfs
from .qemu import QemuGuest
from .qmp import QmpClient, QmpError
from .uml import UmlGuest

__all__ = [
    "Device", "DeviceError", "DriverGuest", "Guest", "GuestData", "GuestError", "Hints",
    "MissingPackage", "QemuGuest", "QmpClient", "QmpError", "Result", "UmlGuest", "build_initramfs",
    "read_hints",
]
