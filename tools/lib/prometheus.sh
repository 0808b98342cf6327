# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Prometheus, its promtool and its Python client, for the tests of the metrics and of the alert
# rules.  Unpacked and not installed: Debian's package would start a service.
#   $AEROSTAT_CACHE/prometheus   usr/bin/prometheus, usr/bin/promtool,
#                                usr/lib/python3/dist-packages/prometheus_client
#
# shellcheck disable=SC2154  # cache: kernels.sh

prometheus_packages=(prometheus python3-prometheus-client)

# fetch_prometheus_missing - if the cache does not have them
fetch_prometheus_missing() {
	local directory package
	if [ -d "$cache/prometheus" ]; then
		return
	fi
	say "fetching Prometheus"
	begin prometheus
	directory=$begun
	(cd "$directory" && quietly apt-get -q -o APT::Sandbox::User=root \
		-o Acquire::http::Timeout=20 -o Acquire::Retries=1 \
		download "${prometheus_packages[@]}") || return
	for package in "$directory"/*.deb; do
		dpkg-deb -x "$package" "$directory" || return
	done
	rm -f "$directory"/*.deb
	finish prometheus
}

# fetch_prometheus - says so where it is not to be had: the tests with it are skipped then
fetch_prometheus() {
	if command -v apt-get >/dev/null; then
		locked "$cache/prometheus.lock" fetch_prometheus_missing || drop_begun
	fi
	if [ ! -d "$cache/prometheus" ]; then
		say "Prometheus could not be fetched: tests with it will be skipped"
	fi
}
