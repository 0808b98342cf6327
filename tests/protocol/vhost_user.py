# SPDX-License-Identifier: MIT
"""A vhost-user front end, written from QEMU's docs/interop/vhost-user.rst alone.

Nothing here knows about balloons. Every wait has a deadline, so that a missing reply is a failure
and not a hang.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import socket
import struct
import termios
import time
from enum import IntEnum
from typing import Iterable, Optional, Sequence

TIMEOUT = 10.0

VERSION = 0x1
REPLY = 0x4
NEED_REPLY = 0x8
NO_FD = 0x100

HEADER = struct.Struct("=III")
STATE = struct.Struct("=II")
ADDR = struct.Struct("=IIQQQQ")
REGION = struct.Struct("=QQQQ")
CONFIG = struct.Struct("=III")


class Req(IntEnum):
    """Requests of the front end that this test suite sends."""

    GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE = 1, 2, 3, 4, 5
    SET_LOG_BASE, SET_LOG_FD = 6, 7
    SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 8, 9, 10, 11
    SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR = 12, 13, 14
    GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM = 15, 16, 17
    SET_VRING_ENABLE, SET_BACKEND_REQ_FD, GET_CONFIG, SET_CONFIG = 18, 21, 24, 25
    GET_INFLIGHT_FD, SET_INFLIGHT_FD, RESET_DEVICE = 31, 32, 34
    GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG = 36, 37, 38
    SET_DEVICE_STATE_FD, CHECK_DEVICE_STATE = 42, 43


CONFIG_CHANGE = 2  # the one request of the back end

LOG_ALL = 26  # feature bit: what the device writes goes to the dirty log
VRING_LOG = 1  # flag in SET_VRING_ADDR: also its used ring
LOG_PAGE = 4096

SAVE, LOAD = 0, 1  # directions of SET_DEVICE_STATE_FD

# Protocol feature bits.
PF_MQ, PF_LOG_SHMFD, PF_REPLY_ACK, PF_BACKEND_REQ, PF_CONFIG = 0, 1, 3, 5, 9
PF_MEM_SLOTS, PF_DEVICE_STATE = 15, 19
OFFERED_PROTOCOL = sum(1 << bit for bit in (PF_MQ, PF_LOG_SHMFD, PF_REPLY_ACK, PF_BACKEND_REQ,
                                            PF_CONFIG, PF_MEM_SLOTS, PF_DEVICE_STATE))


class Closed(Exception):
    """The back end closed the connection."""


class Refused(Exception):
    """The back end acknowledged a request with an error."""


def wait_for(what, text: str, timeout: float = TIMEOUT):
    """Polls what() until it is true and returns that value; fails after timeout seconds."""
    end = time.monotonic() + timeout
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {text}")
        time.sleep(0.002)


class Region:
    """A piece of guest memory: a memfd, mapped here, to be shared with the back end."""

    def __init__(self, gpa: int, size: int, uaddr: Optional[int] = None, offset: int = 0,
                 huge: bool = False) -> None:
        self.gpa, self.size, self.offset = gpa, size, offset
        self.uaddr = gpa + 0x7F00_0000_0000 if uaddr is None else uaddr
        flags = os.MFD_CLOEXEC | (os.MFD_HUGETLB if huge else 0)
        self.fd = os.memfd_create("protocol-test-ram", flags)
        os.ftruncate(self.fd, offset + size)
        self.map = mmap.mmap(self.fd, size, offset=offset)
        view = memoryview(self.map)
        self.u16 = view.cast("H")
        self._views = (self.u16, view)

    def describe(self) -> bytes:
        """The region as it stands in SET_MEM_TABLE and ADD_MEM_REG."""
        return REGION.pack(self.gpa, self.size, self.uaddr, self.offset)

    def close(self) -> None:
        if self.fd < 0:
            return
        for view in self._views:
            view.release()
        self.map.close()
        os.close(self.fd)
        self.fd = -1


class DirtyLog:
    """A bitmap of guest pages, shared with the back end that sets bits in it."""

    def __init__(self, size: int = 4096, offset: int = 0, file_size: Optional[int] = None) -> None:
        self.offset, self.size = offset, size
        self.fd = os.memfd_create("protocol-test-ram-log", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, offset + size if file_size is None else file_size)

    def describe(self) -> bytes:
        return struct.pack("=QQ", self.size, self.offset)

    def pages(self) -> set[int]:
        """The pages whose bits are set; nothing beside the bitmap may have been written."""
        data = os.pread(self.fd, os.fstat(self.fd).st_size, 0)
        bitmap = data[self.offset:self.offset + self.size]
        assert not any(data[:self.offset]) and not any(data[self.offset + self.size:])
        return {8 * at + bit for at, byte in enumerate(bitmap) if byte
                for bit in range(8) if byte >> bit & 1}

    def clear(self) -> None:
        """Only while the back end does not write."""
        os.pwrite(self.fd, bytes(self.size), self.offset)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


class Memory:
    """Guest-physical address space. 16-bit stores are single stores, as rings need them."""

    def __init__(self, regions: Sequence[Region]) -> None:
        self.regions = list(regions)

    def find(self, gpa: int) -> Region:
        for region in self.regions:
            if region.gpa <= gpa < region.gpa + region.size:
                return region
        raise ValueError(f"no guest memory at {gpa:#x}")

    def uaddr(self, gpa: int) -> int:
        region = self.find(gpa)
        return gpa - region.gpa + region.uaddr

    def write(self, gpa: int, data: bytes) -> None:
        region = self.find(gpa)
        at = gpa - region.gpa
        region.map[at:at + len(data)] = data

    def read(self, gpa: int, size: int) -> bytes:
        """Reads through the file, which unlike a look through the mapping fills no holes."""
        region = self.find(gpa)
        return os.pread(region.fd, size, gpa - region.gpa + region.offset)

    def w16(self, gpa: int, value: int) -> None:
        region = self.find(gpa)
        region.u16[(gpa - region.gpa) // 2] = value & 0xFFFF

    def r16(self, gpa: int) -> int:
        region = self.find(gpa)
        return region.u16[(gpa - region.gpa) // 2]

    def size(self) -> int:
        return sum(region.size for region in self.regions)

    def resident(self) -> int:
        """Bytes of the files that the host really holds."""
        return sum(os.fstat(region.fd).st_blocks * 512 for region in self.regions)

    def close(self) -> None:
        for region in self.regions:
            region.close()


def mem_table(regions: Iterable[Region]) -> bytes:
    listed = list(regions)
    return struct.pack("=II", len(listed), 0) + b"".join(r.describe() for r in listed)


def one_region(region: Region) -> bytes:
    return struct.pack("=Q", 0) + region.describe()


def state(index: int, num: int = 0) -> bytes:
    return STATE.pack(index, num)


def u64(value: int) -> bytes:
    return struct.pack("=Q", value)


def config(offset: int, data: bytes, flags: int = 0) -> bytes:
    return CONFIG.pack(offset, len(data), flags) + data


class EventFd:
    """An eventfd as kick, call or error signal."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def signal(self) -> None:
        os.eventfd_write(self.fd, 1)

    def wait(self, timeout: float) -> bool:
        """True if the other side signalled; takes the signal."""
        if not select.select([self.fd], [], [], max(timeout, 0.0))[0]:
            return False
        try:
            return os.eventfd_read(self.fd) > 0
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self.fd)


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly size bytes, or Closed."""
    data = b""
    while len(data) < size:
        try:
            part = sock.recv(size - len(data))
        except ConnectionError as error:
            raise Closed from error
        if not part:
            raise Closed
        data += part
    return data


class BackChannel:
    """The front end's side of the channel on which the back end makes requests."""

    def __init__(self) -> None:
        self.sock, self.peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)

    def handed_over(self) -> None:
        """The back end has its end now; ours goes, so that an end of file is seen."""
        self.peer.close()

    def next(self, timeout: float = TIMEOUT) -> Optional[int]:
        """The next request, answered if it asks for that; None if none came in time."""
        if not select.select([self.sock], [], [], timeout)[0]:
            return None
        request, flags, size = HEADER.unpack(receive(self.sock, HEADER.size))
        receive(self.sock, size)
        assert flags & 0x3 == VERSION and not flags & REPLY, f"flags {flags:#x}"
        if flags & NEED_REPLY:
            self.sock.sendall(HEADER.pack(request, VERSION | REPLY, 8) + u64(0))
        return request

    def queued(self) -> int:
        """How many requests (of 12 bytes) wait to be read."""
        waiting = bytearray(4)
        fcntl.ioctl(self.sock, termios.FIONREAD, waiting)
        return int(struct.unpack("=i", waiting)[0]) // HEADER.size

    def drain(self) -> int:
        """Takes everything that is there now; the number of requests."""
        count = 0
        while self.next(0.0) is not None:
            count += 1
        return count

    def close(self) -> None:
        self.sock.close()
        self.peer.close()


class FrontEnd:
    """One vhost-user connection."""

    def __init__(self, where: str | socket.socket) -> None:
        if isinstance(where, str):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.connect(where)  # waits for its turn where the backlog is full
        else:
            self.sock = where
        self.sock.settimeout(TIMEOUT)
        self.reply_ack = False

    def send_raw(self, data: bytes, fds: Sequence[int] = ()) -> None:
        try:
            sent = socket.send_fds(self.sock, [data], list(fds)) if fds else 0
            if data[sent:]:
                self.sock.sendall(data[sent:])
        except ConnectionError as error:
            raise Closed from error

    def send(self, req: int, payload: bytes = b"", fds: Sequence[int] = (),
             flags: int = VERSION, size: Optional[int] = None) -> None:
        header = HEADER.pack(req, flags, len(payload) if size is None else size)
        self.send_raw(header + payload, fds)

    def receive_reply(self, req: int) -> bytes:
        got, flags, size = HEADER.unpack(receive(self.sock, HEADER.size))
        payload = receive(self.sock, size)
        assert got == req, f"reply to {got}, not to {req}"
        assert flags & 0x7 == VERSION | REPLY, f"reply flags {flags:#x}"
        return payload

    def ask(self, req: int, payload: bytes = b"", fds: Sequence[int] = ()) -> bytes:
        """A request that has a reply of its own."""
        self.send(req, payload, fds)
        return self.receive_reply(req)

    def ask_u64(self, req: int) -> int:
        return int(struct.unpack("=Q", self.ask(req))[0])

    def tell(self, req: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """A request without a reply; waits for the acknowledgement where that is negotiated."""
        if not self.reply_ack:
            self.send(req, payload, fds)
            return
        self.send(req, payload, fds, VERSION | NEED_REPLY)
        result = struct.unpack("=Q", self.receive_reply(req))[0]
        if result:
            raise Refused(f"{Req(req).name}: {result:#x}")

    def refused(self, req: int, payload: bytes = b"", fds: Sequence[int] = (),
                size: Optional[int] = None, flags: int = VERSION | NEED_REPLY) -> bool:
        """Sends a mistake; true if it was answered with an error, or not at all, and the session
        ended, as a front end's mistake has to. GET_CONFIG has an error reply of its own, an empty
        one, after which the session may go on."""
        try:
            self.send(req, payload, fds, flags, size)
            got, _, length = HEADER.unpack(receive(self.sock, HEADER.size))
            reply = receive(self.sock, length)
        except Closed:
            return True
        if req == Req.GET_CONFIG and not reply:
            return got == req and (self.alive() or self.ended())
        return got == req and len(reply) == 8 and any(reply) and self.ended()

    def ended(self, timeout: float = TIMEOUT) -> bool:
        """True if the back end closes the connection in time; drops what still arrives."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if not select.select([self.sock], [], [], 0.1)[0]:
                continue
            try:
                if not self.sock.recv(65536):
                    return True
            except ConnectionError:
                return True
        return False

    def alive(self) -> bool:
        """True if the back end still answers on this connection."""
        try:
            return len(self.ask(Req.GET_FEATURES)) == 8
        except Closed:
            return False

    def vring_fd(self, req: int, index: int, fd: Optional[int]) -> None:
        if fd is None:
            self.tell(req, u64(index | NO_FD))
        else:
            self.tell(req, u64(index), [fd])

    def set_log(self, log: DirtyLog) -> None:
        """From the reply on the back end writes to this log, and to no other."""
        self.ask(Req.SET_LOG_BASE, log.describe(), [log.fd])

    def device_state(self, direction: int, fd: int, phase: int = 0) -> bool:
        """Hands over an end of the channel for the device's state; false if it is refused."""
        reply = self.ask(Req.SET_DEVICE_STATE_FD, struct.pack("=II", direction, phase), [fd])
        result = int(struct.unpack("=Q", reply)[0])
        assert result & NO_FD, "a back end with a channel of its own"
        return not result & 0xFF

    def check_state(self) -> bool:
        """Was the transfer a success?"""
        return self.ask_u64(Req.CHECK_DEVICE_STATE) == 0

    def get_config(self, offset: int, size: int) -> bytes:
        reply = self.ask(Req.GET_CONFIG, config(offset, bytes(size)))
        got = CONFIG.unpack_from(reply)
        assert (got[0], got[1]) == (offset, size), f"GET_CONFIG answered {got}"
        assert len(reply) == CONFIG.size + size, f"{len(reply)} bytes of reply"
        return reply[CONFIG.size:]

    def close(self) -> None:
        self.sock.close()
