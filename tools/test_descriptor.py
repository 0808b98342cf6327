# SPDX-License-Identifier: MIT
"""The descriptor by which management tools find the device, and the conventions that go with it.

Its form is that of QEMU's docs/interop/vhost-user.json: one VhostUserBackend in each file.
"""

import json
import os
import re
import subprocess
from pathlib import Path

# VHostUserBackendType there, as of QEMU 11.1.
TYPES = {"9p", "balloon", "block", "caif", "console", "crypto", "gpu", "input", "net", "rng",
         "rpmsg", "rproc-serial", "scsi", "vsock", "fs"}
MANDATORY = {"description": str, "type": str, "binary": str}
OPTIONAL = {"tags": list}
NAME = "50-aerostat-balloon.json"


def device() -> Path:
    """The program under test."""
    binary = os.environ.get("AEROSTAT_BALLOON")
    assert binary, "set AEROSTAT_BALLOON to the vhost-user-balloon binary"
    return Path(binary)


def build() -> Path:
    return next(path for path in device().resolve().parents if (path / "build.ninja").exists())


def installed() -> dict[str, str]:
    """Where `meson install` puts what, by the name of what was built."""
    text = subprocess.run(["meson", "introspect", "--installed", build()], check=True, text=True,
                          capture_output=True, timeout=60).stdout
    return {Path(source).name: target for source, target in json.loads(text).items()}


def test_it_has_the_documented_form() -> None:
    descriptor = json.loads((device().parent / NAME).read_text())
    assert MANDATORY.keys() <= descriptor.keys() <= MANDATORY.keys() | OPTIONAL.keys()
    for key, kind in (MANDATORY | OPTIONAL).items():
        assert key not in descriptor or isinstance(descriptor[key], kind), key
    assert descriptor["type"] in TYPES
    assert descriptor["description"].strip()


def test_it_is_found_and_names_the_program() -> None:
    """In a directory and under a name that are searched, with the path that is really installed."""
    places = installed()
    assert places[NAME].endswith(f"/share/qemu/vhost-user/{NAME}")
    assert re.fullmatch(r"\d\d-[a-z0-9-]+\.json", NAME)
    binary = json.loads((device().parent / NAME).read_text())["binary"]
    assert os.path.isabs(binary) and binary == places["vhost-user-balloon"]


def test_the_program_says_the_same_type() -> None:
    """--print-capabilities is a JSON object with the same type, and exits with 0."""
    done = subprocess.run([device(), "--print-capabilities"], check=True, text=True, timeout=20,
                          capture_output=True)
    descriptor = json.loads((device().parent / NAME).read_text())
    assert json.loads(done.stdout)["type"] == descriptor["type"] == "balloon"
