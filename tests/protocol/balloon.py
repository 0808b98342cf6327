# SPDX-License-Identifier: MIT
"""A small guest with a balloon driver and the front end that carries it.

Every page of the guest outside the balloon holds a pattern of its own number; `check()` compares
them all, so a page that the guest may use and the device discarded is found. All memory is touched
at the start, so that the blocks of the memory files tell exactly what was really freed.
"""

from __future__ import annotations

import random
import select
import struct
import time
from typing import Iterable, Optional, Sequence

from rings import WRITE, PackedRing, Ring, Seg, SplitRing
from vhost_user import (ADDR, LOG_ALL, PF_REPLY_ACK, TIMEOUT, VRING_LOG, BackChannel, DirtyLog,
                        EventFd, FrontEnd, Memory, Region, Req, config, mem_table, one_region,
                        state, u64)

PAGE = 4096
MIB = 1 << 20

MUST_TELL_HOST, STATS_VQ, DEFLATE_ON_OOM = 0, 1, 2
FREE_PAGE_HINT, PAGE_POISON, PAGE_REPORTING, STATS_PUSH, MESSAGE_VQ = 3, 4, 5, 6, 50
INDIRECT_DESC, EVENT_IDX, PROTOCOL_FEATURES, VERSION_1, RING_PACKED = 28, 29, 30, 32, 34

# The standard's queue numbers, and the feature that each exists with.
INFLATE, DEFLATE, STATS, FREE_PAGE, REPORTING, MESSAGE = range(6)
QUEUE_FEATURE = {STATS: STATS_VQ, FREE_PAGE: FREE_PAGE_HINT, REPORTING: PAGE_REPORTING,
                 MESSAGE: MESSAGE_VQ}
QUEUES = 6
DEAD_QUEUES = range(3, QUEUES)

# Fields of the configuration space.
NUM_PAGES, ACTUAL, HINT_CMD, POISON, PUSH_INTERVAL = range(0, 20, 4)
HINT_STOP, HINT_DONE = 0, 1
PRESSURE, RELIEVED = 1, 2

ARENA = 0x80000  # rings and buffers, at the start of the first region; never in the balloon
BUFFERS = 0x50000

STATS_UNSET = 2**64 - 1


def bits(*numbers: int) -> int:
    return sum(1 << n for n in numbers)


def two_regions() -> list[Region]:
    """Guest address, front-end address and file offset all differ, and there is a gap between."""
    return [Region(16 * MIB, 4 * MIB), Region(64 * MIB, 4 * MIB, offset=2 * MIB)]


def pattern(pfn: int) -> bytes:
    return struct.pack("<Q", pfn * 0x9E3779B97F4A7C15 & (2**64 - 1) | 1) * (PAGE // 8)


def number_queues(features: int, counted: Optional[int]) -> dict[int, int]:
    """The ring of each queue: by the standard, or closing gaps among the `counted` features."""
    queues = [q for q in range(QUEUES) if counted is None or q not in QUEUE_FEATURE
              or counted >> QUEUE_FEATURE[q] & 1]
    return {q: q if counted is None else queues.index(q) for q in queues
            if q not in QUEUE_FEATURE or features >> QUEUE_FEATURE[q] & 1}


def ring_place(index: int) -> int:
    return index * 0x10000 if index < 4 else 0x40000 + (index - 4) * 0x8000


def stat(tag: int, value: int) -> bytes:
    return struct.pack("<HQ", tag, value)


class Queue:
    """A ring with its signals."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.kick, self.call, self.err = EventFd(), EventFd(), EventFd()

    def notify(self, always: bool = False) -> None:
        if self.ring.must_kick() or always:
            self.kick.signal()

    def next_used(self, timeout: float = TIMEOUT) -> Optional[tuple[int, int]]:
        """The next used buffer; without the device's call none is found after the first look."""
        end = time.monotonic() + timeout
        while True:
            used = self.ring.used()
            if used is not None:
                return used
            if not self.call.wait(end - time.monotonic()) and time.monotonic() >= end:
                return None

    def new_signals(self) -> None:
        """Another front end goes on with the ring."""
        self.close()
        self.kick, self.call, self.err = EventFd(), EventFd(), EventFd()

    def close(self) -> None:
        for signal in (self.kick, self.call, self.err):
            signal.close()


class Guest:
    """A guest, its memory and its connection to the device."""

    def __init__(self, where: str, *, regions: Optional[list[Region]] = None, packed: bool = False,
                 event_idx: bool = False, indirect: bool = False, version1: bool = True,
                 stats: bool = True, style: str = "qemu", size: int = 128,
                 extra: Iterable[int] = (), numbering: str = "negotiated") -> None:
        self.mem = Memory(two_regions() if regions is None else regions)
        self.packed, self.indirect, self.style = packed, indirect, style
        self.features = bits(MUST_TELL_HOST, PROTOCOL_FEATURES, DEFLATE_ON_OOM)
        for wanted, bit in ((packed, RING_PACKED), (event_idx, EVENT_IDX), (stats, STATS_VQ),
                            (indirect, INDIRECT_DESC), (version1, VERSION_1)):
            self.features |= wanted << bit
        self.features |= bits(*extra)
        self.numbering = numbering
        self.fe = FrontEnd(where)
        self.back = BackChannel()
        self.arena = self.mem.regions[0].gpa
        self._next_buffer = self.arena + BUFFERS
        self.queues: dict[int, Queue] = {}
        self.size = size
        self.memory_sent = False
        self.log_at: dict[int, int] = {}  # rings whose used ring is logged, and where
        self.stats_buffer: Optional[int] = None
        self.ballooned: set[int] = set()
        self._touch()
        self.negotiate()

    # Memory

    def pages(self) -> list[int]:
        """All page numbers that may go into the balloon."""
        return [pfn for region in self.mem.regions
                for pfn in range(region.gpa // PAGE, (region.gpa + region.size) // PAGE)
                if not self.arena <= pfn * PAGE < self.arena + ARENA]

    def _touch(self) -> None:
        self.mem.write(self.arena, bytes(ARENA))
        for pfn in self.pages():
            self.mem.write(pfn * PAGE, pattern(pfn))

    def check(self) -> None:
        """No page that the guest may use has lost its content."""
        for region in self.mem.regions:
            content = self.mem.read(region.gpa, region.size)
            for at in range(0, region.size, PAGE):
                pfn = (region.gpa + at) // PAGE
                if pfn in self.ballooned or self.arena <= pfn * PAGE < self.arena + ARENA:
                    continue
                assert content[at:at + PAGE] == pattern(pfn), f"page {pfn:#x} lost its content"

    def freed(self) -> int:
        """Bytes of guest memory that the host does not hold."""
        return self.mem.size() - self.mem.resident()

    def buffer(self, data: bytes) -> int:
        """Puts data into a piece of the arena; pieces are used again in turn."""
        if self._next_buffer + len(data) > self.arena + ARENA:
            self._next_buffer = self.arena + BUFFERS
        place = self._next_buffer
        self._next_buffer += (len(data) + 63) & ~63
        self.mem.write(place, data)
        return place

    # Setting up

    def negotiate(self) -> None:
        fe = self.fe
        if self.style == "uml":
            fe.tell(Req.SET_OWNER)
        self.offered = fe.ask_u64(Req.GET_FEATURES)
        assert not self.features & ~self.offered, f"offered only {self.offered:#x}"
        counted = {"fixed": None, "negotiated": self.features, "offered": self.offered}
        self.ring_of = number_queues(self.features, counted[self.numbering])
        self.proto = fe.ask_u64(Req.GET_PROTOCOL_FEATURES)
        fe.tell(Req.SET_PROTOCOL_FEATURES, u64(self.proto))
        fe.reply_ack = bool(self.proto >> PF_REPLY_ACK & 1)
        if self.style != "uml":
            assert fe.ask_u64(Req.GET_QUEUE_NUM) == QUEUES
            assert fe.ask_u64(Req.GET_MAX_MEM_SLOTS) == 64
        fe.tell(Req.SET_BACKEND_REQ_FD, b"", [self.back.peer.fileno()])
        self.back.handed_over()
        if self.style != "uml":
            fe.tell(Req.SET_OWNER)
            for index in DEAD_QUEUES:
                fe.vring_fd(Req.SET_VRING_CALL, index, None)
                fe.vring_fd(Req.SET_VRING_ERR, index, None)

    def send_memory(self) -> None:
        self.memory_sent = True
        if self.style == "uml":
            # User-mode Linux always sends room for two regions.
            table = mem_table(self.mem.regions)
            self.fe.tell(Req.SET_MEM_TABLE, table.ljust(72, b"\0"),
                         [r.fd for r in self.mem.regions])
            return
        for region in self.mem.regions:
            self.fe.tell(Req.ADD_MEM_REG, one_region(region), [region.fd])

    def make_ring(self, gpa: int, size: int) -> Ring:
        kind = PackedRing if self.packed else SplitRing
        return kind(self.mem, gpa, size, bool(self.features >> EVENT_IDX & 1))

    def queue_numbers(self) -> list[int]:
        return sorted(self.ring_of.values())

    def set_addr(self, index: int, ring: Ring) -> None:
        self.fe.tell(Req.SET_VRING_ADDR, ADDR.pack(
            index, VRING_LOG if index in self.log_at else 0, self.mem.uaddr(ring.desc),
            self.mem.uaddr(ring.device), self.mem.uaddr(ring.driver), self.log_at.get(index, 0)))

    def start_queue(self, index: int, base: Optional[int] = None) -> None:
        """Sends a queue's messages but ENABLE; the ring is a new one if base is None."""
        if base is None:
            if index in self.queues:
                self.queues.pop(index).close()
            self.queues[index] = Queue(self.make_ring(self.arena + ring_place(index), self.size))
            base = self.queues[index].ring.base()
            if self.style == "uml":
                base = 0  # also for packed rings, whose wrap counters start at 1
        queue, fe = self.queues[index], self.fe
        fe.tell(Req.SET_VRING_NUM, state(index, queue.ring.size))
        fe.tell(Req.SET_VRING_BASE, state(index, base))
        self.set_addr(index, queue.ring)
        fe.vring_fd(Req.SET_VRING_ERR, index, queue.err.fd)
        fe.vring_fd(Req.SET_VRING_KICK, index, queue.kick.fd)
        fe.vring_fd(Req.SET_VRING_CALL, index, queue.call.fd)

    def enable(self, *indices: int) -> None:
        if self.features >> PROTOCOL_FEATURES & 1:
            for index in indices:
                self.fe.tell(Req.SET_VRING_ENABLE, state(index, 1))

    def start_queues(self, bases: Optional[dict[int, int]] = None) -> None:
        """All queues, from the given bases or anew."""
        self.fe.tell(Req.SET_FEATURES, u64(self.features))
        if not self.memory_sent:
            self.send_memory()
        for index in self.queue_numbers():
            self.start_queue(index, bases[index] if bases else None)
            if self.style == "one-by-one":
                self.enable(index)
        if self.style != "one-by-one":
            self.enable(*self.queues)

    def start(self) -> "Guest":
        """What front ends do at DRIVER_OK."""
        self.start_queues()
        return self

    def stop(self) -> dict[int, int]:
        """What QEMU does at reset and stop; the bases that the device handed back."""
        bases = {}
        for index in self.queues:
            self.fe.tell(Req.SET_VRING_ENABLE, state(index, 0))
        for index in self.queues:
            reply = self.fe.ask(Req.GET_VRING_BASE, state(index))
            number, bases[index] = struct.unpack("=II", reply)
            assert number == index
        return bases

    def cont(self, bases: dict[int, int]) -> None:
        self.start_queues(bases)

    def reset(self) -> None:
        """The guest reboots: rings are new, and all its memory is its own again. The memory
        table is not sent again."""
        self.stop()
        self.reclaim(self.ballooned)
        self.stats_buffer = None
        self.start_queues()

    # Migration

    def log_to(self, log: Optional[DirtyLog], at: Optional[dict[int, int]] = None) -> None:
        """Begins (None: ends) dirty logging of all rings as QEMU does; `at`: where each used ring
        begins for the log, if not at its address."""
        self.log_at = {}
        self.features &= ~bits(LOG_ALL)
        if log is not None:
            self.fe.set_log(log)
            self.features |= bits(LOG_ALL)
            self.log_at = at or {index: queue.ring.device for index, queue in self.queues.items()}
        self.fe.tell(Req.SET_FEATURES, u64(self.features))
        for index, queue in self.queues.items():
            self.set_addr(index, queue.ring)

    def move(self, where: str, regions: Optional[list[Region]] = None) -> None:
        """The stopped guest goes to another host: connects there, with what it had in memory.
        The back end knows nothing yet but that. `regions`: how memory lies there; a page that is
        all zeros is not touched, as migration leaves it."""
        old = self.mem.regions
        new = regions or [Region(r.gpa, r.size, uaddr=r.gpa + 0x7E00_0000_0000) for r in old]
        for region in old:
            for gpa in range(region.gpa, region.gpa + region.size, PAGE):
                content = self.mem.read(gpa, PAGE)
                if any(content):
                    Memory(new).write(gpa, content)
        self.fe.close()
        self.back.close()
        self.mem.close()
        self.mem.regions = new  # rings have this object too
        self.memory_sent = False
        for queue in self.queues.values():
            queue.new_signals()
        self.fe = FrontEnd(where)
        self.back = BackChannel()
        self.negotiate()

    # Driver

    def submit(self, index: int, data: bytes | Sequence[bytes]) -> int:
        """Makes a buffer of one or several pieces available on a queue, and kicks."""
        queue = self.queues[index]
        parts = [data] if isinstance(data, bytes) else list(data)
        segs = [Seg(self.buffer(part), len(part)) for part in parts]
        table = self.buffer(bytes(16 * len(segs))) if self.indirect else None
        ident = queue.ring.add(segs, table)
        queue.notify()
        return ident

    def _transfer(self, index: int, pfns: Iterable[int]) -> None:
        data = b"".join(struct.pack("<I", pfn) for pfn in pfns)
        ident = self.submit(index, data)
        used = self.queues[index].next_used()
        assert used is not None, f"queue {index}: buffer not returned"
        assert used[0] == ident
        assert used[1] == 0, f"queue {index}: the device says it wrote {used[1]} bytes"

    def inflate(self, pfns: Sequence[int]) -> None:
        for at in range(0, len(pfns), 256):
            self._transfer(INFLATE, pfns[at:at + 256])
        self.ballooned.update(pfns)

    def deflate(self, pfns: Sequence[int]) -> None:
        for at in range(0, len(pfns), 256):
            self._transfer(DEFLATE, pfns[at:at + 256])
        self.reclaim(pfns)

    def reclaim(self, pfns: Iterable[int]) -> None:
        """The guest uses the pages again."""
        for pfn in list(pfns):
            self.ballooned.discard(pfn)
            self.mem.write(pfn * PAGE, pattern(pfn))

    def some_pages(self, count: int, seed: int = 0) -> list[int]:
        """Pages that are not in the balloon, in any order, from all regions."""
        return random.Random(seed).sample([p for p in self.pages() if p not in self.ballooned],
                                          count)

    def give_stats(self, data: bytes) -> None:
        """Puts statistics at the device; it keeps the buffer until it wants new ones."""
        assert self.stats_buffer is None
        self.stats_buffer = self.submit(STATS, data)

    def stats_wanted(self, timeout: float = TIMEOUT) -> bool:
        """True if the device returns the statistics buffer in time."""
        used = self.queues[STATS].next_used(timeout)
        if used is None:
            return False
        assert used[0] == self.stats_buffer
        self.stats_buffer = None
        return True

    def queue(self, role: int) -> Queue:
        return self.queues[self.ring_of[role]]

    def write_to(self, role: int, segs: Sequence[Seg]) -> int:
        """Makes a chain of any segments available on a queue, and kicks."""
        ident = self.queue(role).ring.add(list(segs), None)
        self.queue(role).notify()
        return ident

    def returned(self, role: int, ident: int, timeout: float = TIMEOUT) -> bool:
        """True if the device returns just this buffer of a queue in time, unwritten."""
        used = self.queue(role).next_used(timeout)
        if used is None:
            return False
        assert used == (ident, 0), f"queue {role}: {used} instead of buffer {ident}"
        return True

    def ranges(self, pfns: Sequence[int], count: int = 1) -> list[Seg]:
        """Device-writable segments of `count` pages each."""
        return [Seg(pfn * PAGE, count * PAGE, WRITE) for pfn in pfns]

    def report(self, segs: Sequence[Seg]) -> None:
        """Reports free pages and takes them back; what they hold then is anybody's guess."""
        assert self.returned(REPORTING, self.write_to(REPORTING, segs)), "report not returned"

    def hint_id(self, command: int) -> None:
        at = self.buffer(struct.pack("<I", command))
        assert self.returned(FREE_PAGE, self.write_to(FREE_PAGE, [Seg(at, 4)])), "id not returned"

    def hint(self, segs: Sequence[Seg]) -> None:
        assert self.returned(FREE_PAGE, self.write_to(FREE_PAGE, segs)), "hints not returned"

    def send_message(self, data: bytes) -> int:
        return self.write_to(MESSAGE, [Seg(self.buffer(data), len(data))])

    def message(self, kind: int, arg: int = 0) -> None:
        """Sends a message and waits for its acknowledgement."""
        ident = self.send_message(struct.pack("<II", kind, arg))
        assert self.returned(MESSAGE, ident), "message not acknowledged"

    def config_field(self, offset: int) -> int:
        return int(struct.unpack("<I", self.fe.get_config(offset, 4))[0])

    def num_pages(self) -> int:
        return self.config_field(NUM_PAGES)

    def write_actual(self, pages: Optional[int] = None) -> None:
        """Tells the device what the driver holds, by the whole struct as QEMU does."""
        value = len(self.ballooned) if pages is None else pages
        self.fe.tell(Req.SET_CONFIG, config(0, struct.pack("<II", 0xDEADBEEF, value)))

    def broke(self, index: int, timeout: float = TIMEOUT) -> bool:
        """True if the device signalled an error of this queue."""
        return bool(select.select([self.queues[index].err.fd], [], [], timeout)[0])

    def close(self) -> None:
        self.fe.close()
        self.back.close()
        for queue in self.queues.values():
            queue.close()
        self.mem.close()
