# SPDX-License-Identifier: MIT
"""The figures that aerostatd offers: names, values, what is absent, and the listener."""

from __future__ import annotations

import concurrent.futures
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import exposition
from daemon import Daemon
from distortions import DISTORTIONS, UNSET
from exposition import Figures
from monitors import ALL_STATISTICS, DRIVER_ERRORS, GIB, MIB, Behaviour, Monitors, wait_for

# All that there is (conventions of the project): family, its type, and its labels beside `vm`.
VM_FAMILIES = {
    "aerostat_vm": ("info", {"kind", "uuid"}),
    "aerostat_vm_up": ("gauge", set()),
    "aerostat_balloon_target_bytes": ("gauge", set()),
    "aerostat_balloon_actual_bytes": ("gauge", set()),
    "aerostat_vm_memory_max_bytes": ("gauge", set()),
    "aerostat_vm_memory_min_bytes": ("gauge", set()),
    "aerostat_vm_memory_resident_bytes": ("gauge", set()),
    "aerostat_guest_memory_total_bytes": ("gauge", set()),
    "aerostat_guest_memory_free_bytes": ("gauge", set()),
    "aerostat_guest_memory_available_bytes": ("gauge", set()),
    "aerostat_guest_memory_caches_bytes": ("gauge", set()),
    "aerostat_guest_stats_timestamp_seconds": ("gauge", set()),
    "aerostat_guest_health": ("gauge", {"state"}),
    "aerostat_guest_verdict": ("gauge", {"verdict"}),
    "aerostat_guest_swap_in_bytes": ("counter", set()),
    "aerostat_guest_swap_out_bytes": ("counter", set()),
    "aerostat_guest_major_faults": ("counter", set()),
    "aerostat_guest_minor_faults": ("counter", set()),
    "aerostat_guest_oom_kills": ("counter", set()),
    "aerostat_guest_alloc_stalls": ("counter", set()),
    "aerostat_guest_scan_pages": ("counter", {"kind"}),
    "aerostat_guest_reclaim_pages": ("counter", {"kind"}),
    "aerostat_guest_hugetlb_alloc": ("counter", set()),
    "aerostat_guest_hugetlb_fail": ("counter", set()),
    "aerostat_balloon_inflated_bytes": ("counter", set()),
    "aerostat_balloon_deflated_bytes": ("counter", set()),
    "aerostat_balloon_reported_bytes": ("counter", set()),
    "aerostat_balloon_freed_bytes": ("counter", set()),
    "aerostat_guest_pressure_messages": ("counter", {"level"}),
    "aerostat_device_errors": ("counter", {"queue", "reason"}),
}
OTHER_FAMILIES = {
    "aerostat_decisions": ("counter", {"action", "reason"}),
    "aerostat_qmp_request_duration_seconds": ("histogram", {"le"}),
    "aerostat_reclaim_duration_seconds": ("histogram", {"le"}),
    "aerostat_pressure_relief_seconds": ("histogram", {"le"}),
    "aerostat_host_memory_available_bytes": ("gauge", set()),
    "aerostat_host_pressure_waiting_seconds": ("counter", set()),
    "aerostat_build": ("info", {"version"}),
    "process_cpu_seconds": ("counter", set()),
    "process_virtual_memory_bytes": ("gauge", set()),
    "process_resident_memory_bytes": ("gauge", set()),
    "process_start_time_seconds": ("gauge", set()),
    "process_open_fds": ("gauge", set()),
    "process_max_fds": ("gauge", set()),
}

# Which series a statistic makes.
STATISTICS: dict[str, tuple[str, dict[str, str], int]] = {
    "stat-swap-in": ("aerostat_guest_swap_in_bytes_total", {}, 1),
    "stat-swap-out": ("aerostat_guest_swap_out_bytes_total", {}, 1),
    "stat-major-faults": ("aerostat_guest_major_faults_total", {}, 1),
    "stat-minor-faults": ("aerostat_guest_minor_faults_total", {}, 1),
    "stat-free-memory": ("aerostat_guest_memory_free_bytes", {}, 1),
    "stat-total-memory": ("aerostat_guest_memory_total_bytes", {}, 1),
    "stat-available-memory": ("aerostat_guest_memory_available_bytes", {}, 1),
    "stat-disk-caches": ("aerostat_guest_memory_caches_bytes", {}, 1),
    "stat-htlb-pgalloc": ("aerostat_guest_hugetlb_alloc_total", {}, 1),
    "stat-htlb-pgfail": ("aerostat_guest_hugetlb_fail_total", {}, 1),
    "stat-oom-kills": ("aerostat_guest_oom_kills_total", {}, 1),
    "stat-alloc-stalls": ("aerostat_guest_alloc_stalls_total", {}, 1),
    "stat-async-scans": ("aerostat_guest_scan_pages_total", {"kind": "async"}, 4096),
    "stat-direct-scans": ("aerostat_guest_scan_pages_total", {"kind": "direct"}, 4096),
    "stat-async-reclaims": ("aerostat_guest_reclaim_pages_total", {"kind": "async"}, 4096),
    "stat-direct-reclaims": ("aerostat_guest_reclaim_pages_total", {"kind": "direct"}, 4096),
}


def figures(manager: Daemon) -> Figures:
    return exposition.parse(manager.metrics())


def until(manager: Daemon, what: str, holds: Callable[[Figures], Any]) -> Figures:
    """Scrapes until it holds."""
    def look() -> Figures | None:
        seen = figures(manager)
        return seen if holds(seen) else None

    return wait_for(what, look)


@pytest.fixture
def pair(manage: Callable[..., Daemon], monitors: Monitors) -> tuple[Daemon, Any, Any]:
    """An aerostatd that only observes, a VM of QEMU's and one of ours, both with statistics."""
    web = monitors.qemu("web", GIB, interval=1.0)  # who only observes asks for no statistics
    db = monitors.aerostat("db", 2 * GIB, interval=0.3)
    manager = manage("--dry-run", budget=GIB)
    manager.serving(2)
    return manager, web, db


def test_every_family_has_its_name_type_and_labels(pair: tuple[Daemon, Any, Any]) -> None:
    manager, _, db = pair
    db.press("low")
    seen = until(manager, "a decision", lambda f: f.values("aerostat_decisions_total"))
    assert seen.types == {name: kind for name, (kind, _) in
                          {**VM_FAMILIES, **OTHER_FAMILIES}.items()}
    for families, extra in ((VM_FAMILIES, {"vm"}), (OTHER_FAMILIES, set())):
        for name, (_, labels) in families.items():
            used = set().union(*(dict(s.labels) for s in seen.samples if s.family == name))
            assert used == labels | extra, name


def test_values_of_a_device_of_ours(pair: tuple[Daemon, Any, Any]) -> None:
    manager, _, db = pair
    db.resident = 700 * MIB
    db.counts.update(inflated=11 * MIB, deflated=7 * MIB, reported=5 * MIB, freed=3 * MIB)
    db.errors["hint-id"] = 4
    db.errors["invented"] = 9
    seen = until(manager, "the device's figures", lambda f: f.value(
        "aerostat_vm_memory_resident_bytes", vm="db") == 700 * MIB)
    for name, bytes_ in (("inflated", 11 * MIB), ("deflated", 7 * MIB), ("reported", 5 * MIB),
                         ("freed", 3 * MIB)):
        assert seen.value(f"aerostat_balloon_{name}_bytes_total", vm="db") == bytes_
    errors = {sample.label("reason"): (sample.label("queue"), sample.value)
              for sample in seen.of("aerostat_device_errors_total")}
    assert set(errors) == set(DRIVER_ERRORS), "reasons that nobody knows are no labels"
    assert errors["hint-id"] == ("free-page", 4)
    assert errors["deflated-not-held"] == ("deflate", 0)


def test_qemu_has_no_figures_of_our_device(pair: tuple[Daemon, Any, Any]) -> None:
    seen = figures(pair[0])
    for name in ("aerostat_vm_memory_resident_bytes", "aerostat_balloon_freed_bytes_total",
                 "aerostat_device_errors_total", "aerostat_guest_pressure_messages_total"):
        assert seen.of(name, vm="db") and not seen.of(name, vm="web"), name


def test_balloon_bytes_are_what_is_in_it(manage: Callable[..., Daemon],
                                         monitors: Monitors) -> None:
    web = monitors.qemu("web", GIB, used=100 * MIB)
    manager = manage(vms={"web": {"floor": "256M"}}, budget=300 * MIB)
    seen = until(manager, "the balloon to be filled", lambda f: f.value(
        "aerostat_balloon_actual_bytes", vm="web") == GIB - web.actual and web.targets())
    assert web.actual < GIB
    assert seen.value("aerostat_balloon_target_bytes", vm="web") == GIB - web.targets()[-1]
    assert seen.value("aerostat_vm_memory_min_bytes", vm="web") == 256 * MIB
    assert seen.value("aerostat_vm_memory_max_bytes", vm="web") == GIB
    assert seen.value("aerostat_reclaim_duration_seconds_count") >= 1
    assert sum(s.value for s in seen.of("aerostat_decisions_total", action="take")) >= 1


def test_each_statistic_is_where_it_belongs(pair: tuple[Daemon, Any, Any]) -> None:
    manager, web, db = pair
    assert set(STATISTICS) == set(ALL_STATISTICS)
    for monitor in (web, db):
        monitor.stats = {name: (i + 1) * 4096 * 1000 for i, name in enumerate(ALL_STATISTICS)}
    last = STATISTICS[ALL_STATISTICS[-1]]
    seen = until(manager, "these statistics", lambda f: all(
        f.value(last[0], vm=vm, **last[1]) == 16000 for vm in ("web", "db")))
    for i, name in enumerate(ALL_STATISTICS):
        series, labels, unit = STATISTICS[name]
        for vm in ("web", "db"):
            assert seen.value(series, vm=vm, **labels) == (i + 1) * 4096 * 1000 / unit, name


def test_what_is_unset_has_no_series(pair: tuple[Daemon, Any, Any]) -> None:
    """QEMU tells 2^64-1 for it; a monitor may as well leave it out."""
    manager, web, db = pair
    web.stats = dict.fromkeys(("stat-disk-caches", "stat-async-scans", "stat-oom-kills"), UNSET)
    db.stats = dict.fromkeys(web.stats)
    seen = until(manager, "the caches to be unknown", lambda f: not f.of(
        "aerostat_guest_memory_caches_bytes"))
    assert not seen.of("aerostat_guest_oom_kills_total")
    assert not seen.of("aerostat_guest_scan_pages_total", kind="async")
    assert seen.of("aerostat_guest_scan_pages_total", kind="direct", vm="web")
    assert seen.of("aerostat_guest_memory_free_bytes", vm="db")
    assert "18446744073709551615" not in manager.metrics()


def test_time_of_statistics_is_that_of_the_wall(pair: tuple[Daemon, Any, Any]) -> None:
    manager, _, db = pair
    db.reports = False
    time.sleep(2.2)
    at = figures(manager).value("aerostat_guest_stats_timestamp_seconds", vm="db")
    assert abs(at - db.updated) < 0.2
    assert time.time() - at > 1, "they are old, and that shows"


def test_one_state_is_one(pair: tuple[Daemon, Any, Any]) -> None:
    manager, web, db = pair
    db.set_health("slow")
    web.running = False
    web.event("STOP")
    seen = until(manager, "health", lambda f: f.value(
        "aerostat_guest_health", vm="db", state="slow") == 1)
    for name, label, count in (("aerostat_guest_health", "state", 5),
                               ("aerostat_guest_verdict", "verdict", 7)):
        for vm in ("web", "db"):
            states = {s.label(label): s.value for s in seen.of(name, vm=vm)}
            assert len(states) == count and sum(states.values()) == 1, states
    assert seen.value("aerostat_guest_health", vm="web", state="paused") == 1


def test_messages_and_their_relief(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    db = monitors.aerostat("db", 2 * GIB, used=200 * MIB)
    manager = manage(budget=GIB)
    until(manager, "an inflation", lambda f: f.value("aerostat_balloon_actual_bytes",
                                                     vm="db") > 0)
    db.press("critical")
    db.press("relieved")
    seen = until(manager, "the message", lambda f: f.value(
        "aerostat_guest_pressure_messages_total", vm="db", level="critical") == 1)
    assert seen.value("aerostat_guest_pressure_messages_total", vm="db", level="low") == 0
    until(manager, "relief", lambda f: f.value("aerostat_pressure_relief_seconds_count") == 1)
    assert sum(s.value for s in figures(manager).of("aerostat_decisions_total",
                                                    reason="pressure")) == 1


def test_a_driver_without_messages_has_no_count_of_them(manage: Callable[..., Daemon],
                                                        monitors: Monitors) -> None:
    monitors.aerostat("db", features=["stats", "stats-push"])
    manager = manage()
    manager.serving(1)
    assert not figures(manager).of("aerostat_guest_pressure_messages_total")


def test_uuid_stands_in_the_info_only(pair: tuple[Daemon, Any, Any]) -> None:
    manager, web, _ = pair
    lines = [line for line in manager.metrics().splitlines() if web.uuid in line]
    assert len(lines) == 1 and lines[0].startswith("aerostat_vm_info{")


@pytest.mark.parametrize("name", ['a"b', "back\\slash", "line\nend", "ünï ☃", "{vm=}", "x" * 500,
                                  "esc\x1b[31m", '",vm="other'])
def test_names_are_escaped_and_bounded(manage: Callable[..., Daemon], monitors: Monitors,
                                       name: str) -> None:
    monitor = monitors.qemu("plain", GIB)
    monitor.name = name
    manager = manage()
    (vm,) = manager.serving(1).values()
    seen = figures(manager)
    labels = {sample.label("vm") for sample in seen.samples if sample.label("vm") is not None}
    assert labels == {vm["name"]}
    assert len(vm["name"].encode()) <= 127
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", manager.metrics())


def test_two_of_a_name_are_two(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    """No series may be there twice, also where sockets have names that nobody can read."""
    for path in ("one", "two", "three"):
        monitors.qemu(path, GIB).name = "twin"
    for path in ("odd\udcff", "odd\udcfe"):
        monitors.aerostat(path, GIB)
    manager = manage()
    manager.serving(5)
    assert len(figures(manager).of("aerostat_vm_up")) == 5  # parse() refuses duplicates
    names = set(manager.vms())
    assert {"twin", "odd?"} <= names and len(names) == 5


def test_a_vm_that_is_gone_is_down(pair: tuple[Daemon, Any, Any]) -> None:
    manager, web, db = pair
    web.die(keep_socket=True)
    db.behaviour = Behaviour.HUNG
    seen = until(manager, "both down", lambda f: f.values("aerostat_vm_up") == [0, 0])
    assert not seen.of("aerostat_guest_memory_total_bytes", vm="web"), "nothing is left of it"
    assert seen.of("aerostat_guest_memory_total_bytes", vm="db"), "it has its memory still"
    assert seen.value("aerostat_guest_health", vm="db", state="unresponsive") == 1
    web.path.unlink()
    until(manager, "its end", lambda f: not f.of("aerostat_vm_info", vm="web"))


def test_a_machine_without_a_balloon_is_not_down(manage: Callable[..., Daemon],
                                                 monitors: Monitors) -> None:
    monitors.qemu("bare", GIB, balloon=None)
    manager = manage()
    manager.wait_for("the answer", lambda vms: vms["bare"].get("absence") == "no-balloon")
    seen = figures(manager)
    assert seen.of("aerostat_vm_info", vm="bare") and not seen.of("aerostat_vm_up")


@pytest.mark.parametrize("kind", ["qemu", "aerostat"])
def test_nonsense_makes_no_nonsense(manage: Callable[..., Daemon], monitors: Monitors,
                                    kind: str) -> None:
    """Whatever monitors say, the text is right, and another VM is served."""
    bad = {distort: getattr(monitors, kind)(distort.__name__, GIB) for distort in DISTORTIONS}
    monitors.qemu("good", GIB)
    manager = manage()
    manager.serving(len(bad) + 1)
    calls = {distort: len(monitor.calls) for distort, monitor in bad.items()}
    for distort, monitor in bad.items():
        monitor.distort = distort
        if kind == "aerostat":
            monitor.push()
    for distort, monitor in bad.items():
        wait_for("questions", lambda: len(monitor.calls) > calls[distort] + 2)
    text = manager.metrics()
    assert "-" not in "".join(line.rpartition(" ")[2] for line in text.splitlines()
                              if not line.startswith("#"))
    assert str(UNSET) not in text
    seen = exposition.parse(text)
    assert seen.value("aerostat_vm_up", vm="good") == 1
    # The time is real: the next statistics of the good one come.
    at = seen.value("aerostat_guest_stats_timestamp_seconds", vm="good")
    until(manager, "news", lambda f: f.value("aerostat_guest_stats_timestamp_seconds",
                                             vm="good") > at)


def test_histograms_add_up(pair: tuple[Daemon, Any, Any]) -> None:
    seen = figures(pair[0])
    for name in ("aerostat_qmp_request_duration_seconds", "aerostat_reclaim_duration_seconds",
                 "aerostat_pressure_relief_seconds"):
        buckets = [(float(s.label("le")), s.value) for s in seen.of(f"{name}_bucket")]
        assert buckets == sorted(buckets) and buckets[-1][0] == float("inf")
        counts = [count for _, count in buckets]
        assert counts == sorted(counts), "buckets are cumulative"
        assert counts[-1] == seen.value(f"{name}_count")
    assert seen.value("aerostat_qmp_request_duration_seconds_count") > 10
    assert seen.value("aerostat_qmp_request_duration_seconds_sum") > 0


def test_process_figures(pair: tuple[Daemon, Any, Any]) -> None:
    manager = pair[0]
    first, second = figures(manager), figures(manager)
    assert abs(first.value("process_start_time_seconds") - time.time()) < 60
    assert first.value("process_start_time_seconds") == second.value("process_start_time_seconds")
    assert second.value("process_cpu_seconds_total") > first.value("process_cpu_seconds_total")
    assert MIB < first.value("process_resident_memory_bytes") \
        < first.value("process_virtual_memory_bytes")
    assert 5 < first.value("process_open_fds") < first.value("process_max_fds")


def test_the_monitor_has_the_same_text(pair: tuple[Daemon, Any, Any]) -> None:
    manager = pair[0]
    text = manager.qmp.execute("query-metrics")["text"]
    assert exposition.parse(text).types == figures(manager).types


def test_many_vms_are_told_of_quickly(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    monitors.many(300)
    manager = manage()
    manager.serving(300)
    begin = time.monotonic()
    text = manager.metrics()
    took = time.monotonic() - begin
    assert len(exposition.parse(text).of("aerostat_vm_up")) == 300
    assert took < 4.0  # with sanitizers, beside other tests


# --- the listener ------------------------------------------------------------------------------

@pytest.fixture
def manager(manage: Callable[..., Daemon], monitors: Monitors) -> Daemon:
    monitors.qemu("web", GIB)
    daemon = manage()
    daemon.serving(1)
    return daemon


@pytest.fixture
def connect(manager: Daemon) -> Iterator[Callable[[], socket.socket]]:
    opened: list[socket.socket] = []

    def make() -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", manager.port), timeout=15)
        opened.append(sock)
        return sock

    yield make
    for sock in opened:
        sock.close()


def test_content_type_and_end(manager: Daemon) -> None:
    status, headers, text = manager.request()
    assert status == 200 and text.endswith("# EOF\n")
    assert headers["content-type"] == \
        "application/openmetrics-text; version=1.0.0; charset=utf-8"


def test_old_clients_get_the_format_before(manager: Daemon) -> None:
    text = manager.metrics(accept="text/plain;version=0.0.4;q=1,*/*;q=0.1")
    assert "# EOF" not in text and "# UNIT" not in text
    assert "# TYPE aerostat_guest_oom_kills_total counter" in text
    assert "# TYPE aerostat_vm_info gauge" in text
    modern = manager.metrics(accept="application/openmetrics-text;version=1.0.0,"
                                    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    assert modern.endswith("# EOF\n")


def test_head_has_no_body(manager: Daemon) -> None:
    status, headers, text = manager.request("HEAD")
    assert status == 200 and text == "" and int(headers["content-length"]) > 1000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"])
def test_other_methods_are_refused(manager: Daemon, method: str) -> None:
    status, headers, _ = manager.request(method, body=b"x" * 1000 if method == "POST" else None)
    assert status == 405 and headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/metrics/", "/metric", "//metrics", "/../metrics",
                                  "/%6detricsx", "/" + "x" * 4000])
def test_other_paths_are_not_found(manager: Daemon, path: str) -> None:
    assert manager.request(path=path)[0] == 404


def test_root_and_query(manager: Daemon) -> None:
    assert manager.request(path="/")[0] == 200
    assert manager.request(path="/metrics?name=x")[0] == 200


@pytest.mark.parametrize("garbage", [
    b"\r\n\r\n", b"\0" * 100 + b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00" * 50,
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /metrics HTTP/1.1\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 100_000],
    ids=["empty", "zeros", "short", "tls", "length", "chunk", "header", "url"])
def test_garbage(manager: Daemon, connect: Callable[[], socket.socket], garbage: bytes) -> None:
    sock = connect()
    sock.settimeout(1)
    answer = b""
    try:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(65536):
            answer += data
    except OSError:
        pass  # it was hung up on, or is waited for
    assert b"200 OK" not in answer
    assert figures(manager).value("aerostat_vm_up", vm="web") == 1


def test_slow_clients_hold_up_nobody(manager: Daemon,
                                     connect: Callable[[], socket.socket]) -> None:
    for _ in range(10):
        connect().sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    begin = time.monotonic()
    assert manager.metrics().endswith("# EOF\n")
    assert time.monotonic() - begin < 5


def test_clients_that_do_nothing_are_hung_up_on(manager: Daemon,
                                                connect: Callable[[], socket.socket]) -> None:
    """More connections than there are places: the first ones time out, and there is room again."""
    idle = [connect() for _ in range(40)]
    idle[0].settimeout(15)
    assert idle[0].recv(1) == b"", "it was hung up on after its time"
    wait_for("room", lambda: _served(manager))


def test_clients_that_never_finish_are_hung_up_on(manager: Daemon,
                                                  connect: Callable[[], socket.socket]) -> None:
    """All places are taken by those who send a byte now and then, so that they are never idle."""
    slow = [connect() for _ in range(32)]
    for sock in slow:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        sock.setblocking(False)
    end = time.monotonic() + 40
    while not _ended(slow[0]):
        assert time.monotonic() < end, "it has its place still"
        for sock in slow:
            try:
                sock.send(b"y")
            except OSError:
                pass
        time.sleep(0.5)
    wait_for("room", lambda: _served(manager))


def _ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def _served(manager: Daemon) -> bool:
    try:
        return manager.metrics().endswith("# EOF\n")
    except (OSError, EOFError):
        return False


def test_who_does_not_read_gets_no_more_of_them(manage: Callable[..., Daemon],
                                                monitors: Monitors) -> None:
    """A text of many VMs is large: only so many are kept for those that do not read."""
    monitors.many(300)
    manager = manage()
    manager.serving(300)
    socks = []
    try:
        for _ in range(6):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", manager.port))
            # As many as are more than the kernel keeps for a connection.
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 16)
            socks.append(sock)
        wait_for("the limit", lambda: manager.request()[0] == 503)
        assert manager.request(path="/")[0] == 200, "what is small is answered"
    finally:
        for sock in socks:
            sock.close()
    wait_for("room", lambda: manager.request()[0] == 200)


def test_it_ends_while_somebody_reads(manage: Callable[..., Daemon], monitors: Monitors) -> None:
    monitors.many(200)
    manager = manage()
    manager.serving(200)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", manager.port))
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(8) == b"HTTP/1.1"
        manager.stop()  # looks for leaks, too


def test_only_observing_wants_nothing(pair: tuple[Daemon, Any, Any]) -> None:
    """What it would do is in events and decisions; a target that nobody was told is none."""
    manager, web, _ = pair
    until(manager, "a decision", lambda f: f.values("aerostat_decisions_total"))
    seen = figures(manager)
    assert not web.targets()
    assert seen.values("aerostat_balloon_target_bytes") == [0, 0]


def test_many_clients_at_once(manager: Daemon) -> None:
    def scrape(_: int) -> int:
        return manager.request()[0]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        seen = set(pool.map(scrape, range(200)))
    assert 200 in seen and seen <= {200, 503}


def test_one_connection_for_many_requests(manager: Daemon,
                                          connect: Callable[[], socket.socket]) -> None:
    sock = connect()
    sock.sendall(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
    answer = b""
    while answer.count(b"\r\n\r\n") < 5:
        data = sock.recv(65536)
        assert data
        answer += data
    assert answer.count(b"HTTP/1.1 200") == 5


def test_metrics_can_be_off(manage: Callable[..., Daemon]) -> None:
    daemon = manage(manager={"metrics": "off"})
    assert "http://" not in daemon.stderr()
    assert daemon.qmp.execute("query-metrics")["text"].endswith("# EOF\n")
