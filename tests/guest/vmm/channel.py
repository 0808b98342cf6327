# SPDX-License-Identifier: MIT
"""The host's end of the conversation with the agent in the guest, whose protocol stands at the head
of rootfs/bin/agent."""

from __future__ import annotations

import base64
import secrets
import socket
import time

from .guest import GuestError, Result

READY = b"AGENT-READY\n"
WAITING = b"AGENT-WAITS\n"
PIECE = 2048  # well under the 4096 bytes that a terminal takes before its reader has read them


class Channel:
    """Scripts in, exact output and exit status out. One script at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""

    def wait_ready(self, timeout: float, word: bytes = READY) -> None:
        deadline = time.monotonic() + timeout
        while not self._line(deadline).endswith(word):
            pass

    def say(self, line: str, timeout: float) -> None:
        """A line for whoever waits for one before there is an agent."""
        self._send(line.encode() + b"\n", time.monotonic() + timeout)

    def run(self, script: str, timeout: float) -> Result:
        deadline = time.monotonic() + timeout
        token = secrets.token_hex(8).encode()
        encoded = base64.b64encode(script.encode())
        while len(encoded) > PIECE:
            self._send(b"+ " + encoded[:PIECE] + b"\n", deadline)
            encoded = encoded[PIECE:]
            while self._line(deadline) != b"+\n":
                pass
        self._send(token + b" " + encoded + b"\n", deadline)
        while True:
            words = self._line(deadline).split()
            if len(words) != 3 or not words[2].isdigit():
                continue  # noise: only a line with our token starts an answer
            body = self._exactly(int(words[2]), deadline)
            if words[0] == token:
                return Result(body, int(words[1]))
            # The late answer to a script whose caller has given up: dropped.

    def close(self) -> None:
        self._sock.close()

    def _send(self, request: bytes, deadline: float) -> None:
        self._sock.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            self._sock.sendall(request)
        except OSError as error:
            raise GuestError(f"the guest takes no command: {error}") from error

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._buffer:
            self._receive(deadline)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"

    def _exactly(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            self._receive(deadline)
        body, self._buffer = self._buffer[:count], self._buffer[count:]
        return body

    def _receive(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise GuestError("the guest did not answer in time")
        self._sock.settimeout(left)
        try:
            data = self._sock.recv(1 << 16)
        except TimeoutError as error:
            raise GuestError("the guest did not answer in time") from error
        except OSError as error:
            raise GuestError(f"the guest's agent is gone: {error}") from error
        if not data:
            raise GuestError("the guest has ended")
        self._buffer += data
