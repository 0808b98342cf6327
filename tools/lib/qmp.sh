# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Real QMP clients for the tests of our monitor: QEMU's own Python library and its qmp-shell, which
# Debian has in the backports of Debian 13.  They need nothing but Python, so they are unpacked and
# not installed, on any Debian and without being root:
#   $AEROSTAT_CACHE/qmp   usr/bin/qmp-shell, usr/lib/python3/dist-packages/qemu/qmp
#
# shellcheck disable=SC2154  # cache, trixie_mirror: kernels.sh

qmp_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# qmp_apt DIRECTORY ARGUMENT... - apt-get with lists of its own; the system's are not touched
qmp_apt() {
	local directory=$1
	shift
	(cd "$directory" && quietly apt-get -q -o Dir::Etc::sourcelist="$directory/sources.list" \
		-o Dir::Etc::sourceparts=- -o Dir::Etc::preferencesparts="$directory/preferences" \
		-o Dir::State="$directory/state" -o Dir::State::status="$directory/status" \
		-o Dir::Cache="$directory/cache" -o APT::Sandbox::User=root \
		-o Acquire::http::Timeout=20 -o Acquire::Retries=1 "$@")
}

# fetch_qmp_package DIRECTORY
fetch_qmp_package() {
	local apt=$1/apt
	mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/preferences" || return
	: >"$apt/status"
	echo "deb [signed-by=$qmp_keyring] $trixie_mirror trixie-backports main" >"$apt/sources.list"
	qmp_apt "$apt" update || return
	qmp_apt "$apt" download python3-qemu-qmp || return
	dpkg-deb -x "$apt"/python3-qemu-qmp_*.deb "$1" || return
	rm -rf "$apt"
}

# fetch_qmp_missing - if the cache does not have them
fetch_qmp_missing() {
	local directory
	if [ -d "$cache/qmp" ]; then
		return
	fi
	say "fetching QEMU's QMP clients"
	begin qmp
	directory=$begun
	fetch_qmp_package "$directory" && finish qmp
}

# fetch_qmp_clients - says so where they are not to be had: the tests with them are skipped then
fetch_qmp_clients() {
	if command -v apt-get >/dev/null && [ -f "$qmp_keyring" ]; then
		locked "$cache/qmp.lock" fetch_qmp_missing || drop_begun
	fi
	if [ ! -d "$cache/qmp" ]; then
		say "QEMU's QMP clients could not be fetched: tests with them will be skipped"
	fi
}
