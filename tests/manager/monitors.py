# SPDX-License-Identifier: MIT
"""Simulated QMP monitors: what a manager of virtual machines finds on a host, without the machines.

Any number of monitors is served by one thread, each on a Unix socket of its own:

    with Monitors(directory) as monitors:
        web = monitors.qemu("web", size=GIB)          # as QEMU's, at DIRECTORY/web.qmp
        db = monitors.aerostat("db", size=2 * GIB)    # as that of vhost-user-balloon
        web.used = 300 * MIB                          # what its statistics follow from
        web.behaviour = Behaviour.HUNG                # from now on, also for open connections
        web.behaviour = Behaviour.NORMAL
        web.stats["stat-oom-kills"] = UNSET           # overrides one statistic; None: left out
        web.replies["query-balloon"] = Failure("KVMMissingCap", "no")  # or a value, or a function
        db.distort = negative_sizes                   # distortions.py: of all that it returns
        db.press("critical")                          # the guest asks for memory
        db.die()                                      # its process ends: socket and connections
        db.come_back()                                # and another one starts

The guest behind a monitor is a simple one. `balloon N` moves its target; the guest follows at
`rate` bytes a second (at once by default), never below what it uses, and not at all where `follows`
is False. Attributes may be set from the thread of the test at any time; what must act at once (die,
press, send) is a method that returns when it is done.

What a monitor was asked is in `calls`, in order, as (command, arguments); `targets()` are the
values of `balloon` among them. `wait_for()` polls until something holds.
"""

from __future__ import annotations

import asyncio
import copy
import enum
import itertools
import json
import os
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from distortions import UNSET

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

HUGE_BYTES = 64 * MIB  # of a message that does not end, if somebody reads so much
ALIVE_S = 0.05  # between two looks whether a guest that follows slowly has moved
T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T], timeout: float = 20.0) -> T:
    """Polls until look() returns something true, and returns it. `what` is for the error."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:.0f} s for {what}")
        time.sleep(0.01)
    return found


class Behaviour(enum.Enum):
    """What a monitor does instead of answering."""

    NORMAL = "answers"
    HUNG = "takes connections, never says a word, and never reads"
    MUTE = "greets and negotiates, then never answers"
    GARBAGE = "sends bytes that are no JSON"
    HUGE = "begins an answer that does not end"
    SLOW = "answers after `delay` seconds"
    HANGS_UP = "closes each connection at its first command"


@dataclass
class Failure:
    """An error answer."""

    kind: str = "GenericError"
    text: str = "it does not work"


@dataclass
class Raw:
    """Bytes to be sent instead of an answer."""

    data: bytes


class CommandError(Exception):
    """Raised by a handler to answer with an error."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.failure = Failure(kind, text)


class _Connection:
    """One client of a monitor."""

    def __init__(self, monitor: Monitor, reader: asyncio.StreamReader,
                 writer: asyncio.StreamWriter) -> None:
        self.monitor = monitor
        self.reader = reader
        self.writer = writer
        self.negotiated = False

    def send(self, message: Any) -> None:
        if not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\r\n")

    async def serve(self) -> None:
        try:
            await self._greet()
            while line := await self.reader.readline():
                if line.strip():
                    await self._take(json.loads(line))
        except (ConnectionError, ValueError, asyncio.LimitOverrunError):
            pass  # the client has gone, or says nonsense: that is not what is tested here
        finally:
            self.monitor.connections.discard(self)
            self.writer.close()

    async def _greet(self) -> None:
        while self.monitor.behaviour is Behaviour.HUNG:
            await asyncio.sleep(0.02)
        if self.monitor.behaviour is Behaviour.GARBAGE:
            self.writer.write(self.monitor.garbage)
        elif self.monitor.behaviour is Behaviour.SLOW:
            await asyncio.sleep(self.monitor.delay)
        self.send(self.monitor.greeting())

    async def _take(self, request: dict[str, Any]) -> None:
        monitor = self.monitor
        command, arguments = request.get("execute", ""), request.get("arguments", {})
        while monitor.behaviour is Behaviour.HUNG:
            await asyncio.sleep(0.02)
        monitor.calls.append((command, arguments))
        negotiating = command == "qmp_capabilities"
        if monitor.behaviour is Behaviour.SLOW:
            await asyncio.sleep(monitor.delay)
        elif monitor.behaviour is Behaviour.MUTE and not negotiating:
            return
        elif monitor.behaviour is Behaviour.GARBAGE:
            self.writer.write(monitor.garbage)
            return
        elif monitor.behaviour is Behaviour.HANGS_UP:
            raise ConnectionResetError
        elif monitor.behaviour is Behaviour.HUGE and not negotiating:
            await self._flood()
        answer = monitor.answer(command, arguments)
        if isinstance(answer, Raw):
            self.writer.write(answer.data)
        elif isinstance(answer, Failure):
            self.send({"id": request.get("id"),
                       "error": {"class": answer.kind, "desc": answer.text}})
        else:
            self.send({"return": answer, "id": request.get("id")})
        self.negotiated = self.negotiated or negotiating

    async def _flood(self) -> None:
        self.writer.write(b'{"return": "')
        for _ in range(HUGE_BYTES // (64 * KIB)):
            self.writer.write(b"x" * (64 * KIB))
            await self.writer.drain()
        raise ConnectionResetError


class Monitor:
    """One monitor and its guest. The subclasses say what it answers."""

    def __init__(self, owner: Monitors, path: pathlib.Path, name: str, size: int) -> None:
        self.owner = owner
        self.path = path
        self.name = name
        self.uuid = str(uuid.uuid5(uuid.NAMESPACE_OID, os.fsencode(name).hex()))
        self.size = size
        self.used = size // 4  # by the guest: total minus available
        self.caches = size // 16
        self.actual = size  # what the guest keeps
        self.target = size
        self.rate: float | None = None  # bytes a second; None: at once
        self.follows = True
        self.running = True
        self.reports = True  # whether the guest answers when statistics are asked for
        self.stats: dict[str, int | None] = {}  # overrides; None: it has no such statistic
        self.counters: dict[str, int] = {}  # of statistics that count: what was added
        self.behaviour = Behaviour.NORMAL
        self.delay = 0.1
        self.garbage = b"\xff\x00\x13 SSH-2.0-OpenSSH_9.2\r\n{]}\n"
        self.replies: dict[str, Any] = {}
        self.distort: Callable[[Any], Any] | None = None
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.connections: set[_Connection] = set()
        self.interval = 0.0  # s, in which statistics are asked for by the monitor itself
        self.updated = 0.0  # when they came last, seconds since the epoch; 0: never
        self._server: asyncio.AbstractServer | None = None
        self._moved_at = time.monotonic()

    # --- for tests ----------------------------------------------------------------------------

    def targets(self) -> list[int]:
        """What `balloon` was called with so far."""
        return [arguments["value"] for command, arguments in list(self.calls)
                if command == "balloon" and "value" in arguments]

    def commands(self) -> list[str]:
        return [command for command, _ in list(self.calls)]

    def send(self, message: dict[str, Any]) -> None:
        """Sends an event, or anything else, to all clients."""
        self.owner.do(self._send(message))

    def event(self, name: str, data: dict[str, Any] | None = None) -> None:
        self.send(self._event(name, data))

    def hang_up(self) -> None:
        """Closes the connections; new ones are taken."""
        self.owner.do(self._hang_up())

    def die(self, keep_socket: bool = False) -> None:
        """The process ends. A killed one leaves its socket behind, where nobody listens."""
        self.owner.do(self._die(keep_socket))

    def come_back(self) -> None:
        """Another process at the same path: its balloon is empty, its statistics begin anew."""
        self.actual = self.target = self.size
        self.counters.clear()
        self.updated = 0.0
        self.interval = 0.0
        self.behaviour = Behaviour.NORMAL
        self.owner.do(self._listen())

    # --- the guest ----------------------------------------------------------------------------

    def set_target(self, keep: int) -> None:
        self.move()
        self.target = max(1, min(keep, self.size))
        self._moved_at = time.monotonic()
        self.move()

    def move(self) -> bool:
        """Lets the guest follow its target for the time since the last call."""
        now = time.monotonic()
        before = self.actual
        goal = max(self.target, min(self.used, self.size)) if self.follows else self.actual
        if self.rate is None:
            self.actual = goal
        elif goal != self.actual:
            step = int(self.rate * (now - self._moved_at))
            self.actual += max(-step, min(step, goal - self.actual))
        self._moved_at = now
        return self.actual != before

    def guest_stats(self) -> dict[str, int]:
        """The statistics as the guest has them now; those that it does not have are not there."""
        self.move()
        total = self.actual
        available = max(0, total - self.used)
        values: dict[str, int | None] = {
            "stat-swap-in": 0, "stat-swap-out": 0, "stat-major-faults": 0, "stat-minor-faults": 0,
            "stat-free-memory": max(0, available - self.caches), "stat-total-memory": total,
            "stat-available-memory": available, "stat-disk-caches": min(self.caches, total),
            "stat-htlb-pgalloc": 0, "stat-htlb-pgfail": 0, "stat-oom-kills": 0,
            "stat-alloc-stalls": 0, "stat-async-scans": 0, "stat-direct-scans": 0,
            "stat-async-reclaims": 0, "stat-direct-reclaims": 0}
        for name, more in self.counters.items():
            values[name] = (values[name] or 0) + more
        values.update(self.stats)
        return {name: value for name, value in values.items() if value is not None}

    # --- the monitor --------------------------------------------------------------------------

    def greeting(self) -> dict[str, Any]:
        raise NotImplementedError

    def handlers(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        """What each command returns; may raise CommandError."""
        raise NotImplementedError

    def answer(self, command: str, arguments: dict[str, Any]) -> Any:
        if command == "qmp_capabilities":
            return {}
        if command in self.replies:
            reply = self.replies[command]
            return reply(arguments) if callable(reply) else copy.deepcopy(reply)
        handlers = self.handlers()
        if command == "query-commands":
            # A manager that knows nothing of a monitor leaves it alone: this one is not distorted.
            return [{"name": name} for name in (*handlers, "query-commands", "qmp_capabilities")]
        handler = handlers.get(command)
        if handler is None:
            return Failure("CommandNotFound", f"The command {command} has not been found")
        try:
            value = handler(arguments)
        except CommandError as error:
            return error.failure
        return self.distort(value) if self.distort else value

    def _balloon(self, arguments: dict[str, Any]) -> dict[str, Any]:
        value = arguments.get("value")
        if not isinstance(value, int) or value <= 0:
            raise CommandError("GenericError", "Parameter 'target' expects a size")
        self.set_target(value)
        return {}

    def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"running": self.running, "status": "running" if self.running else "paused"}

    @staticmethod
    def _event(name: str, data: dict[str, Any] | None) -> dict[str, Any]:
        seconds, rest = divmod(time.time(), 1)
        message: dict[str, Any] = {"timestamp": {"seconds": int(seconds),
                                                 "microseconds": int(rest * 1e6)}, "event": name}
        if data is not None:
            message["data"] = data
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        for connection in list(self.connections):
            if connection.negotiated and self.behaviour not in (Behaviour.HUNG, Behaviour.MUTE):
                connection.send(message)

    async def _listen(self) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = _Connection(self, reader, writer)
            self.connections.add(connection)
            task = asyncio.current_task()
            assert task is not None
            self.owner.tasks.add(task)
            task.add_done_callback(self.owner.tasks.discard)
            await connection.serve()

        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(connected, str(self.path), backlog=16)

    async def _hang_up(self) -> None:
        for connection in list(self.connections):
            connection.writer.transport.abort()

    async def _die(self, keep_socket: bool) -> None:
        if self._server:
            self._server.close()
            self._server = None
        await self._hang_up()
        if not keep_socket:
            self.path.unlink(missing_ok=True)

    def beat(self, now: float) -> None:
        """Called regularly by the thread of the monitors; `now`: seconds since the epoch."""


class QemuMonitor(Monitor):
    """As QEMU's, with a virtio-balloon device of the id `balloon0`."""

    def __init__(self, owner: Monitors, path: pathlib.Path, name: str, size: int) -> None:
        super().__init__(owner, path, name, size)
        self.plugged = 0  # bytes of memory that were plugged in
        self.balloon: str | None = "/machine/peripheral/balloon0"  # None: the machine has none
        self._shown: dict[str, int] = {}

    def greeting(self) -> dict[str, Any]:
        return {"QMP": {"version": {"qemu": {"major": 9, "minor": 2, "micro": 0}, "package": ""},
                        "capabilities": ["oob"]}}

    def handlers(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        return {
            "query-name": lambda _: {"name": self.name} if self.name else {},
            "query-uuid": lambda _: {"UUID": self.uuid},
            "query-status": self._status,
            "query-memory-size-summary": lambda _: {"base-memory": self.size - self.plugged,
                                                    "plugged-memory": self.plugged},
            "qom-list": self._list,
            "qom-get": self._get,
            "qom-set": self._set,
            "query-balloon": self._query_balloon,
            "balloon": self._balloon,
        }

    def _list(self, arguments: dict[str, Any]) -> list[dict[str, str]]:
        path = arguments.get("path", "")
        children = [{"name": "type", "type": "string"}]
        if self.balloon and self.balloon.rpartition("/")[0] == path:
            children.append({"name": self.balloon.rpartition("/")[2],
                             "type": "child<virtio-balloon-pci>"})
        return children

    def _property(self, arguments: dict[str, Any]) -> str:
        if not self.balloon or arguments.get("path") != self.balloon:
            raise CommandError("DeviceNotFound", f"Device '{arguments.get('path')}' not found")
        return str(arguments.get("property"))

    def _get(self, arguments: dict[str, Any]) -> Any:
        if (name := self._property(arguments)) == "guest-stats-polling-interval":
            return int(self.interval)
        if name != "guest-stats":
            raise CommandError("GenericError", f"Property '{name}' not found")
        self.beat(time.time())
        every = {stat: UNSET for stat in ALL_STATISTICS}
        return {"stats": every | self._shown, "last-update": int(self.updated)}

    def _set(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if self._property(arguments) != "guest-stats-polling-interval":
            raise CommandError("GenericError", "Property not found")
        self.interval = float(arguments["value"])
        return {}

    def _query_balloon(self, _: dict[str, Any]) -> dict[str, Any]:
        if not self.balloon:
            raise CommandError("DeviceNotActive", "No balloon device has been activated")
        self.move()
        return {"actual": self.actual}

    def beat(self, now: float) -> None:
        if self.move():
            self.owner.post(self._send(self._event("BALLOON_CHANGE", {"actual": self.actual})))
        if self.interval and self.reports and self.running and now >= self.updated + self.interval:
            self.updated = now
            self._shown = self.guest_stats()


class AerostatMonitor(Monitor):
    """As that of vhost-user-balloon: statistics are pushed, pressure and health are told."""

    def __init__(self, owner: Monitors, path: pathlib.Path, name: str, size: int) -> None:
        super().__init__(owner, path, name, size)
        self.features = ["stats", "stats-push", "message", "deflate-on-oom", "page-reporting"]
        self.health = "healthy"
        self.resident: int | None = None  # None: what the guest keeps
        self.counts = dict.fromkeys(("inflated", "deflated", "reported", "hinted", "freed", "kept",
                                     "discard-failures", "unknown-tags", "unknown-messages",
                                     "worker-restarts"), 0)
        self.errors = dict.fromkeys(DRIVER_ERRORS, 0)
        self.messages = dict.fromkeys(("unspecified", "low", "medium", "critical"), 0)
        self._shown_at = 0.0

    def greeting(self) -> dict[str, Any]:
        return {"QMP": {"version": {"qemu": {"major": 0, "minor": 1, "micro": 0},
                                    "package": "aerostat 0.1.0"}, "capabilities": []}}

    def press(self, level: str = "critical") -> None:
        """The guest sends a message: `level` of its pressure, or "relieved"."""
        data: dict[str, Any] = {"target": self.size - self.target, "held": self.size - self.actual,
                                "actual": self.size - self.actual, "type": "relieved"}
        if level != "relieved":
            data.update(type="pressure", level=level)
            self.messages[level] = self.messages.get(level, 0) + 1
        self.event("GUEST_PRESSURE", data)

    def push(self) -> None:
        """Statistics come now, and not when they are due."""
        self.owner.do(self._push())

    def set_health(self, status: str) -> None:
        self.health = status
        self.event("GUEST_HEALTH_CHANGE", self._health({}))

    def handlers(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        return {
            "query-status": lambda _: {"running": True, "status": "running"},
            "balloon": self._balloon,
            "query-balloon": self._query_balloon,
            "qom-get": self._get,
            "qom-set": self._set,
            "query-balloon-device": self._device,
            "refresh-balloon-stats": self._refresh,
            "set-stats-push-interval": self._interval,
            "query-guest-health": self._health,
        }

    def _query_balloon(self, _: dict[str, Any]) -> dict[str, Any]:
        self.move()
        return {"actual": self.actual}

    def _get(self, arguments: dict[str, Any]) -> Any:
        if arguments.get("property") == "guest-stats-polling-interval":
            return int(self.interval)
        return self._statistics()

    def _set(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.interval = float(arguments["value"])
        return {}

    def _interval(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.interval = arguments["interval-ms"] / 1000
        return {"interval-ms": arguments["interval-ms"]}

    def _refresh(self, _: dict[str, Any]) -> dict[str, Any]:
        self.owner.post(self._push())
        return {}

    def _statistics(self) -> dict[str, Any]:
        if not self.updated:
            return {"stats": {}, "last-update": 0}
        return {"stats": {name: value for name, value in self.guest_stats().items()
                          if value != UNSET},
                "last-update": int(self.updated),
                "age-ms": max(0, int((time.time() - self.updated) * 1000))}

    def _health(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"status": self.health, "reason": "on-time", "detail": "as told by a test",
                "since": int(time.time()), "duration-ms": 0, "gap-ms": 0, "expected-ms": 1000,
                "changes": 0}

    def _device(self, _: dict[str, Any]) -> dict[str, Any]:
        self.move()
        device: dict[str, Any] = {
            "memory": self.size, "target": self.size - self.target,
            "actual": self.size - self.actual, "held": self.size - self.actual,
            "resident": self.actual if self.resident is None else self.resident,
            "features-offered": list(self.features),
            "features-negotiated": list(self.features),
            "queues": [], "inhibitors": [], "discarding": False,
            "stats-push-interval-ms": int(self.interval * 1000),
            "hint": {"status": "idle", "hinted-bytes": 0},
            "pressure": {"messages": dict(self.messages), "relieved": 0},
            "driver-errors": dict(self.errors)}
        device.update(self.counts)
        return device

    async def _push(self) -> None:
        self.updated = time.time()
        statistics = self._statistics()
        if self.distort:
            statistics = self.distort(statistics)
        elif "stats" in self.features:
            statistics["actual"] = self.actual
        await self._send(self._event("BALLOON", statistics))

    def beat(self, now: float) -> None:
        if self.move() or now - self._shown_at > 1:
            self._shown_at = now
            self.owner.post(self._send(self._event("BALLOON_CHANGE", {"actual": self.actual})))
        if self.interval and self.reports and now >= self.updated + self.interval:
            self.owner.post(self._push())


ALL_STATISTICS = (
    "stat-swap-in", "stat-swap-out", "stat-major-faults", "stat-minor-faults", "stat-free-memory",
    "stat-total-memory", "stat-available-memory", "stat-disk-caches", "stat-htlb-pgalloc",
    "stat-htlb-pgfail", "stat-oom-kills", "stat-alloc-stalls", "stat-async-scans",
    "stat-direct-scans", "stat-async-reclaims", "stat-direct-reclaims")

DRIVER_ERRORS = (
    "pfn-out-of-range", "inflated-twice", "deflated-not-held", "duplicate-pfn", "partial-entry",
    "second-stats-buffer", "stats-too-long", "actual-too-large", "unknown-queue",
    "message-too-short", "message-flood", "hint-id", "queue-broken")


class Monitors:
    """The thread that serves monitors, all in one directory. A context manager."""

    def __init__(self, directory: pathlib.Path | str) -> None:
        self.directory = pathlib.Path(directory)
        self.all: list[Monitor] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="monitors", daemon=True)
        self._thread.start()
        self._numbers = itertools.count()
        self.post(self._beat())

    def qemu(self, name: str, size: int = GIB, **attributes: Any) -> QemuMonitor:
        """Another monitor like QEMU's, at NAME.qmp, with these attributes."""
        return self._add(QemuMonitor(self, self._path(name), name, size), attributes)

    def aerostat(self, name: str, size: int = GIB, **attributes: Any) -> AerostatMonitor:
        """Another monitor like our device's. It tells no name: that is the one of its socket."""
        return self._add(AerostatMonitor(self, self._path(name), name, size), attributes)

    def many(self, count: int, kind: str = "qemu", size: int = GIB) -> list[Monitor]:
        """`count` monitors, called vm0000 and so on."""
        make: Callable[..., Monitor] = self.qemu if kind == "qemu" else self.aerostat
        return [make(f"vm{next(self._numbers):04}", size) for _ in range(count)]

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs it in the thread, and waits."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def post(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Runs it in the thread, some time soon. To be called from any thread."""
        def start() -> None:
            task = self._loop.create_task(coroutine)
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

        self._loop.call_soon_threadsafe(start)

    def close(self) -> None:
        if self._loop.is_closed():
            return
        for monitor in self.all:
            monitor.die()
        self.do(self._cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def __enter__(self) -> Monitors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _path(self, name: str) -> pathlib.Path:
        path = self.directory / f"{name.replace('/', '_')}.qmp"
        assert len(os.fsencode(path)) <= 107, "a socket's path has at most 107 bytes"
        return path

    def _add(self, monitor: Any, attributes: dict[str, Any]) -> Any:
        for name, value in attributes.items():
            assert hasattr(monitor, name), f"a monitor has no '{name}'"
            setattr(monitor, name, value)
        monitor.actual = min(monitor.actual, monitor.size)
        self.do(monitor._listen())
        self.all.append(monitor)
        return monitor

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _beat(self) -> None:
        while True:
            now = time.time()
            for monitor in list(self.all):
                if monitor.connections and monitor.behaviour not in (Behaviour.HUNG,
                                                                     Behaviour.MUTE):
                    monitor.beat(now)
            await asyncio.sleep(ALIVE_S)

    async def _cancel(self) -> None:
        mine = asyncio.current_task()
        rest = [task for task in self.tasks if task is not mine]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
