# SPDX-License-Identifier: MIT
"""What only our driver can do: tell the host of memory pressure, and be answered."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from conftest import Bed
from test_guest_crash import killed
from vmm import Device, DriverGuest
from vmm.guest import MIB


#: The guests are made of our portable driver: there is neither Linux nor its monitor.
pytestmark = [pytest.mark.driver("stock", reason="no Linux"),
              pytest.mark.vmm("uml", reason="no monitor")]


def fill(device: Device, guest: DriverGuest, balloon: int, memory: int = 128) -> None:
    """The balloon has its share, and programs have the rest but 4 MiB. In MiB."""
    device.inflate_to(balloon * MIB)
    guest.run(f"use {memory - balloon - 4}")


def test_deflate(bed: Bed, record_property: Callable[[str, object], None]) -> None:
    """A program needs what the balloon has: the host lets go, and nothing is lost."""
    device, guest = bed.driver_pair("--on-pressure=deflate", "--pressure-steps=8M,16M,64M")
    fill(device, guest, 96)
    times = guest.run("hog 60")
    for name, value in times.items():
        record_property(name, value)
    assert 0 < float(times["answered-us"]) < 5e6 and float(times["first-page-us"]) > 0
    told = device.qmp.wait_event("GUEST_PRESSURE")
    assert (told["type"], told["level"], told["target"]) == ("pressure", "critical", 32 * MIB)
    state = device.wait_for("the new target", lambda now: now["held"] == now["target"])
    assert state["target"] <= 36 * MIB
    assert device.qmp.wait_event("GUEST_PRESSURE")["type"] == "relieved"
    guest.run("check")
    assert guest.state()["timeouts"] == 0


def test_steps(bed: Bed) -> None:
    device, guest = bed.driver_pair("--on-pressure=deflate", "--pressure-steps=2M,4M,8M",
                                    "--message-limit=0")
    held = 100
    device.inflate_to(held * MIB)
    for level, name, step in ((0, "unspecified", 2), (1, "low", 2), (2, "medium", 4),
                              (3, "critical", 8)):
        guest.run(f"pressure {level}")
        held -= step
        told = device.qmp.wait_event("GUEST_PRESSURE")
        assert (told["level"], told["target"]) == (name, held * MIB)
        device.wait_for("the step", lambda now: now["actual"] == now["held"] == held * MIB)
        guest.run("relieved")
        device.qmp.wait_event("GUEST_PRESSURE")


def test_hold(bed: Bed) -> None:
    """What the inflation has not taken when the guest cries out it does not take any more."""
    device, guest = bed.driver_pair("--on-pressure=hold", memory=512 * MIB)
    device.set_balloon(500 * MIB)
    device.wait_for("some inflation", lambda now: now["held"] > 20 * MIB)
    guest.run("pressure 2")
    told = device.qmp.wait_event("GUEST_PRESSURE")
    assert told["held"] - MIB <= told["target"] < 500 * MIB
    state = device.wait_for("an end", lambda now: now["held"] == now["actual"] == now["target"])
    left = 512 - state["held"] // MIB
    guest.run(f"use {left - 1}")
    guest.run("relieved")
    device.inflate_to(state["target"])
    guest.run("check")
    # The operator has the last word.
    guest.run(f"free {left - 1}")
    device.inflate_to(500 * MIB)


def test_report(bed: Bed) -> None:
    """Nothing is done for the guest but to tell; an operator may do something."""
    device, guest = bed.driver_pair("--on-pressure=report")
    fill(device, guest, 96)
    guest.send("hog 32")
    told = device.qmp.wait_event("GUEST_PRESSURE")
    assert (told["level"], told["target"], told["held"]) == ("critical", 96 * MIB, 96 * MIB)
    device.qmp.execute("balloon", value=device.memory() - 64 * MIB)
    guest.answer()
    device.wait_for("the target", lambda now: now["held"] == now["actual"] == 64 * MIB)
    # A way out that needs no host.
    guest.run("oom 16")
    device.wait_for("pages given back", lambda now: now["held"] == 48 * MIB)
    assert device.query()["target"] == 64 * MIB
    guest.run("check")


def counted(device: Device) -> int:
    """The messages that have come."""
    pressure = device.query()["pressure"]
    return sum(pressure["messages"].values()) + int(pressure["relieved"])


def test_killed_workers(bed: Bed) -> None:
    """No message is answered twice, or never, or counted twice."""
    device, guest = bed.driver_pair("--on-pressure=deflate", "--pressure-steps=1M,1M,1M",
                                    "--message-limit=0")
    with killed(device, 60) as rounds:
        for count in rounds:
            device.again(lambda: device.inflate_to(96 * MIB))
            guest.run("use 20")
            guest.run(f"pressure {count % 3 + 1}")
            guest.run("relieved")
            while (state := guest.state())["unanswered"]:
                time.sleep(0.01)
            assert device.again(lambda: counted(device)) == state["messages"]
            guest.run("free 20")
            guest.run("check")
    assert guest.state()["timeouts"] == 0
