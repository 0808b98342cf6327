# SPDX-License-Identifier: MIT
"""An aerostatd to be tested: where it is found, what it is told, and how it is looked at.

Daemon is the Manager of the guest tests with a configuration that a test can write more of, and
with its figures: metrics() has the text, samples() has them parsed strictly.
"""

from __future__ import annotations

import http.client
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "guest"))

from vmm.manager import Manager  # noqa: E402
from vmm.qmp import QmpClient, QmpError  # noqa: E402

__all__ = ["BINARY", "Daemon", "QmpClient", "QmpError", "ROOT", "run"]

ROOT = pathlib.Path(__file__).resolve().parents[2]


def find_binary() -> pathlib.Path:
    """AEROSTAT_MANAGER, or the one of the build in which AEROSTAT_BALLOON is."""
    named = os.environ.get("AEROSTAT_MANAGER")
    if named:
        return pathlib.Path(named)
    device = pathlib.Path(os.environ.get("AEROSTAT_BALLOON", "/nowhere/x/y"))
    return device.parents[1] / "aerostatd" / "aerostatd"


BINARY = find_binary()


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs aerostatd to its end."""
    return subprocess.run([str(BINARY), *arguments], capture_output=True, text=True, timeout=20,
                          check=False, stdin=subprocess.DEVNULL, **options)


class Daemon(Manager):
    """A running aerostatd. Its monitors are looked for in `monitors`, its files in `directory`."""

    def __init__(self, workdir: pathlib.Path, *options: str, budget: int = 0,
                 vms: dict[str, dict[str, object]] | None = None,
                 manager: dict[str, object] | None = None, host: dict[str, object] | None = None,
                 more: str = "") -> None:
        """`vms`: keys of sections [vm NAME]; `manager` and `host`: keys of those sections; `more`
        stands at the end of the configuration as it is. `options` are of the command line."""
        super().__init__(BINARY, workdir, *options, budget=budget, vms=vms)
        self.keys = {"monitors": self.monitors, "control": self.control, "state": self.state,
                     "metrics": "127.0.0.1:0", **(manager or {})}
        self.host = dict(host or {})
        self.more = more

    def write_config(self, budget: int | None = None) -> None:
        if budget is not None:
            self._budget = budget
        host = dict(self.host)
        if self._budget:
            host["budget"] = self._budget
        sections: dict[str, dict[str, object]] = {"manager": self.keys, "host": host}
        sections.update({f"vm {name}": keys for name, keys in self._vms.items()})
        text = "".join(f"[{section}]\n" + "".join(f"{key} = {value}\n"
                                                  for key, value in keys.items())
                       for section, keys in sections.items())
        self.config.write_text(text + self.more, encoding="utf-8")

    @property
    def port(self) -> int:
        """Where metrics are offered, as the log says."""
        found = re.findall(r"http://127\.0\.0\.1:(\d+)/metrics", self.stderr())
        assert found, self.stderr()
        return int(found[-1])

    def request(self, method: str = "GET", path: str = "/metrics", body: bytes | None = None,
                accept: str = "") -> tuple[int, dict[str, str], str]:
        """Status, headers by their names in lower case, and text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {"Accept": accept} if accept else {})
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, headers, answer.read().decode()
        finally:
            connection.close()

    def metrics(self, accept: str = "") -> str:
        """The text of /metrics."""
        status, _, text = self.request(accept=accept)
        assert status == 200, text
        return text

    def serving(self, count: int) -> dict[str, dict[str, Any]]:
        """Waits until so many VMs are served, with statistics, and returns them by name."""
        return self.wait_for(f"{count} VMs with statistics", lambda vms: sum(
            vm["state"] == "serving" and "stats" in vm for vm in vms.values()) >= count)
