# SPDX-License-Identifier: MIT
"""Prometheus itself with our figures, rules and dashboard.

The programs are Debian's, out of the cache that `./run test` fills, or installed. Where they are
not to be had these tests are skipped.
"""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daemon import ROOT, Daemon
from monitors import GIB, MIB, Monitors, wait_for
from test_metrics import OTHER_FAMILIES, VM_FAMILIES

RULES = ROOT / "packaging" / "prometheus" / "aerostat.rules.yml"
RULES_TEST = ROOT / "packaging" / "prometheus" / "aerostat.rules.test.yml"
DASHBOARD = ROOT / "packaging" / "grafana" / "aerostat.json"
ALERTS = {"StatsStale", "GuestUnresponsive", "TargetNotReached", "HostPressure", "GuestOOM",
          "GuestMisbehaving", "DeviceDown"}
SUFFIXES = {"gauge": [""], "counter": ["_total"], "info": ["_info"],
            "histogram": ["_bucket", "_count", "_sum"]}


def cache() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    root = os.environ.get("AEROSTAT_CACHE") or pathlib.Path(base) / "aerostat"
    return pathlib.Path(root) / "prometheus"


def program(name: str) -> str:
    """Where the program is; the test is skipped if it is nowhere."""
    unpacked = cache() / "usr" / "bin" / name
    found = str(unpacked) if unpacked.exists() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not to be had: Debian's package prometheus")
    return found


def promtool(*arguments: str, **options: Any) -> str:
    """What it says; it has to be content."""
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True,
                          timeout=60, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def series() -> set[str]:
    """The names of all samples that there can be."""
    return {family + suffix for family, (kind, _) in (VM_FAMILIES | OTHER_FAMILIES).items()
            for suffix in SUFFIXES[kind]}


@pytest.fixture
def manager(manage: Callable[..., Daemon], monitors: Monitors) -> Daemon:
    web = monitors.qemu("we\"b\\", GIB)
    web.name = 'we"b\\'
    monitors.aerostat("db", 2 * GIB, used=300 * MIB)
    daemon = manage(budget=2 * GIB)
    daemon.serving(2)
    return daemon


def test_rules_are_right() -> None:
    assert "7 rules found" in promtool("check", "rules", str(RULES))


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", RULES_TEST.name, cwd=RULES_TEST.parent)
    tested = set(re.findall(r"alertname: (\w+)", RULES_TEST.read_text()))
    fired = set(re.findall(r"alertname: (\w+)\n +exp_alerts:", RULES_TEST.read_text()))
    assert tested == fired == ALERTS
    assert set(re.findall(r"- alert: (\w+)", RULES.read_text())) == ALERTS


def test_promtool_likes_our_figures(manager: Daemon) -> None:
    """It reads the older format only."""
    text = manager.metrics(accept="text/plain")
    done = subprocess.run([program("promtool"), "check", "metrics"], input=text, text=True,
                          capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr


def test_the_python_client_reads_them(manager: Daemon) -> None:
    """A parser that is not ours."""
    sys.path.append(str(cache() / "usr" / "lib" / "python3" / "dist-packages"))
    try:
        parser = importlib.import_module("prometheus_client.openmetrics.parser")
    except ImportError:
        pytest.skip("prometheus_client is not to be had: Debian's python3-prometheus-client")
    finally:
        sys.path.pop()
    text = manager.metrics()
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    known = VM_FAMILIES | OTHER_FAMILIES
    assert set(families) <= set(known)
    assert {name: family.type for name, family in families.items()} == {
        name: known[name][0] for name in families}
    (names,) = [{sample.labels["vm"] for sample in families["aerostat_vm_up"].samples}]
    assert names == {'we"b\\', "db"}


@pytest.fixture
def prometheus(manager: Daemon, workdir: pathlib.Path) -> Iterator[str]:
    """The address of one that scrapes the manager once a second, with our rules."""
    binary = program("prometheus")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    config = workdir / "prometheus.yml"
    config.write_text(json.dumps({  # which is YAML
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "aerostat", "static_configs": [
            {"targets": [f"127.0.0.1:{manager.port}"]}]}]}))
    log = workdir / "prometheus.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [binary, f"--config.file={config}", f"--storage.tsdb.path={workdir / 'tsdb'}",
             f"--web.listen-address={address}", "--log.level=warn"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=workdir)
    try:
        wait_for("Prometheus", lambda: process.poll() is None and _answers(address), 60)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
    assert "err=" not in log.read_text(), log.read_text()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def query(address: str, expression: str) -> list[dict[str, Any]]:
    url = f"http://{address}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(url, timeout=10) as answer:
        found = json.load(answer)
    assert found["status"] == "success"
    return list(found["data"]["result"])


def test_a_real_prometheus_scrapes_it(manager: Daemon, prometheus: str) -> None:
    up = wait_for("a scrape", lambda: query(prometheus, "up == 1"))
    assert up[0]["metric"]["job"] == "aerostat"
    assert {row["metric"]["vm"] for row in query(prometheus, "aerostat_vm_up == 1")} == {
        'we"b\\', "db"}
    actual = query(prometheus, 'aerostat_balloon_actual_bytes{vm="db"}')
    assert int(actual[0]["value"][1]) == 2 * GIB - manager.vms()["db"]["actual"]
    count = query(prometheus, 'count({job="aerostat"})')
    lines = [line for line in manager.metrics().splitlines() if not line.startswith("#")]
    assert int(count[0]["value"][1]) >= len(lines)
    for expression in dashboard_queries():
        query(prometheus, in_query(expression))  # an error in one is an HTTP error


# --- what is shipped names what there is ---------------------------------------------------------

def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def dashboard_queries() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"]
            for target in panel.get("targets", [])]


def in_query(expression: str) -> str:
    """With the variables of the dashboard filled in."""
    return (expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
            .replace("$vm", ".*"))


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:aerostat|process)_[a-z_]+", text))


def test_rules_name_series_that_there_are() -> None:
    expressions = "\n".join(re.findall(r"expr: (.*(?:\n          .*)*)", RULES.read_text()))
    assert len(names_in(expressions)) >= 7
    assert names_in(RULES.read_text()) <= series() | set(VM_FAMILIES)
    assert names_in(expressions) <= series()


def test_the_dashboard_names_series_that_there_are() -> None:
    used = names_in("\n".join(dashboard_queries()))
    variables = json.dumps(dashboard()["templating"])
    assert used <= series()
    assert names_in(variables) <= series()
    # All that is exported of VMs is shown somewhere, but what nobody looks at.
    unseen = series() - used
    assert {name for name in unseen if name.startswith("aerostat_")
            and not name.endswith(("_count", "_sum"))} <= {
        "aerostat_build_info", "aerostat_guest_hugetlb_alloc_total",
        "aerostat_guest_hugetlb_fail_total"}


def test_the_dashboard_is_sound() -> None:
    board = dashboard()
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y)
                 for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, f"{panel['title']} lies over another"
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["description"]


def test_each_alert_says_what_it_is() -> None:
    """Who is woken by one looks for it."""
    text = RULES.read_text()
    for alert in ALERTS:
        block = text[text.index(f"- alert: {alert}\n"):].split("- alert:", 2)[1]
        assert "severity:" in block and "summary:" in block and "description:" in block, alert
