# SPDX-License-Identifier: MIT
"""The guest module as an administrator installs it: by DKMS, here with directories of its own.

No kernel is built for: a stand-in takes its place, and its "build" hands out the driver that comes
with user-mode-linux.  That what lies in the DKMS directory compiles is what `./run module` shows:
it builds from the same files in the same places.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULE = ROOT / "guest/linux"
KERNEL = "9.9.9-stand-in"  # no kernel of this machine

KERNEL_MAKEFILE = """\
modules: header; cp {driver} $(M)/virtio_balloon.ko
header: ; test -f $(M)/Kbuild && test -f $(M)/aerostat/virtio_balloon.h
clean: ; rm -f $(M)/*.ko
"""


def dkms_conf() -> dict[str, str]:
    text = (MODULE / "dkms.conf").read_text()
    return dict(re.findall(r'^([A-Z_]+(?:\[0\])?)="(.*)"$', text, re.MULTILINE))


def make(target: str, **variables: str) -> None:
    subprocess.run(["make", "-C", MODULE, target, *(f"{k}={v}" for k, v in variables.items())],
                   check=True, capture_output=True, text=True)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The module's directory below /usr/src, as `make dkms-install` lays it out for a package."""
    make("dkms-install", DESTDIR=str(tmp_path / "package"))
    conf = dkms_conf()
    return tmp_path / "package/usr/src" / f"{conf['PACKAGE_NAME']}-{conf['PACKAGE_VERSION']}"


def test_one_version() -> None:
    version = dkms_conf()["PACKAGE_VERSION"]
    assert re.search(rf"version: '{re.escape(version)}'", (ROOT / "meson.build").read_text())


@pytest.mark.parametrize("release, ours", [
    ("6.1.0-56-amd64", True), ("6.12.107+deb13-amd64", True), ("7.2.12+deb13-amd64", True),
    ("10.0.1", True), ("6.0.12", False), ("5.10.0-30-amd64", False), ("4.19.0", False),
])
def test_kernels_that_are_too_old_are_left_out(release: str, ours: bool) -> None:
    # DKMS matches it with bash's =~, an extended regular expression.
    pattern = dkms_conf()["BUILD_EXCLUSIVE_KERNEL"]
    found = subprocess.run(["bash", "-c", '[[ $1 =~ $2 ]]', "-", release, pattern], check=False)
    assert (found.returncode == 0) == ours


def test_all_that_is_needed_is_there(sources: Path) -> None:
    kbuild = (sources / "Kbuild").read_text()
    [objects] = re.findall(r"^virtio_balloon-y := (.*)$", kbuild, re.MULTILINE)
    for name in objects.split():
        assert (sources / name).with_suffix(".c").is_file()
    for path in sources.glob("*.[ch]"):
        text = path.read_text()
        for name in re.findall(r'^#include ["<](aerostat/[^">]*|(?<=")[^"]*)[">]', text, re.M):
            assert (sources / name).is_file(), f"{path.name} includes {name}"
    assert list(sources.rglob("*.mod.c")) == []


def test_it_is_taken_away_again(sources: Path, tmp_path: Path) -> None:
    make("dkms-remove", DESTDIR=str(tmp_path / "package"))
    assert not sources.exists()
    assert list((tmp_path / "package/usr/src").iterdir()) == []


def test_dkms_builds_and_installs(sources: Path, tmp_path: Path) -> None:
    [driver] = Path("/usr/lib/uml/modules").rglob("virtio_balloon.ko")
    kernel, tree, installed = (tmp_path / name for name in ("kernel", "dkms", "modules"))
    for directory in (kernel, tree, installed / KERNEL):
        directory.mkdir(parents=True)
    (kernel / "Makefile").write_text(KERNEL_MAKEFILE.format(driver=driver))
    (kernel / "include").mkdir()  # by which DKMS knows a kernel
    name, version = dkms_conf()["PACKAGE_NAME"], dkms_conf()["PACKAGE_VERSION"]

    def dkms(action: str, *options: str) -> str:
        # It wants to be root, though all that it does is in our directories.
        root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
        done = subprocess.run(
            [*root, "/usr/sbin/dkms", action, "--dkmstree", tree, "--sourcetree", sources.parent,
             "--installtree", installed, "-m", name, "-v", version, *options],
            capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    dkms("add")
    dkms("build", "-k", KERNEL, "--kernelsourcedir", str(kernel))
    dkms("install", "-k", KERNEL, "--no-depmod")
    assert f"{name}/{version}, {KERNEL}" in dkms("status")
    # Before the kernel's own one by name, which depmod prefers from "updates".
    assert [path.relative_to(installed / KERNEL)
            for path in installed.rglob("virtio_balloon.ko*")] == [
        Path("updates/dkms/virtio_balloon.ko")]
    dkms("remove", "--all", "--no-depmod")
    assert list(installed.rglob("virtio_balloon.ko*")) == []
