# SPDX-License-Identifier: MIT
"""A control socket to test against: what aerostatd would say, canned, and what was asked of it.

It speaks QMP as aerostatd does, in a thread for each client. A test changes `vms`, `host` and
`events` as it likes, and gives commands other answers by `replies`.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from typing import Any, Callable

GIB = 1 << 30
MIB = 1 << 20

GREETING = {"QMP": {"version": {"qemu": {"major": 0, "minor": 1, "micro": 0}, "package": "test"},
                    "capabilities": []}}


class CommandError(Exception):
    """The command fails with this class and description."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


def stats(free: int = 300 * MIB, available: int = 700 * MIB, **others: int) -> dict[str, int]:
    numbers = {"stat-swap-in": 0, "stat-swap-out": 4096, "stat-major-faults": 1234,
               "stat-minor-faults": 98765, "stat-free-memory": free,
               "stat-total-memory": 2 * GIB - 50 * MIB, "stat-available-memory": available,
               "stat-disk-caches": 500 * MIB, "stat-oom-kills": 0}
    return numbers | {name.replace("_", "-"): value for name, value in others.items()}


def machine(name: str, **others: Any) -> dict[str, Any]:
    """A virtual machine that does well; others: members that differ, None for what is absent."""
    vm: dict[str, Any] = {
        "name": name, "uuid": f"00000000-0000-4000-8000-{abs(hash(name)) % 10**12:012d}",
        "monitor": f"/run/aerostat/vm/{name}", "kind": "aerostat", "state": "serving",
        "managed": True, "running": True, "driver": "full", "health": "healthy",
        "verdict": "fine", "verdict-weak": False, "verdict-reason": "enough", "size": 2 * GIB,
        "floor": 288 * MIB, "ceiling": 2 * GIB, "priority": 100, "target": 1536 * MIB,
        "actual": 1540 * MIB, "resident": 1600 * MIB, "freed": 512 * MIB, "messages": True,
        "push": True, "stats": stats(), "stats-age-ms": 400, "progress": "reached",
        "emergency": False, "used": 1 * GIB, "working": 1100 * MIB, "growth": 0, "releases": 0,
        "oom-kills": 0}
    vm |= {key.replace("_", "-"): value for key, value in others.items()}
    return {key: value for key, value in vm.items() if value is not None}


def host() -> dict[str, Any]:
    return {"total": 64 * GIB, "available": 20 * GIB, "resident": 40 * GIB, "some-avg10": 0.25,
            "full-avg10": 0.0, "reserve": 3 * GIB, "allowed": 50 * GIB, "promised": 45 * GIB,
            "pool": 5 * GIB, "unmet": 0, "scarce": False, "pressed": False, "vms": 3,
            "managed": 2, "dry-run": False, "passes": 100, "moves": 7, "uptime-ms": 3600_000,
            "reservations": []}


class Control:
    """A server at self.path; `asked` has every command that came, with its arguments."""

    def __init__(self) -> None:
        self.dir = tempfile.mkdtemp(prefix="cli-")
        self.path = os.path.join(self.dir, "control")
        self.vms = [machine("web1"), machine("db", verdict="thrashing", emergency=True),
                    machine("idle", driver="none", stats=None, stats_age_ms=None, used=None)]
        self.host = host()
        self.events: list[dict[str, Any]] = []
        self.last = 0
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.replies: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.silent: set[str] = set()  # commands that get no answer
        self.greets = True
        self.clients: list[socket.socket] = []
        self.ended = False
        self.lock = threading.Lock()
        self.listen()

    def listen(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(64)
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            self.clients.append(client)
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def send(self, client: socket.socket, message: Any) -> None:
        with self.lock:
            client.sendall(json.dumps(message).encode() + b"\r\n")

    def serve(self, client: socket.socket) -> None:
        decoder = json.JSONDecoder()
        text = ""
        try:
            if self.greets:
                self.send(client, GREETING)
            while data := client.recv(65536):
                text += data.decode()
                while text := text.lstrip():
                    try:
                        message, end = decoder.raw_decode(text)
                    except ValueError:
                        break
                    text = text[end:]
                    self.handle(client, message)
        except OSError:
            pass  # it hung up, or the test ended

    def handle(self, client: socket.socket, message: dict[str, Any]) -> None:
        command, arguments = message["execute"], message.get("arguments", {})
        if command != "qmp_capabilities":
            self.asked.append((command, arguments))
        if command in self.silent:
            return
        try:
            answer = {"return": self.answer(command, arguments)}
        except CommandError as error:
            answer = {"error": {"class": error.name, "desc": str(error)}}
        self.send(client, answer | {"id": message["id"]})

    def find(self, name: str) -> dict[str, Any]:
        for vm in self.vms:
            if name in (vm["name"], vm.get("uuid")):
                return vm
        raise CommandError("DeviceNotFound", f"There is no VM '{name}'")

    def answer(self, command: str, arguments: dict[str, Any]) -> Any:
        if command in self.replies:
            return self.replies[command](arguments)
        if command in ("qmp_capabilities", "reload"):
            return {}
        if command == "query-vms":
            return self.vms
        if command == "query-vm":
            return self.find(arguments["name"])
        if command == "query-host":
            return self.host
        if command == "query-events":
            after = arguments.get("after", 0)
            return {"events": [e for e in self.events if e["seq"] > after], "last": self.last}
        if command == "set-vm":
            vm = self.find(arguments["name"])
            vm |= {key: value for key, value in arguments.items() if key != "name"}
            vm["target"] = min(max(vm["target"], vm["floor"]), vm["ceiling"])
            return vm
        if command == "reset-vm":
            vm = self.find(arguments["name"])
            return vm | {"floor": 288 * MIB, "ceiling": vm["size"]}
        if command == "reserve":
            return {"id": 3, "bytes": arguments["bytes"],
                    "hold-ms": arguments.get("hold-ms", 60000)}
        if command == "release":
            if arguments["id"] != 3:
                raise CommandError("DeviceNotFound", "There is no reservation of that number")
            return {}
        if command == "explain":
            self.find(arguments["name"])
            name = arguments["name"]
            return {"text": f"{name}: lowered from 2.0 GiB to 1.5 GiB, because it does not use "
                            "it, and others may at any moment: uses 1.0 GiB.",
                    "judgement": {"verdict": "fine", "text": f"{name}: fine."},
                    "decisions": [{"age-ms": 12000, "action": "take", "reason": "idle",
                                   "from": 2 * GIB, "to": 1536 * MIB, "goal": 1400 * MIB,
                                   "actual": 2 * GIB, "used": GIB, "verdict": "fine",
                                   "text": "lowered"}]}
        raise CommandError("CommandNotFound", f"The command {command} has not been found")

    def happen(self, event: str, text: str, **data: Any) -> None:
        """An event, for those who ask and for those who listen."""
        self.last += 1
        self.events.append({"seq": self.last, "age-ms": 0, "event": event, "data": data,
                            "text": text})
        for client in self.clients:
            try:
                self.send(client, {"event": event, "data": data,
                                   "timestamp": {"seconds": int(time.time()), "microseconds": 0}})
            except OSError:
                pass

    def commands(self, name: str) -> list[dict[str, Any]]:
        """Arguments of all commands of that name that came."""
        return [arguments for command, arguments in self.asked if command == name]

    def stop(self) -> None:
        """As if aerostatd had ended."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for client in self.clients:
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            client.close()
        self.clients = []
        os.unlink(self.path)

    def close(self) -> None:
        if os.path.exists(self.path):
            self.stop()
        os.rmdir(self.dir)
