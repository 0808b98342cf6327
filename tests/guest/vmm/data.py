# SPDX-License-Identifier: MIT
"""Data in the guest's memory whose checksum the host knows without having read it back."""

from __future__ import annotations

import hashlib
import secrets

from .guest import PAGE, Guest


def pattern(seed: str, pages: int) -> bytes:
    """The bytes that programs/pattern.c writes: every page says which one it is."""
    return b"".join(f"{seed}:{page}".ljust(PAGE - 1).encode() + b"\n" for page in range(pages))


class GuestData:
    """Files of patterned pages in a tmpfs of the guest, written, thinned out and verified.

    Files lie behind one another in memory, so a balloon that takes the pages of the removed ones
    comes to lie all around those that remain."""

    def __init__(self, guest: Guest, directory: str = "/data", pages_per_file: int = 256) -> None:
        self._guest = guest
        self._directory = directory
        self._pages = pages_per_file
        self._seed = secrets.token_hex(4)
        self._files: dict[str, str] = {}
        self._written = 0

    @property
    def size(self) -> int:
        """Bytes in the files that exist now."""
        return len(self._files) * self._pages * PAGE

    def write(self, size: int) -> None:
        """Add files of `size` bytes together."""
        first, count = self._written, size // (self._pages * PAGE)
        self._written += count
        for index in range(first, first + count):
            digest = hashlib.md5(pattern(f"{self._seed}-{index}", self._pages))
            self._files[f"{self._seed}-{index}"] = digest.hexdigest()
        if count:
            self._guest.check(f"cd {self._directory} && pattern {self._seed} {self._pages} "
                              f"{first} {first + count - 1}", timeout=120)

    def thin_out(self) -> None:
        """Remove every second file."""
        gone = list(self._files)[1::2]
        for name in gone:
            del self._files[name]
        self._guest.check(f"cd {self._directory} && rm {' '.join(gone)}")

    def clear(self) -> None:
        """Remove all files. Their pages stay dirty on the host: touched, and free in the guest."""
        self._guest.check(f"cd {self._directory} && rm -f {' '.join(self._files)}")
        self._files.clear()

    def owns(self, page: bytes) -> bool:
        """Whether a page of the guest's memory is one of a file that exists now."""
        return page[:64].partition(b":")[0].decode(errors="replace") in self._files

    def checksums(self) -> str:
        """The list of what the files must be, as md5sum -c takes it."""
        return "".join(f"{digest}  {self._directory}/{name}\n"
                       for name, digest in self._files.items())

    def damaged(self) -> list[str]:
        """The files that do not have the bytes written to them, each with its first wrong page."""
        names = "".join(f"{name}\n" for name in self._files)
        # md5sum knows it too, but takes five times as long in an emulator.
        result = self._guest.run(f"cd {self._directory} && pattern check {self._pages} <<'END'\n"
                                 f"{names}END\n", timeout=120)
        bad = [f"{self._directory}/{name}" for name in result.text.splitlines()
               if name in self._files]
        if result.status != 0 and not bad:
            return [f"pattern check: {result.text}"]
        return [f"{path}: {self._first_wrong_page(path)}" for path in bad]

    def _first_wrong_page(self, path: str) -> str:
        have = self._guest.run(f"cat {path}").output
        want = pattern(path.rpartition("/")[2], self._pages)
        for page in range(self._pages):
            span = slice(page * PAGE, (page + 1) * PAGE)
            if have[span] != want[span]:
                return f"page {page} begins with {have[span][:48]!r}"
        return f"{len(have)} bytes, and right when read again"
