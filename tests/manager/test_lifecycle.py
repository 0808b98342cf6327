# SPDX-License-Identifier: MIT
"""Machines come, go, hang and return; the manager starts, is told other things, ends, is killed and
starts again."""

from __future__ import annotations

import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable

import pytest

from daemon import BINARY, Daemon, QmpError, run
from monitors import GIB, MIB, Behaviour, Monitors, wait_for

CHANGING = {"balloon", "qom-set", "set-stats-push-interval", "device_add", "system_reset", "stop"}


def end(manager: Daemon, number: int, status: int = 0) -> None:
    """Sends a signal, and waits for the end with that status."""
    process = manager._running()
    manager.qmp.close()
    process.send_signal(number)
    assert process.wait(20) == status
    manager._process = None


def naps(pid: int) -> int:
    """How often a process went to sleep: one that spins never does, however little of a processor
    it gets."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


# --- machines ------------------------------------------------------------------------------------

def test_come_and_go(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    web, mail = monitors.qemu("web"), monitors.aerostat("mail")
    manager = manage()
    manager.serving(2)
    late = monitors.qemu("late")
    manager.serving(3)
    web.die()
    manager.wait_for("an end", lambda vms: "web" not in vms)
    mail.die(keep_socket=True)
    manager.wait_for("a death", lambda vms: vms["mail"].get("absence") == "gone" and
                     not vms["mail"]["managed"])
    web.come_back()
    mail.come_back()
    manager.serving(3)
    late.path.unlink()
    manager.wait_for("a removed socket", lambda vms: "late" not in vms)


def test_another_socket_of_the_same_name_is_tried_at_once(manage: Callable[..., Daemon],
                                                          monitors: Monitors) -> None:
    """A machine that starts again does not wait until the back-off of its dead socket is over."""
    web = monitors.qemu("web")
    manager = manage()
    manager.serving(1)
    web.die(keep_socket=True)
    time.sleep(3.5)  # attempts were 0.2, 0.6, 1.4 and 3.0 s after its end, the next is at 6.2 s
    began = time.monotonic()
    web.come_back()
    manager.wait_for("it", lambda vms: vms["web"]["managed"])
    assert time.monotonic() - began < 1.5


def test_hang_and_return(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    web = monitors.qemu("web")
    manager = manage()
    manager.serving(1)
    web.behaviour = Behaviour.HUNG
    vms = manager.wait_for("a hang", lambda vms: vms["web"].get("absence") == "hung")
    assert vms["web"]["managed"]  # it has its memory still
    web.behaviour = Behaviour.NORMAL
    manager.wait_for("its return", lambda vms: vms["web"]["state"] == "serving" and
                     vms["web"]["health"] == "healthy")
    assert [event for event in manager.events() if event["event"] == "VM_GONE"] == []


def test_a_pause_is_no_hang(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """Nor is the moment after it, when the last statistics are as old as the pause was long."""
    web = monitors.qemu("web")
    manager = manage("--interval=500")
    manager.serving(1)
    web.running = False
    web.event("STOP")
    manager.wait_for("a pause", lambda vms: vms["web"]["health"] == "paused")
    time.sleep(2)
    web.running, web.reports = True, False
    web.event("RESUME")
    time.sleep(0.8)
    web.reports = True
    manager.wait_for("life", lambda vms: vms["web"]["health"] == "healthy")
    healths = [event["data"]["health"] for event in manager.events()
               if event["event"] == "HEALTH_CHANGE"]
    assert "slow" not in healths and "unresponsive" not in healths, healths


def test_statistics_that_begin_late(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """The driver of a balloon that is inflated already turns out to have them: it is as full as it
    was, and the guest needs no more than it has."""
    web = monitors.qemu("web", size=4 * GIB, used=300 * MIB, target=GIB, actual=GIB, reports=False)
    manager = manage(budget=1200 * MIB)
    manager.wait_for("it", lambda vms: vms.get("web", {}).get("driver") == "no-statistics")
    web.reports = True
    manager.wait_for("statistics", lambda vms: vms["web"]["driver"] == "full")
    time.sleep(1.5)
    assert all(keep <= 1200 * MIB for keep in web.targets()), web.targets()
    assert manager.qmp.execute("query-host")["promised"] <= 1200 * MIB


def test_statistics_that_are_seldom(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """They are not old before the next are due."""
    monitors.qemu("web")
    manager = manage("--interval=6000", budget=GIB)
    manager.serving(1)
    manager.wait_for("nearly the next", lambda vms: vms["web"].get("stats-age-ms", 0) > 5500)
    assert "too old" not in json.dumps(manager.qmp.execute("explain", name="web"))


def test_a_machine_that_went_while_its_device_hung(manage: Callable[..., Daemon],
                                                   monitors: Monitors) -> None:
    """Nobody has told that: it is found out, and its memory is promised no more."""
    db = monitors.aerostat("db")
    manager = manage()
    manager.serving(1)
    db.behaviour = Behaviour.HUNG
    manager.wait_for("a hang", lambda vms: vms["db"].get("absence") == "hung")
    assert manager.vms()["db"]["managed"]
    with_machine = db.handlers()["query-balloon-device"]
    db.replies["query-balloon-device"] = lambda arguments: {
        name: value for name, value in with_machine(arguments).items() if name != "memory"}
    db.behaviour = Behaviour.NORMAL
    manager.wait_for("its end", lambda vms: vms["db"]["state"] == "serving" and
                     not vms["db"]["managed"])
    del db.replies["query-balloon-device"]
    db.hang_up()
    manager.serving(1)


def test_two_of_one_name(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """Each can be named, whatever they call themselves; and who is gone gives his name away."""
    first = monitors.qemu("web")
    manager = manage()
    manager.serving(1)
    second = monitors.qemu("other")
    second.name, second.uuid = "web", first.uuid
    second.die()
    second.come_back()
    vms = manager.serving(2)
    assert set(vms) == {"web", "other"}
    manager.qmp.execute("set-vm", name="web", priority=300)
    manager.qmp.execute("set-vm", name="other", priority=400)
    first.die(keep_socket=True)
    manager.wait_for("an end", lambda vms: not vms["web"]["managed"])
    second.hang_up()
    vms = manager.wait_for("a change of names", lambda vms: vms["web"]["managed"])
    assert vms["web"]["monitor"] == str(second.path)
    assert len(vms) == 2


def test_names_of_strange_bytes(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """They fit on a line of the log, and can be said back."""
    odd = monitors.qemu("odd")
    odd.name = "a\nb\u001b[2Jc\u007fd"
    path = os.fsencode(monitors.directory) + b"/x\n\xffy.qmp"
    unnamed = monitors.qemu("unnamed")
    unnamed.name = ""
    os.rename(os.fsencode(unnamed.path), path)
    manager = manage()
    vms = manager.wait_for("both", lambda vms: len(vms) == 2 and
                           all(vm["managed"] for vm in vms.values()))
    assert "x??y" in vms, list(vms)
    for name in vms:
        assert manager.qmp.execute("query-vm", name=name)["name"] == name
        assert "\n" not in name and "\x1b" not in name
    assert all(line.startswith("aerostatd: ") for line in manager.stderr().splitlines())


def test_more_than_descriptors_by_default(manage: Callable[..., Daemon], monitors: Monitors,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """The soft limit is for programs that use select(); the hard one is ours."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 60
    monitors.many(count)
    popen = subprocess.Popen

    def limited(*args: object, **options: object) -> object:
        def lower() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (48, hard))
        return popen(*args, preexec_fn=lower, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", limited)
    manager = manage()
    manager.serving(count)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_no_descriptors_are_left(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """Who has no descriptor for a socket does not say that its machine is gone, nor spins."""
    web = monitors.qemu("web")
    manager = manage()
    manager.serving(1)
    pid = manager.pid
    used = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, hard))
    held = []
    for _ in range(4):  # one gets through at most, where a gap is left
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(manager.control))
        held.append(client)
    wait_for("a complaint", lambda: "no connection can be taken" in manager.stderr())
    slept = naps(pid)
    web.behaviour = Behaviour.MUTE
    manager.wait_for("silence", lambda vms: vms["web"].get("absence") == "hung")
    time.sleep(1)
    assert naps(pid) - slept > 15
    assert manager.vms()["web"]["managed"]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
    for client in held:
        client.close()
    web.behaviour = Behaviour.NORMAL
    manager.wait_for("its return", lambda vms: vms["web"]["state"] == "serving")
    with manager.qmp.__class__(manager.control) as another:
        assert another.execute("query-host")["managed"] == 1


# --- the manager ---------------------------------------------------------------------------------

def test_reload(manage: Callable[..., Daemon], monitors: Monitors,
                tmp_path: pathlib.Path) -> None:
    """A good configuration is taken over whole, a bad one not at all."""
    monitors.qemu("web")
    manager = manage(budget=GIB)
    manager.serving(1)
    manager.write_config(2 * GIB)
    os.kill(manager.pid, signal.SIGHUP)
    wait_for("the budget", lambda: manager.qmp.execute("query-host")["budget"] == 2 * GIB)
    manager.more = "[vm web]\nfloor = 900M\nceiling = 3\n"
    manager.write_config(3 * GIB)
    os.kill(manager.pid, signal.SIGHUP)
    wait_for("a complaint", lambda: "stays as it was" in manager.stderr())
    assert f"{manager.config}:" in manager.stderr() and "'ceiling'" in manager.stderr()
    with pytest.raises(QmpError, match="unknown key 'ceiling'"):
        manager.reload()
    assert manager.qmp.execute("query-host")["budget"] == 2 * GIB
    assert manager.vms()["web"]["floor"] != 900 * MIB
    manager.more = "[vm web]\nfloor = 900M\npriority = 7\n"
    manager.write_config()
    manager.reload()
    web = manager.vms()["web"]
    assert (web["floor"], web["priority"], web["state"]) == (900 * MIB, 7, "serving")
    # Directories go and come.
    manager.keys["monitors"] = tmp_path
    manager.write_config()
    manager.reload()
    manager.wait_for("nobody", lambda vms: not vms)
    manager.keys["monitors"] = f"{monitors.directory}//"
    manager.write_config()
    manager.reload()
    manager.serving(1)
    manager.more = f"[manager]\nmonitors = {monitors.directory}\n"
    manager.write_config()
    manager.reload()
    time.sleep(0.3)
    assert len(manager.vms()) == 1  # both are one directory


def test_a_machine_that_the_configuration_names(manage: Callable[..., Daemon],
                                                monitors: Monitors) -> None:
    """It is waited for, also without a socket, until the configuration has it no more."""
    web = monitors.qemu("web")
    manager = manage(vms={"web": {"monitor": web.path, "priority": 7}})
    assert manager.serving(1)["web"]["priority"] == 7
    web.die()
    manager.wait_for("an end", lambda vms: vms["web"].get("absence") == "gone")
    time.sleep(0.2)
    assert "web" in manager.vms()
    web.come_back()
    manager.serving(1)
    web.die()
    manager.wait_for("an end", lambda vms: vms["web"].get("absence") == "gone")
    manager._vms.clear()
    manager.write_config()
    manager.reload()
    assert manager.vms() == {}


def test_reload_while_one_is_asked_again(manage: Callable[..., Daemon],
                                         monitors: Monitors) -> None:
    """Until it has said who it is, it is who it was: its section of the configuration holds."""
    web = monitors.qemu("web")
    manager = manage(vms={web.uuid: {"floor": 600 * MIB}})
    manager.serving(1)

    def floor_told() -> float:
        (value,) = re.findall(r'^aerostat_vm_memory_min_bytes\{vm="web"\} (\S+)$',
                              manager.qmp.execute("query-metrics")["text"], re.MULTILINE)
        return float(value)

    assert floor_told() == 600 * MIB
    web.calls.clear()
    web.delay, web.behaviour = 0.3, Behaviour.SLOW
    web.hang_up()
    wait_for("the question", lambda: "query-name" in web.commands())
    manager.reload()
    assert manager.qmp.execute("query-vm", name=web.uuid)["name"] == "web"
    web.behaviour = Behaviour.NORMAL
    manager.wait_for("it", lambda vms: vms["web"]["state"] == "serving")
    assert floor_told() == 600 * MIB


def test_reload_while_machines_are_asked(manage: Callable[..., Daemon],
                                         monitors: Monitors) -> None:
    """Who comes while it is only observed is asked for statistics when it is no more."""
    web = monitors.qemu("web", behaviour=Behaviour.SLOW, delay=0.25)
    manager = manage(manager={"dry-run": "yes"})
    wait_for("the last question but some", lambda: "query-balloon" in web.commands())
    assert manager.vms()["web"]["state"] == "asking"
    manager.keys["dry-run"] = "no"
    manager.write_config()
    manager.reload()
    web.delay = 0.01
    manager.serving(1)
    assert ("qom-set", {"path": "/machine/peripheral/balloon0",
                        "property": "guest-stats-polling-interval", "value": 1}) in web.calls


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_tidily(manage: Callable[..., Daemon], monitors: Monitors,
                               number: int) -> None:
    web = monitors.qemu("web")
    manager = manage(budget=GIB // 2)
    manager.serving(1)
    wait_for("a target", web.targets)
    manager.qmp.execute("set-vm", name="web", floor=300 * MIB)
    end(manager, number)
    assert not manager.control.exists()
    state = json.loads(manager.state.read_text())
    assert state["vms"][web.uuid]["floor"] == 300 * MIB


def test_a_signal_as_soon_as_there_is_a_socket(manage: Callable[..., Daemon],
                                               monitors: Monitors) -> None:
    monitors.many(20)
    for number in (signal.SIGHUP, signal.SIGTERM):
        manager = manage()
        if number == signal.SIGHUP:
            os.kill(manager.pid, number)
            manager.qmp.execute("query-host")
        else:
            end(manager, number)


def test_nobody_inherits_by_a_name(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """What an operator has set for a machine with a UUID is not for one that is named so."""
    web = monitors.qemu("web")
    manager = manage()
    manager.serving(1)
    manager.qmp.execute("set-vm", name="web", floor=300 * MIB)
    end(manager, signal.SIGTERM)
    web.die()
    heir = monitors.qemu("heir")
    heir.name, heir.uuid = web.uuid, "00000000-0000-0000-0000-000000000000"
    heir.hang_up()
    manager.start()
    vms = manager.wait_for("the heir", lambda vms: heir.name in vms and vms[heir.name]["managed"])
    assert vms[heir.name]["floor"] != 300 * MIB
    web.come_back()
    vms = manager.wait_for("both", lambda vms: "web" in vms and vms["web"]["managed"])
    assert vms["web"]["floor"] == 300 * MIB


def test_what_is_no_uuid(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """Who says another's name instead of his UUID takes nothing of his."""
    monitors.qemu("web", uuid="00000000-0000-0000-0000-000000000000")
    manager = manage()
    manager.serving(1)
    manager.qmp.execute("set-vm", name="web", floor=300 * MIB)
    heir = monitors.qemu("heir", uuid="web")
    vms = manager.serving(2)
    assert "uuid" not in vms["heir"] and vms["heir"]["floor"] != 300 * MIB
    heir.die()


def test_killed_and_started_again(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """Wishes and what was learned are there again; targets that stand are not sent anew."""
    web = monitors.qemu("web", used=300 * MIB)
    mail = monitors.qemu("mail", used=300 * MIB)
    manager = manage(budget=GIB)
    manager.serving(2)
    wait_for("targets", lambda: web.targets() and mail.targets())
    manager.qmp.execute("set-vm", name="web", priority=500, ceiling=800 * MIB)
    wait_for("the state", lambda: manager.state.exists() and
             "500" in manager.state.read_text())
    manager.crash()
    assert manager.control.exists()
    web.calls.clear()
    manager.start()
    vms = manager.serving(2)
    assert (vms["web"]["priority"], vms["web"]["ceiling"]) == (500, 800 * MIB)
    time.sleep(1.5)
    assert all(keep <= 800 * MIB for keep in web.targets())
    assert all(keep < GIB for keep in mail.targets())


def test_wishes_for_who_is_not_there(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """They are refused rather than forgotten."""
    monitors.qemu("mute", behaviour=Behaviour.MUTE)
    manager = manage()
    manager.wait_for("it", lambda vms: "mute" in vms)
    with pytest.raises(QmpError, match="not managed"):
        manager.qmp.execute("set-vm", name="mute", floor=MIB)


def test_dry_run_changes_nothing(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    every = [monitors.qemu("q"), monitors.aerostat("a"), monitors.qemu("polled", interval=1.0)]
    manager = manage("--dry-run", budget=GIB)
    manager.wait_for("decisions", lambda vms: len(vms) == 3 and any(
        event["event"] == "TARGET_SET" for event in manager.events()))
    every[1].press("critical")
    manager.qmp.execute("set-vm", name="q", floor=100 * MIB, ceiling=200 * MIB)
    with pytest.raises(QmpError):
        manager.qmp.execute("reserve", **{"bytes": 1 << 60})
    time.sleep(1.5)
    for monitor in every:
        assert not CHANGING & set(monitor.commands()), monitor.commands()
        assert all(command.startswith(("query-", "qom-get", "qom-list", "qmp_capabilities"))
                   for command in monitor.commands())
    assert "would have" in manager.stderr()
    assert manager.qmp.execute("query-host")["dry-run"] is True


# --- the command line ---------------------------------------------------------------------------

def test_wrong_options() -> None:
    for wrong in (["--nonsense"], ["--interval=5"], ["--interval=1s"], ["argument"], ["--config="]):
        done = run(*wrong)
        assert done.returncode == 2, (wrong, done)
        assert done.stderr.startswith("aerostatd: ") and done.stderr.count("\n") == 1
    for right in (["--help"], ["--version"]):
        done = run(*right)
        assert done.returncode == 0 and done.stdout and not done.stderr


def test_check(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "a.conf"
    assert run("--check", f"--config={config}").returncode == 1
    config.write_text("[manager]\ncontrol = /nowhere/at/all\n")
    done = run("--check", f"--config={config}")
    assert (done.returncode, done.stderr) == (0, "")
    config.write_text("[manager]\n\ncontrol = here\n")
    done = run("--check", f"--config={config}")
    assert done.returncode == 1
    assert f"{config}:3: control: 'here' is not an absolute path" in done.stderr


def test_what_cannot_be_offered(manage: Callable[..., Daemon], monitors: Monitors,
                                workdir: pathlib.Path) -> None:
    """A start that fails says why, with status 1, and leaves nothing behind."""
    monitors.qemu("web")
    manager = manage()
    base = [f"--config={manager.config}", "--state=off"]
    done = run(*base, "--metrics=off")
    assert done.returncode == 1
    assert f"{manager.control}: Address already in use" in done.stderr
    manager.qmp.execute("query-host")
    mine = workdir / "mine"
    done = run(*base, f"--control={mine}", f"--metrics=127.0.0.1:{manager.port}")
    assert done.returncode == 1 and str(manager.port) in done.stderr
    assert not mine.exists()
    for path, why in ((workdir / "no" / "such", "there is no such directory"),
                      (workdir / ("x" * 100), "File name too long")):
        done = run(*base, f"--control={path}", "--metrics=off")
        assert done.returncode == 1 and f"{path}: {why}" in done.stderr
    taken = workdir / "file"
    taken.write_text("precious")
    done = run(*base, f"--control={taken}", "--metrics=off")
    assert done.returncode == 1 and taken.read_text() == "precious"
    manager.serving(1)


def test_a_state_that_cannot_be_used(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    monitors.qemu("web")
    manager = manage()
    manager.serving(1)
    end(manager, signal.SIGTERM)
    manager.state.write_text('{"version": 1, "vms": ')
    manager.start()
    manager.serving(1)
    assert "kept as" in manager.stderr()
    bad = manager.state.with_name(manager.state.name + ".bad")
    assert bad.read_text() == '{"version": 1, "vms": '
    end(manager, signal.SIGTERM)
    manager.state.unlink()
    manager.state.mkdir()
    manager.start()
    manager.serving(1)
    assert BINARY.exists()
