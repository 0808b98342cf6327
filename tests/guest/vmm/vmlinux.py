# SPDX-License-Identifier: MIT
"""A kernel unpacked: QEMU starts that too (by its PVH entry), and the guest need not do it itself,
which for an emulated processor is a third to a half of booting.

The header of a bzImage says where its payload is (Documentation/arch/x86/boot.rst in Linux); behind
the packed kernel stands its size when unpacked.
"""

from __future__ import annotations

import lzma
import pathlib
import shutil
import struct
import subprocess

_XZ, _ZSTD = b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"
_SETUP_SECTORS, _MAGIC, _PAYLOAD = 0x1f1, 0x202, 0x248  # offsets; the last of offset and length
_SECTOR = 512


class UnknownKernel(Exception):
    """A kernel in a form that this does not unpack, or what unpacks it is not installed."""


def unpack_kernel(vmlinuz: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Write the ELF file that is in `vmlinuz` to `target`."""
    image = vmlinuz.read_bytes()
    if len(image) < _SECTOR * 2 or image[_MAGIC:_MAGIC + 4] != b"HdrS":
        raise UnknownKernel(f"{vmlinuz} is no bzImage")
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = ((image[_SETUP_SECTORS] or 4) + 1) * _SECTOR + offset
    packed, size = image[start:start + length - 4], image[start + length - 4:start + length]
    try:
        kernel = _unpacked(packed)
    except (lzma.LZMAError, subprocess.CalledProcessError) as error:
        raise UnknownKernel(f"{vmlinuz}: {error}") from error
    if len(kernel) != int.from_bytes(size, "little") or kernel[:4] != b"\x7fELF":
        raise UnknownKernel(f"what is in {vmlinuz} is damaged, or no ELF file")
    target.write_bytes(kernel)
    return target


def _unpacked(packed: bytes) -> bytes:
    if packed.startswith(_XZ):
        return lzma.decompress(packed)
    if not packed.startswith(_ZSTD):
        raise UnknownKernel(f"packed in a way that begins with {packed[:6].hex()}")
    zstd = shutil.which("zstd")
    if zstd is None:
        raise UnknownKernel("'zstd' was not found: apt-get install zstd")
    return subprocess.run([zstd, "-dc"], input=packed, stdout=subprocess.PIPE, check=True,
                          timeout=60).stdout
