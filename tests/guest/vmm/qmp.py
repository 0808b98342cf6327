# SPDX-License-Identifier: MIT
"""A small QMP client: commands, errors and events over a Unix socket."""

from __future__ import annotations

import collections
import json
import pathlib
import socket
import time
from typing import Any

TIMEOUT = 20.0


class QmpError(Exception):
    """The monitor's error answer."""

    def __init__(self, kind: str, description: str) -> None:
        super().__init__(f"{kind}: {description}")
        self.kind = kind


class QmpClient:
    """One connection to a monitor, past its negotiation."""

    def __init__(self, path: pathlib.Path, timeout: float = TIMEOUT) -> None:
        self.events: collections.deque[dict[str, Any]] = collections.deque()
        self._timeout = timeout
        self._buffer = b""
        self._next_id = 0
        self._sock = socket.socket(socket.AF_UNIX)
        try:
            self._sock.settimeout(timeout)
            self._sock.connect(str(path))
            self.greeting = self._message(time.monotonic() + timeout)["QMP"]
            self.execute("qmp_capabilities")
        except BaseException:
            self._sock.close()
            raise

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return what it returns. `_` in argument names stands for `-`."""
        self.send(command, **arguments)
        return self.receive()

    def execute_as_is(self, command: str, arguments: dict[str, Any]) -> Any:
        """The same for arguments that have a `_` in their names."""
        self._send(command, arguments)
        return self.receive()

    def send(self, command: str, **arguments: Any) -> None:
        """Send a command; receive() gets the answer."""
        self._send(command, {k.replace("_", "-"): v for k, v in arguments.items()})

    def _send(self, command: str, arguments: dict[str, Any]) -> None:
        self._next_id += 1
        request: dict[str, Any] = {"execute": command, "id": self._next_id}
        if arguments:
            request["arguments"] = arguments
        self._sock.settimeout(self._timeout)
        self._sock.sendall(json.dumps(request).encode() + b"\n")

    def receive(self) -> Any:
        """What the command sent last returns; QmpError when it failed. Events are kept."""
        deadline = time.monotonic() + self._timeout
        while True:
            message = self._message(deadline)
            if "event" in message:
                self.events.append(message)
            elif message.get("id") != self._next_id:
                raise QmpError("WrongId", f"asked as {self._next_id}, answered {message}")
            elif "error" in message:
                raise QmpError(message["error"]["class"], message["error"]["desc"])
            else:
                return message["return"]

    def next_event(self, name: str, timeout: float = TIMEOUT) -> dict[str, Any]:
        """The next event of that name, with its time; events before it are dropped."""
        deadline = time.monotonic() + timeout
        while True:
            event = self.events.popleft() if self.events else self._message(deadline)
            if event.get("event") == name:
                return event

    def wait_event(self, name: str, timeout: float = TIMEOUT) -> dict[str, Any]:
        """The data of that event."""
        return self.next_event(name, timeout).get("data", {})

    def close(self) -> None:
        self._sock.close()

    @property
    def closed(self) -> bool:
        return self._sock.fileno() < 0

    def __enter__(self) -> QmpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the monitor did not answer in time")
            self._sock.settimeout(left)
            data = self._sock.recv(1 << 16)
            if not data:
                raise ConnectionError("the monitor closed the connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)
