# SPDX-License-Identifier: MIT
"""The driver's side of split and packed virtqueues, written from the virtio specification alone.

Rings are laid out by hand in guest memory. Besides the well-behaved add() and used() there is
raw(), which publishes descriptors exactly as given, for the tests of hostile guests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Optional, Sequence

from vhost_user import Memory

NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED = 1 << 7, 1 << 15
NO_INTERRUPT = 1
EVENT_ENABLE, EVENT_DISABLE, EVENT_DESC = 0, 1, 2

SPLIT_DESC = struct.Struct("<QIHH")  # address, length, flags, next
PACKED_DESC = struct.Struct("<QIHH")  # address, length, id, flags


@dataclass(frozen=True)
class Seg:
    """A piece of a buffer. `link` is the next field (split) or the id (packed) when used raw."""

    gpa: int
    size: int
    flags: int = 0
    link: int = 0


def need_event(event: int, new: int, old: int) -> bool:
    """True if moving an index from old to new passes event (virtio, "event index")."""
    return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF


class Layout:
    """Where the parts of a ring are. Both formats have these operations beside it:

    add() makes a buffer available, through an indirect table at `table` if given; its id
    raw() makes descriptors available as they are, from the current position on
    used() takes the next used buffer: its id and the length that the device says it wrote
    must_kick() does the device want to hear of what was added since the last call?
    base() what SET_VRING_BASE takes for a device that has consumed everything
    want_call() asks for a call once `ahead` further buffers are used; that needs the event index
    mute() asks for no calls (the event index of split rings cannot say that)
    """

    def __init__(self, mem: Memory, gpa: int, size: int, event_idx: bool) -> None:
        self.mem, self.size, self.event_idx = mem, size, event_idx
        self.desc = gpa
        self.driver = gpa + 16 * size
        self.device = (self.driver + 8 + 2 * size + 15) & ~15
        self.end = self.device + 8 + 8 * size
        mem.write(gpa, bytes(self.end - gpa))
        self.quiet = False


class SplitRing(Layout):
    """Descriptor table, available ring, used ring."""

    def __init__(self, mem: Memory, gpa: int, size: int, event_idx: bool = False) -> None:
        super().__init__(mem, gpa, size, event_idx)
        self.free = list(range(size))
        self.chains: dict[int, list[int]] = {}
        self.avail_idx = self.kicked_idx = self.used_idx = 0
        self.want_call()

    def set_desc(self, at: int, seg: Seg, table: Optional[int] = None) -> None:
        place = (self.desc if table is None else table) + 16 * at
        self.mem.write(place, SPLIT_DESC.pack(seg.gpa, seg.size, seg.flags, seg.link))

    def publish(self, head: int) -> None:
        self.mem.w16(self.driver + 4 + 2 * (self.avail_idx % self.size), head)
        self.set_avail_idx(self.avail_idx + 1)

    def set_avail_idx(self, idx: int) -> None:
        self.avail_idx = idx & 0xFFFF
        self.mem.w16(self.driver + 2, self.avail_idx)

    def _chain(self, segs: Sequence[Seg], places: Sequence[int], table: Optional[int]) -> None:
        for i, seg in enumerate(segs):
            last = i + 1 == len(segs)
            link, flag = (0, 0) if last else (places[i + 1], NEXT)
            self.set_desc(places[i], Seg(seg.gpa, seg.size, seg.flags | flag, link), table)

    def add(self, segs: Sequence[Seg], table: Optional[int] = None) -> int:
        if table is not None:
            self._chain(segs, range(len(segs)), table)
            segs = [Seg(table, 16 * len(segs), INDIRECT)]
        places = [self.free.pop(0) for _ in segs]
        self._chain(segs, places, None)
        self.chains[places[0]] = places
        self.publish(places[0])
        return places[0]

    def raw(self, segs: Sequence[Seg]) -> None:
        for i, seg in enumerate(segs):
            self.set_desc(i, seg)
        self.publish(0)

    def used(self) -> Optional[tuple[int, int]]:
        if self.mem.r16(self.device + 2) == self.used_idx:
            return None
        at = self.device + 4 + 8 * (self.used_idx % self.size)
        ident, length = struct.unpack("<II", self.mem.read(at, 8))
        self.used_idx = (self.used_idx + 1) & 0xFFFF
        assert ident in self.chains, f"used ring returns {ident}, which is not outstanding"
        self.free += self.chains.pop(ident)
        if not self.quiet:
            self.want_call()
        return ident, length

    def must_kick(self) -> bool:
        old, self.kicked_idx = self.kicked_idx, self.avail_idx
        if self.event_idx:
            event = self.mem.r16(self.device + 4 + 8 * self.size)
            return need_event(event, self.avail_idx, old)
        return not self.mem.r16(self.device) & NO_INTERRUPT

    def base(self) -> int:
        return self.avail_idx

    def want_call(self, ahead: int = 0) -> None:
        self.quiet = ahead > 0
        if self.event_idx:
            self.mem.w16(self.driver + 4 + 2 * self.size, self.used_idx + ahead)
        else:
            self.mem.w16(self.driver, 0)

    def mute(self) -> None:
        self.quiet = True
        self.mem.w16(self.driver, NO_INTERRUPT)


class PackedRing(Layout):
    """One descriptor ring and two event suppression structures."""

    def __init__(self, mem: Memory, gpa: int, size: int, event_idx: bool = False) -> None:
        super().__init__(mem, gpa, size, event_idx)
        self.next, self.wrap = 0, 1
        self.used_at, self.used_wrap = 0, 1
        self.added = 0
        self.ids = list(range(size))
        self.counts: dict[int, int] = {}
        self.want_call()

    def _write(self, at: int, seg: Seg, flags: int) -> None:
        place = self.desc + 16 * at
        self.mem.write(place, PACKED_DESC.pack(seg.gpa, seg.size, seg.link, 0)[:14])
        self.mem.w16(place + 14, flags)

    def _publish(self, segs: Sequence[Seg]) -> None:
        """The first descriptor's flags are written last, so that no half chain is ever seen."""
        first: Optional[tuple[int, Seg, int]] = None
        for seg in segs:
            flags = seg.flags | (AVAIL if self.wrap else USED)
            if first is None:
                first = (self.next, seg, flags)
            else:
                self._write(self.next, seg, flags)
            self.next += 1
            if self.next == self.size:
                self.next, self.wrap = 0, self.wrap ^ 1
        self.added += len(segs)
        if first is not None:
            self._write(*first)

    def add(self, segs: Sequence[Seg], table: Optional[int] = None) -> int:
        ident = self.ids.pop(0)
        if table is not None:
            for i, seg in enumerate(segs):
                packed = PACKED_DESC.pack(seg.gpa, seg.size, 0, seg.flags)
                self.mem.write(table + 16 * i, packed)
            segs = [Seg(table, 16 * len(segs), INDIRECT)]
        last = len(segs) - 1
        self.counts[ident] = len(segs)
        self._publish([Seg(s.gpa, s.size, s.flags | (NEXT if i < last else 0), ident)
                       for i, s in enumerate(segs)])
        return ident

    def raw(self, segs: Sequence[Seg]) -> None:
        self._publish(segs)

    def used(self) -> Optional[tuple[int, int]]:
        place = self.desc + 16 * self.used_at
        flags = self.mem.r16(place + 14)
        if bool(flags & AVAIL) != bool(flags & USED) or bool(flags & USED) != bool(self.used_wrap):
            return None
        _, length, ident, flags = PACKED_DESC.unpack(self.mem.read(place, 16))
        assert ident in self.counts, f"used descriptor has id {ident}, which is not outstanding"
        self.used_at += self.counts.pop(ident)
        if self.used_at >= self.size:
            self.used_at, self.used_wrap = self.used_at - self.size, self.used_wrap ^ 1
        self.ids.append(ident)
        if not self.quiet:
            self.want_call()
        return ident, length if flags & WRITE else 0

    def must_kick(self) -> bool:
        added, self.added = self.added, 0
        flags = self.mem.r16(self.device + 2) & 3
        if flags != EVENT_DESC:
            return flags == EVENT_ENABLE
        where = self.mem.r16(self.device)
        event = where & 0x7FFF
        if where >> 15 != self.wrap:
            event -= self.size
        return need_event(event, self.next, self.next - added)

    def base(self) -> int:
        one = self.next | self.wrap << 15
        return one | one << 16

    def want_call(self, ahead: int = 0) -> None:
        self.quiet = ahead > 0
        if self.event_idx:
            at, wrap = self.used_at + ahead, self.used_wrap
            if at >= self.size:
                at, wrap = at - self.size, wrap ^ 1
            self.mem.w16(self.driver, at | wrap << 15)
            self.mem.w16(self.driver + 2, EVENT_DESC)
        else:
            self.mem.w16(self.driver + 2, EVENT_ENABLE)

    def mute(self) -> None:
        self.quiet = True
        self.mem.w16(self.driver + 2, EVENT_DISABLE)


Ring = SplitRing | PackedRing
