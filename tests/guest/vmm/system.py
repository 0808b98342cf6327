# SPDX-License-Identifier: MIT
"""A guest whose root is a copy of the host's own, started by systemd, with our programs installed.

Nothing that it writes is kept, and nothing of it reaches the host's files: its root is an overlay
in a mount namespace of its own, whose upper layer is in memory. It starts no more than systemd's
own basic services: what else the host has installed is not touched.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

from .guest import MIB, GuestError, MissingPackage
from .uml import NO_AVX, UmlGuest, large_fp_state

_AGENT = pathlib.Path(__file__).resolve().parent / "rootfs/bin/agent"
_SYSTEMD = pathlib.Path("/lib/systemd/systemd")

#: Run in the new mount namespace: DIRECTORY FILES [COMMAND...]. The files are what is installed.
_OVERLAY = """
set -e
directory=$1 files=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs "$directory"
mkdir "$directory/upper" "$directory/work" "$directory/tree"
cp -a "$files/." "$directory/upper"
mount -t overlay -o "lowerdir=/,upperdir=$directory/upper,workdir=$directory/work" overlay \
    "$directory/tree"
rm -f "$directory/tree/.dockerenv" # systemd would take itself to be in a container
exec "$@"
"""

#: Empty is what systemd is to leave alone.
_FILES = {
    # hostfs says that what a user makes is root's: who is not root needs another file system.
    "etc/fstab": "tmpfs /var/lib/aerostat tmpfs mode=755 0 0\n",
    "var/lib/aerostat/mounted-over": "",
    "etc/systemd/system/systemd-timesyncd.service": "",
    "etc/tmpfiles.d/tmp.conf": "",  # to empty /tmp takes long
    "etc/systemd/journald.conf.d/test.conf": "[Journal]\nStorage=volatile\n",
    "etc/systemd/system/test-agent.service":
        "[Unit]\nDefaultDependencies=no\nAfter=sysinit.target\n"
        "SuccessAction=poweroff-immediate\nFailureAction=poweroff-immediate\n"
        "[Service]\nExecStart=/usr/lib/test-agent /dev/tty1\nOOMScoreAdjust=-1000\n",
    "etc/systemd/system/default.target":
        "[Unit]\nRequires=sysinit.target test-agent.service\nAfter=sysinit.target\n",
}


def installed(build: pathlib.Path, directory: pathlib.Path) -> pathlib.Path:
    """Install a build below a new directory there: what to add to a system."""
    meson = shutil.which("meson")
    if meson is None:
        raise MissingPackage("'meson' was not found: apt-get install meson")
    files = directory / "files"
    done = subprocess.run([meson, "install", "-C", str(build), "--no-rebuild", "--destdir",
                           str(files)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise GuestError(f"meson install of {build}: {done.stdout}")
    return files


class SystemGuest(UmlGuest):
    """The overlay needs root, who may mount. It has no balloon, and 512 MiB."""

    def __init__(self, files: pathlib.Path, workdir: pathlib.Path) -> None:
        """`files` is installed over the host's, and gets what the guest needs besides."""
        super().__init__(pathlib.Path(os.devnull), workdir, 512 * MIB)
        self._files_to_install = files
        if not _SYSTEMD.exists():
            raise MissingPackage(f"{_SYSTEMD} is not there: apt-get install systemd")
        texts = dict(_FILES)
        if large_fp_state():
            texts["etc/systemd/system.conf.d/test.conf"] = (
                f"[Manager]\nManagerEnvironment={NO_AVX}\nDefaultEnvironment={NO_AVX}\n")
        for name, text in texts.items():
            path = files / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        agent = files / "usr/lib/test-agent"
        agent.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_AGENT, agent)

    def refused(self) -> str | None:
        """Why such a root cannot be had here, if it cannot."""
        scratch = self._workdir / "overlay"
        scratch.mkdir()
        done = subprocess.run([*self._in_overlay(scratch), "true"], capture_output=True, text=True,
                              timeout=60, check=False)
        scratch.rmdir()
        return None if done.returncode == 0 else done.stderr.strip()

    def _in_overlay(self, directory: pathlib.Path) -> list[str]:
        return ["unshare", "--mount", "--propagation=private", "sh", "-c", _OVERLAY, "sh",
                str(directory), str(self._files_to_install)]

    def _command(self, home: pathlib.Path, channel: int) -> list[str]:
        root = home / "system"
        root.mkdir()
        return [*self._in_overlay(root), *super()._command(home, channel),
                f"rootflags={root / 'tree'}"]

    def _arguments(self, channel: int) -> list[str]:
        # Kernel and systemd may say what they do: it is all there is when a guest does not start.
        ours = [word for word in super()._arguments(channel)
                if not word.startswith(("initrd=", "AGENT_CHANNEL="))]
        return [*ours, "root=/dev/root", "rootfstype=hostfs", "rw", f"init={_SYSTEMD}",
                "systemd.show_status=yes"]
