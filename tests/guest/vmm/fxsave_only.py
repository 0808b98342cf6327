# SPDX-License-Identifier: MIT
"""fxsave_only.py PROGRAM ARGUMENT...: run a program for which NT_X86_XSTATE does not exist.

user-mode-linux 6.1 keeps a guest process's vector registers in 2696 bytes, enough up to AVX-512.
On processors with AMX the state has 11008, the host kernel takes nothing shorter, and the guest
panics before init ("ptrace set fp regs failed, errno = 14"). When the kernel finds at start-up that
the host has no such register set, it falls back to the 512 bytes of FXSAVE. So the host has none:
a seccomp filter makes ptrace(PTRACE_GETREGSET, NT_X86_XSTATE) fail. The guest's programs must then
stay away from AVX, whose registers would get lost; uml.py tells their C library so.
"""

import ctypes
import os
import struct
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ARCH_X86_64, _SYS_PTRACE = 0xC000003E, 101
_PTRACE_GETREGSET, _NT_X86_XSTATE = 0x4204, 0x202
_ALLOW, _ERRNO_ENODEV = 0x7FFF0000, 0x00050000 | 19
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
# Where struct seccomp_data has the system call, the architecture and (low half) two arguments.
_NR, _ARCH, _REQUEST, _ADDR = 0, 4, 16, 32


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _filter() -> bytes:
    """Each test falls through when it holds; else it jumps to the last instruction."""
    tests = [(_ARCH, _ARCH_X86_64), (_NR, _SYS_PTRACE), (_REQUEST, _PTRACE_GETREGSET),
             (_ADDR, _NT_X86_XSTATE)]
    code = b""
    for index, (offset, value) in enumerate(tests):
        to_the_end = 2 * (len(tests) - index) - 1
        code += struct.pack("=HBBI", _LOAD, 0, 0, offset)
        code += struct.pack("=HBBI", _JUMP_IF_EQUAL, 0, to_the_end, value)
    code += struct.pack("=HBBI", _RETURN, 0, 0, _ERRNO_ENODEV)
    return code + struct.pack("=HBBI", _RETURN, 0, 0, _ALLOW)


def main() -> None:
    code = _filter()
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if (libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or
            libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0):
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
