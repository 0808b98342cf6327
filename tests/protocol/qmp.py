# SPDX-License-Identifier: MIT
"""A QMP client, written from QEMU's docs/interop/qmp-spec.rst, that believes nothing.

Every reply and every event of the whole test run is compared with what query-qmp-schema declares.
"""

from __future__ import annotations

import fcntl
import json
import select
import socket
import termios
import time
from typing import Any, Callable, Optional

from vhost_user import TIMEOUT, wait_for

CLASSES = {"GenericError", "CommandNotFound", "DeviceNotActive", "DeviceNotFound",
           "KVMMissingCap"}

JSON_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda v: isinstance(v, str),
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "value": lambda v: True,
}


class QMPError(Exception):
    """The server answered with an error."""

    def __init__(self, error: dict[str, str]) -> None:
        super().__init__(f"{error['class']}: {error['desc']}")
        self.error_class = error["class"]


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), f"duplicate keys from the server: {names}"
    return dict(pairs)


class Schema:
    """What query-qmp-schema declares, and whether a value keeps to it."""

    def __init__(self, infos: list[dict[str, Any]]) -> None:
        self.types: dict[str, dict[str, Any]] = {}
        for info in infos:
            assert info["name"] not in self.types, f"{info['name']} is declared twice"
            self.types[info["name"]] = info

    def names(self, meta: str) -> set[str]:
        return {name for name, info in self.types.items() if info["meta-type"] == meta}

    def fits(self, value: Any, name: str, where: str) -> None:
        """Raises AssertionError if value is not of the type `name`."""
        info = self.types[name]
        meta = info["meta-type"]
        if meta == "builtin":
            assert JSON_TYPES[info["json-type"]](value), f"{where}: {value!r} is no {name}"
        elif meta == "enum":
            assert value in self.enum_values(info), f"{where}: {value!r} is not in the enum"
        elif meta == "array":
            assert isinstance(value, list), f"{where}: {value!r} is no array"
            for at, item in enumerate(value):
                self.fits(item, info["element-type"], f"{where}[{at}]")
        elif meta == "alternate":
            for member in info["members"]:
                try:
                    return self.fits(value, member["type"], where)
                except AssertionError:
                    continue
            raise AssertionError(f"{where}: {value!r} is none of the alternatives")
        else:
            assert meta == "object", f"{where}: {name} is a {meta}"
            self.object_fits(value, info, where)

    @staticmethod
    def enum_values(info: dict[str, Any]) -> set[str]:
        return set(info.get("values", [])) | {m["name"] for m in info.get("members", [])}

    def object_fits(self, value: Any, info: dict[str, Any], where: str) -> None:
        assert isinstance(value, dict), f"{where}: {value!r} is no object"
        members = {member["name"]: member for member in info["members"]}
        if "tag" in info:
            for variant in info["variants"]:
                if variant["case"] == value.get(info["tag"]):
                    more = self.types[variant["type"]]["members"]
                    members |= {member["name"]: member for member in more}
        for name, member in members.items():
            assert name in value or "default" in member, f"{where}: no {name}"
        for name, item in value.items():
            assert name in members, f"{where}: {name} is not in the schema"
            self.fits(item, members[name]["type"], f"{where}.{name}")

    def closed(self) -> None:
        """Every type that is named is declared, every declared type is used."""
        used = set()
        for info in self.types.values():
            for key in ("arg-type", "ret-type", "element-type"):
                used |= {info[key]} if key in info else set()
            for member in info.get("members", []) + info.get("variants", []):
                used |= {member["type"]} if "type" in member else set()
        declared = set(self.types) - self.names("command") - self.names("event")
        assert used - declared == set(), "named, but not declared"
        assert declared - used == set(), "declared, but not used"


class Client:
    """One connection to the monitor."""

    schema: Optional[Schema] = None

    def __init__(self, path: str, negotiate: bool = True) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)
        self.sock.settimeout(TIMEOUT)
        self.data = b""
        self.events: list[dict[str, Any]] = []
        self.next_id = 0
        self.greeting = self.receive()
        assert set(self.greeting) == {"QMP"}
        assert set(self.greeting["QMP"]) == {"version", "capabilities"}
        if negotiate:
            self.cmd("qmp_capabilities")
            if Client.schema is None:
                # Class-wide: one binary is tested, and its schema is what it is.
                self.send({"execute": "query-qmp-schema"})
                Client.schema = Schema(self.receive()["return"])
                Client.schema.fits(list(Client.schema.types.values()),
                                   Client.schema.types["query-qmp-schema"]["ret-type"], "schema")

    def send(self, message: Any) -> None:
        self.send_raw(json.dumps(message).encode())

    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def wait_until_read(self) -> None:
        """Until the server has read all that was sent."""
        wait_for(lambda: fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)) == bytes(4),
                 "what was sent to be read")

    def receive(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        """The next message of the server, whatever it is."""
        end = time.monotonic() + timeout
        while b"\r\n" not in self.data:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise TimeoutError(f"no message within {timeout} s")
            part = self.sock.recv(65536)
            if not part:
                raise EOFError("the monitor closed the connection")
            self.data += part
        line, self.data = self.data.split(b"\r\n", 1)
        message = json.loads(line.decode("ascii"), object_pairs_hook=no_duplicates)
        assert isinstance(message, dict)
        self.check_shape(message)
        return message

    def check_shape(self, message: dict[str, Any]) -> None:
        if "event" in message:
            assert set(message) <= {"event", "data", "timestamp"}, message
            stamp = message["timestamp"]
            assert set(stamp) == {"seconds", "microseconds"}
            assert abs(stamp["seconds"] - time.time()) < 60 and 0 <= stamp["microseconds"] < 10**6
            if self.schema is not None:
                info = self.schema.types[message["event"]]
                assert info["meta-type"] == "event"
                self.schema.fits(message.get("data", {}), info["arg-type"], message["event"])
        elif "error" in message:
            assert set(message) <= {"error", "id"}, message
            assert set(message["error"]) == {"class", "desc"}, message
            assert message["error"]["class"] in CLASSES, message
            assert message["error"]["desc"], "an error must say what is wrong"
        elif "QMP" not in message:
            assert "return" in message and set(message) <= {"return", "id"}, message

    def reply(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        """The next message that is no event; events are kept for event()."""
        end = time.monotonic() + timeout
        while True:
            message = self.receive(end - time.monotonic())
            if "event" not in message:
                return message
            self.events.append(message)

    def cmd(self, name: str, arguments: Optional[dict[str, Any]] = None,
            timeout: float = TIMEOUT) -> Any:
        """Runs a command; its return value, checked against the schema, or QMPError."""
        self.next_id += 1
        message: dict[str, Any] = {"execute": name, "id": self.next_id}
        if arguments is not None:
            message["arguments"] = arguments
        self.send(message)
        reply = self.reply(timeout)
        assert reply["id"] == self.next_id, f"reply to {reply.get('id')}, not {self.next_id}"
        if "error" in reply:
            raise QMPError(reply["error"])
        if self.schema is not None:
            info = self.schema.types[name]
            self.schema.fits(arguments or {}, info["arg-type"], f"{name} arguments")
            self.schema.fits(reply["return"], info["ret-type"], name)
        return reply["return"]

    def event(self, name: str, timeout: float = TIMEOUT,
              match: Callable[[Any], bool] = lambda data: True) -> Any:
        """Waits for an event; its data. Others that came before it are dropped."""
        return self.raw_event(name, timeout, match).get("data", {})

    def raw_event(self, name: str, timeout: float = TIMEOUT,
                  match: Callable[[Any], bool] = lambda data: True) -> Any:
        """The same with all that stands beside the data."""
        end = time.monotonic() + timeout
        while True:
            message = self.events.pop(0) if self.events else self.receive(end - time.monotonic())
            assert "event" in message, f"unexpected reply {message}"
            if message["event"] == name and match(message.get("data", {})):
                return message

    def device(self) -> Any:
        return self.cmd("query-balloon-device")

    def get(self, name: str) -> Any:
        return self.cmd("qom-get", {"path": "/machine/peripheral/balloon0", "property": name})

    def set(self, name: str, value: Any) -> Any:
        return self.cmd("qom-set", {"path": "/machine/peripheral/balloon0", "property": name,
                                    "value": value})

    def close(self) -> None:
        self.sock.close()
