# SPDX-License-Identifier: MIT
"""The monitor: QMP as its specification says, and threats.md 18."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from balloon import INFLATE, MIB, Guest, stat
from process import Device
from qmp import Client, QMPError
from vhost_user import wait_for

COMMANDS = {"query-version", "query-commands", "query-qmp-schema", "query-status", "balloon",
            "query-balloon", "qom-get", "qom-set", "human-monitor-command", "quit",
            "query-balloon-device", "refresh-balloon-stats", "qmp_capabilities",
            "set-stats-push-interval", "query-guest-health", "free-page-hint",
            "query-free-page-hint", "balloon-inhibit", "balloon-uninhibit"}
EVENTS = {"BALLOON_CHANGE", "BALLOON", "VMM_CONNECTED", "VMM_DISCONNECTED", "GUEST_PRESSURE",
          "GUEST_HEALTH_CHANGE", "FREE_PAGE_HINT", "DEVICE_RESTARTED"}


def usable(client: Client) -> None:
    assert client.cmd("query-status")["running"] in (True, False)


def test_greeting_and_negotiation(device: Device) -> None:
    client = device.monitor(negotiate=False)
    version = client.greeting["QMP"]["version"]
    assert set(version["qemu"]) == {"major", "minor", "micro"} and "package" in version
    assert client.greeting["QMP"]["capabilities"] == []
    for name in ("query-status", "no-such-command"):
        with pytest.raises(QMPError) as caught:
            client.cmd(name)
        assert caught.value.error_class == "CommandNotFound"
    device.guest()
    with pytest.raises(TimeoutError):
        client.receive(0.3)  # no events before the negotiation
    with pytest.raises(QMPError):
        client.cmd("qmp_capabilities", {"enable": ["oob"]})
    client.cmd("qmp_capabilities", {"enable": []})
    assert client.cmd("query-version") == version
    with pytest.raises(QMPError) as caught:
        client.cmd("qmp_capabilities")
    assert caught.value.error_class == "CommandNotFound"


def test_schema_and_commands_agree(monitor: Client) -> None:
    assert monitor.schema is not None
    monitor.schema.closed()
    commands = {command["name"] for command in monitor.cmd("query-commands")}
    assert commands == monitor.schema.names("command") == COMMANDS
    assert monitor.schema.names("event") == EVENTS


@pytest.mark.parametrize("ident", [0, -1, 2**63, 1.5, "x", None, True, [], {"a": [1, {"b": 2}]},
                                   "\u20ac\U0001f388"])
def test_id_is_echoed(monitor: Client, ident: Any) -> None:
    monitor.send({"execute": "query-status"})
    assert "id" not in monitor.reply()
    monitor.send({"execute": "query-status", "id": ident})
    assert monitor.reply()["id"] == ident
    monitor.send({"execute": "no-such-command", "id": ident})
    reply = monitor.reply()
    assert reply["id"] == ident and reply["error"]["class"] == "CommandNotFound"


def test_commands_back_to_back_and_in_pieces(monitor: Client) -> None:
    lines = b"".join(b'{"execute":"query-status","id":%d}' % n for n in range(50))
    monitor.send_raw(lines)
    assert [monitor.reply()["id"] for _ in range(50)] == list(range(50))
    for at in range(0, 200, 3):
        monitor.send_raw(lines[at:at + 3] if at < 198 else lines[at:200])
    count = lines[:200].count(b"}")
    assert [monitor.reply()["id"] for _ in range(count)] == list(range(count))


WRONG = {
    "not-an-object": b"[]", "number": b"42", "string": b'"query-status"',
    "nothing-to-execute": b"{}", "unknown-key": b'{"execute":"query-status","bogus":1}',
    "execute-number": b'{"execute":1}', "both": b'{"execute":"query-status","exec-oob":"quit"}',
    "arguments-array": b'{"execute":"query-status","arguments":[]}',
    "arguments-null": b'{"execute":"query-status","arguments":null}',
    "extra-argument": b'{"execute":"query-status","arguments":{"a":1}}',
    "missing-argument": b'{"execute":"balloon"}',
    "string-for-int": b'{"execute":"balloon","arguments":{"value":"1"}}',
    "float-for-int": b'{"execute":"balloon","arguments":{"value":1.5}}',
    "bool-for-int": b'{"execute":"balloon","arguments":{"value":true}}',
    "null-for-int": b'{"execute":"balloon","arguments":{"value":null}}',
    "2^64": b'{"execute":"balloon","arguments":{"value":18446744073709551616}}',
    "2^64-1": b'{"execute":"balloon","arguments":{"value":18446744073709551615}}',
    "-2^63-1": b'{"execute":"balloon","arguments":{"value":-9223372036854775809}}',
    "10^400": b'{"execute":"balloon","arguments":{"value":1' + b"0" * 400 + b"}}",
    "duplicate-keys": b'{"execute":"query-status","execute":"quit"}',
    "duplicate-in-arguments": b'{"execute":"balloon","arguments":{"value":1,"value":2}}',
    "duplicate-in-id": b'{"execute":"query-status","id":{"a":1,"a":2}}',
    "path": b'{"execute":"qom-get","arguments":{"path":"/","property":"guest-stats"}}',
    "property": b'{"execute":"qom-get","arguments":{"path":"/machine/peripheral/balloon0",'
                b'"property":"x"}}',
    "read-only": b'{"execute":"qom-set","arguments":{"path":"/machine/peripheral/balloon0",'
                 b'"property":"guest-stats","value":1}}',
    "syntax": b'{"execute":}', "trailing-comma": b'{"execute":"query-status",}',
    "bare-word": b"query-status ", "nan": b'{"execute":"query-status","id":NaN}',
    "invalid-utf-8": b'{"execute":"query-status","id":"\xff\xfe"}',
    "cut-utf-8": b'{"execute":"query-status","id":"\xe2\x82"}',
    "overlong-utf-8": b'{"execute":"query-status","id":"\xc0\x80"}',
    "utf-8-surrogate": b'{"execute":"query-status","id":"\xed\xa0\x80"}',
    "lone-surrogate": b'{"execute":"query-status","id":"\\ud800"}',
    "control-character": b"\x01", "control-in-string": b'{"execute":"query-status","id":"\x02"}',
    "nul": b'{"execute":"query-status\\u0000"}',
    "deep": b'{"execute":"query-status","id":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "unbalanced": b"]", "brace": b"}",
}


@pytest.mark.parametrize("name", WRONG)
def test_18_wrong_input(device: Device, monitor: Client, name: str) -> None:
    """An error, and the connection stays usable, also in the middle of a mess."""
    guest = device.guest()
    target = monitor.device()["target"]
    monitor.send_raw(WRONG[name] + b"\n")
    reply = monitor.reply()
    assert "error" in reply, f"accepted: {reply}"
    # Broken input may give several errors; a command after a control character is clean again.
    monitor.send_raw(b'\x00{"execute":"query-status","id":"after"}')
    wait_for(lambda: monitor.reply().get("id") == "after", "usable again")
    usable(monitor)
    assert monitor.device()["target"] == target
    assert guest.fe.alive()


def test_18_endless_input(device: Device, monitor: Client) -> None:
    """A document without an end is refused long before it fills the host's memory."""
    guest = device.guest()
    for start in (b'{"execute":"', b"[", b'{"a":', b" " * 4096, b'{"id":"\\u0041'):
        client = device.monitor()
        filler = {b"[": b"[", b'{"a":': b'{"a":'}.get(start, b"x") * 4096
        if start.isspace():
            filler = b" " * 65536
        try:
            client.send_raw(start)
            for _ in range(300):
                client.send_raw(filler)
        except (TimeoutError, ConnectionError):
            pass
        assert device.anonymous_memory() < 400 * MIB
        device.close(client)
    usable(monitor)
    guest.inflate(guest.some_pages(2))


def test_18_several_clients(device: Device) -> None:
    clients = [device.monitor() for _ in range(8)]
    guest = device.guest()
    for number, client in enumerate(clients):
        assert client.event("VMM_CONNECTED") is not None
        client.cmd("balloon", {"value": (number % 7 + 1) * MIB})
    guest.write_actual(16)
    for client in clients:
        assert client.event("BALLOON_CHANGE") == {"actual": guest.mem.size() - 16 * 4096}
    for client in clients[::2]:
        device.close(client)
    for client in clients[1::2]:
        usable(client)


def test_18_client_that_never_reads(device: Device, monitor: Client) -> None:
    """Replies and events pile up for one client; guest and other clients notice nothing."""
    lazy = device.monitor()
    lazy.sock.settimeout(0.3)
    flood = b'{"execute":"query-qmp-schema"}' * 100
    with pytest.raises((TimeoutError, ConnectionError)):
        for _ in range(2000):
            lazy.send_raw(flood)
    for _ in range(100):
        device.close(device.front_end())  # two events each
    guest = device.guest()
    for round_ in range(20):
        start = time.monotonic()
        guest.inflate(guest.some_pages(20, round_))
        usable(monitor)
        assert time.monotonic() - start < 3
    assert device.anonymous_memory() < 600 * MIB
    guest.check()


def test_18_client_goes_away_with_a_command_under_way(device: Device, monitor: Client) -> None:
    guest: Guest = device.guest()
    guest.give_stats(stat(4, 1))
    wait_for(lambda: monitor.get("guest-stats")["stats"], "statistics")
    for command in ("refresh-balloon-stats", "human-monitor-command"):
        client = device.monitor()
        client.send({"execute": command, "arguments": {"command-line": "info balloon"}
                     if command.startswith("human") else {}})
        device.close(client)
    assert guest.stats_wanted()
    guest.give_stats(stat(4, 2))
    wait_for(lambda: monitor.get("guest-stats")["stats"] == {"stat-free-memory": 2}, "statistics")
    guest.inflate(guest.some_pages(1))
    assert not guest.queues[INFLATE].err.wait(0)


def test_18_half_closed_client_gets_its_answers(device: Device) -> None:
    client = device.monitor()
    client.send_raw(b'{"execute":"query-status","id":1}{"execute":"query-version","id":2}')
    client.sock.shutdown(socket.SHUT_WR)
    assert [client.reply()["id"], client.reply()["id"]] == [1, 2]
    with pytest.raises(EOFError):
        client.receive()


def test_18_connections_are_bounded(device: Device, monitor: Client) -> None:
    """Some hundred idle connections leave the monitor and the guest served."""
    socks = []
    for _ in range(300):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(0.2)
        socks.append(sock)
        try:
            sock.connect(device.mon)
        except OSError:
            break
    usable(monitor)
    for sock in socks:
        sock.close()
    device.good_session()
    usable(device.monitor())


def test_quit(device: Device) -> None:
    client = device.monitor()
    device.guest()
    assert client.cmd("quit") == {}
    device.close()
    device.gone()
    device.kill()


def test_answers_are_plain_json(monitor: Client) -> None:
    monitor.send({"execute": "query-status", "id": "\u20ac\"\\\n\x7f"})
    while b"\r\n" not in monitor.data:
        monitor.data += monitor.sock.recv(4096)
    line = monitor.data.split(b"\r\n")[0]
    assert line.isascii() and json.loads(line)["id"] == "\u20ac\"\\\n\x7f"
