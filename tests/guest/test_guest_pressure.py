# SPDX-License-Identifier: MIT
"""A guest that needs its memory, and a host that cannot make up its mind."""

from __future__ import annotations

import random
import time

from conftest import Bed
from vmm import Guest, GuestData
from vmm.guest import MIB

# dd takes its block from the heap and fills it: a demand that the guest cannot meet by reclaim.
DEMAND = "echo 1 >/proc/sys/vm/overcommit_memory; dd if=/dev/zero of=/dev/null bs=120M count=1"


def test_deflate_on_oom_gives_pages_back(bed: Bed) -> None:
    device, guest = bed.pair()
    data = GuestData(guest)
    data.write(16 * MIB)
    device.inflate_to(176 * MIB)
    result = guest.run(DEMAND)
    assert result.status == 0, result.text
    state = device.wait_for("equal counts", lambda now: now["actual"] == now["held"])
    assert 0 < state["actual"] <= 176 * MIB - 64 * MIB
    assert state["target"] == 176 * MIB
    assert guest.vmstat()["oom_kill"] == 0
    assert data.damaged() == []
    # The driver waits for the next word of the host before it takes the pages again.
    device.inflate_to(160 * MIB)
    assert data.damaged() == []


def test_without_deflate_on_oom_the_balloon_stays(bed: Bed) -> None:
    device, guest = bed.pair("--features=no-deflate-on-oom")
    device.inflate_to(160 * MIB)
    assert guest.run(DEMAND).status == 128 + 9
    assert guest.vmstat()["oom_kill"] == 1
    assert device.query()["actual"] == 160 * MIB


def test_more_than_the_guest_has(bed: Bed) -> None:
    device, guest = bed.pair()
    data = GuestData(guest)
    data.write(48 * MIB)
    device.qmp.execute("balloon", value=16 * MIB)  # less than the kernel and its data need
    device.wait_for("as much as it can give", lambda now: now["actual"] >= 128 * MIB)
    time.sleep(1)
    device.inflate_to(0)
    assert guest.vmstat()["oom_kill"] == 0
    assert data.damaged() == []


CHECKER = """
cat >/run/sums <<'END'
{sums}END
(
    while [ ! -e /run/enough ]; do
        md5sum -c -s /run/sums || echo damaged
        pattern churn 4096 >/data/churn
        [ "$(md5sum </data/churn)" = "$(pattern churn 4096 | md5sum)" ] || echo churned
        rm /data/churn
        echo round
    done
    echo end
) >/run/checker 2>&1 &
"""


def rounds_of_checks(guest: Guest) -> int:
    return guest.check("cat /run/checker").split().count("round")


def test_target_that_oscillates_at_speed(bed: Bed) -> None:
    device, guest = bed.pair()
    data = GuestData(guest, pages_per_file=64)
    data.write(64 * MIB)
    data.thin_out()
    guest.check(CHECKER.format(sums=data.checksums()))
    choice, sizes = random.Random(1), [0, MIB, 32 * MIB, 96 * MIB, 128 * MIB]
    memory, changes, until = device.memory(), 0, time.monotonic() + 8
    # On a busy host a round of checks takes some seconds.
    while (late := time.monotonic() - until) < 0 or rounds_of_checks(guest) < 3:
        assert late < 60, guest.check("cat /run/checker")
        for _ in range(20):
            device.qmp.execute("balloon", value=memory - choice.choice(sizes))
            changes += 1
            time.sleep(choice.choice([0, 0.001, 0.02, 0.2]))
    for size in (128 * MIB, 0):
        device.inflate_to(size)
    guest.check("touch /run/enough; while ! grep -q end /run/checker; do sleep 0.1; done")
    words = guest.check("cat /run/checker").split()
    assert set(words) == {"round", "end"}, words
    print(f"{changes} changes of the target, {words.count('round')} rounds of checks")
    assert changes > 100
    assert data.damaged() == []
