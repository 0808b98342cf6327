# SPDX-License-Identifier: MIT
"""Which ring is which queue: Linux closes the gaps that features leave which it does not accept."""

from __future__ import annotations

import concurrent.futures

from conftest import Bed
from vmm import GuestData
from vmm.guest import MIB

#: Features that are left out, the guest's kernel options, and the rings that the kernel's driver
#: then has.
CASES: list[tuple[str, tuple[str, ...], list[str]]] = [
    ("", (), ["inflate", "deflate", "stats", "free-page", "reporting"]),
    ("no-stats", (), ["inflate", "deflate", "free-page", "reporting"]),
    ("no-free-page-hint", (), ["inflate", "deflate", "stats", "reporting"]),
    ("no-stats,no-free-page-hint", (), ["inflate", "deflate", "reporting"]),
    ("no-stats,no-page-reporting", (), ["inflate", "deflate", "free-page"]),
    # Unknown to the kernel's driver, and offered nevertheless; known to ours.
    ("no-page-poison,stats-push,message", (),
     ["inflate", "deflate", "stats", "free-page", "reporting"]),
    ("stats-push,message", ("init_on_free=1",),
     ["inflate", "deflate", "stats", "free-page", "reporting"]),
    # A guest that clears what it frees does not report pages to a host that would not know of it.
    ("no-page-poison", ("init_on_free=1",), ["inflate", "deflate", "stats", "free-page"]),
]


def serve(bed: Bed, features: str, kernel_options: tuple[str, ...], rings: list[str]) -> None:
    """Every queue there is does what only this queue can do."""
    if "message" in features and bed.platform.driver == "aerostat":
        rings = [*rings, "message"]
    # Linux reports only while there are 128 MiB free, and then some.
    device, guest = bed.pair(*([f"--features={features}"] if features else []),
                             kernel_options=kernel_options, reporting=True)
    queues = {queue["ring"]: queue["name"] for queue in device.query()["queues"]}
    assert queues == dict(enumerate(rings)), queues
    data = GuestData(guest)
    data.write(24 * MIB)
    data.thin_out()
    device.inflate_to(16 * MIB)
    device.inflate_to(8 * MIB)
    if "stats" in rings:
        assert device.refresh_stats()["stats"]["stat-total-memory"] > 200 * MIB
    if "free-page" in rings:
        device.qmp.execute("free-page-hint", action="start")
        device.wait_for("hints", lambda state: state["hint"]["status"] == "finished")
        assert device.hints().pages
        device.qmp.execute("free-page-hint", action="done")
    if "reporting" in rings:
        device.wait_for("reported pages", lambda state: state["reported"] >= 8 * MIB)
    assert data.damaged() == []


def test_every_queue_of_a_driver(bed: Bed) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        guests = {pool.submit(serve, bed, *case): case for case in CASES}
        for guest in concurrent.futures.as_completed(guests):
            error = guest.exception()
            assert error is None, f"{guests[guest]}: {error!r}"
