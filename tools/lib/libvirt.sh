# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# libvirt's daemon, for the tests of aerostatd with it.  Unpacked and not installed: nothing of the
# host's own libvirt is touched.
#   $AEROSTAT_CACHE/libvirt   usr/sbin/libvirtd
#
# shellcheck disable=SC2154  # cache: kernels.sh

# fetch_libvirtd_missing - if the cache does not have it
fetch_libvirtd_missing() {
	local directory package
	if [ -d "$cache/libvirt" ]; then
		return
	fi
	say "fetching libvirt's daemon"
	begin libvirt
	directory=$begun
	(cd "$directory" && quietly apt-get -q -o APT::Sandbox::User=root \
		-o Acquire::http::Timeout=20 -o Acquire::Retries=1 download libvirt-daemon) || return
	for package in "$directory"/*.deb; do
		dpkg-deb -x "$package" "$directory" || return
	done
	rm -f "$directory"/*.deb
	finish libvirt
}

# fetch_libvirtd - says so where it is not to be had: the tests with it are skipped then
fetch_libvirtd() {
	if [ -x /usr/sbin/libvirtd ]; then
		return
	fi
	if command -v apt-get >/dev/null; then
		locked "$cache/libvirt.lock" fetch_libvirtd_missing || drop_begun
	fi
	if [ ! -d "$cache/libvirt" ]; then
		say "libvirtd could not be fetched: tests with it will be skipped"
	fi
}
