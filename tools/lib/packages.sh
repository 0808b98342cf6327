# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Debian packages by verb, and installing those that are missing.  Nothing is asked of apt, and
# no privilege is needed, when all are there.
#
# shellcheck disable=SC2034  # the lists are used by ../../run

packages_build=(gcc libc6-dev meson ninja-build pkgconf python3 libuv1-dev libjson-c-dev
	libseccomp-dev libcap-ng-dev libinih-dev libmicrohttpd-dev libsystemd-dev libncurses-dev
	libedit-dev scdoc)
packages_guest=(user-mode-linux busybox-static cpio util-linux)
packages_module_uml=(user-mode-linux gcc libc6-dev make flex bison bc xz-utils perl)
packages_module_debian=(gcc-12 make kmod libelf1)
packages_module_trixie=(debootstrap kmod util-linux)
packages_libvirt=(libvirt-clients libvirt-daemon-driver-qemu)
packages_sim=("${packages_build[@]}" python3-matplotlib)
packages_test=("${packages_build[@]}" "${packages_guest[@]}" "${packages_module_uml[@]}"
	libcmocka-dev libvirt-dev python3-pytest python3-matplotlib procps strace dkms zstd zsh
	systemd)
packages_demo=("${packages_build[@]}" "${packages_guest[@]}" "${packages_module_uml[@]}")
packages_bench=("${packages_build[@]}" "${packages_guest[@]}" "${packages_module_uml[@]}" valgrind
	strace)
packages_clang=(clang libclang-rt-14-dev llvm-14)
packages_fuzz=("${packages_build[@]}" "${packages_clang[@]}")
packages_lint=("${packages_build[@]}" "${packages_clang[@]}" "${packages_module_uml[@]}" sparse
	libcmocka-dev binutils clang-format clang-tidy cppcheck shellcheck pyflakes3 python3-pyflakes
	groff-base)

# missing_packages PACKAGE... - prints those that are not installed, one a line, and each once
missing_packages() {
	local package state
	for package in "$@"; do
		state=$(dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null) || true
		# A package for several architectures has several lines.
		case $'\n'"$state"$'\n' in
		*$'\n'installed$'\n'*) ;;
		*) echo "$package" ;;
		esac
	done | awk '!seen[$0]++'
}

# as_root COMMAND... - runs it as root, with sudo where needed; never waits for a password that
# nobody is there to type
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif [ -t 0 ]; then
		sudo "$@"
	else
		sudo -n "$@"
	fi
}

apt_get() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 \
		-o DPkg::Lock::Timeout=300 "$@" </dev/null
}

# try_install PACKAGE...
try_install() {
	apt_get install --no-install-recommends --yes "$@"
}

# end_interrupted - brings an installation that was interrupted to its end: until then apt refuses
# to install anything
end_interrupted() {
	if compgen -G '/var/lib/dpkg/updates/[0-9]*' >/dev/null || [ -n "$(dpkg --audit 2>&1)" ]; then
		say "ending an installation that was interrupted: dpkg --configure -a"
		as_root env DEBIAN_FRONTEND=noninteractive dpkg --configure -a </dev/null || true
	fi
}

# install_packages PACKAGE... - makes sure that these are installed
install_packages() {
	local missing list by_hand
	if ! command -v dpkg-query >/dev/null; then
		say "no Debian system: going on without looking for what Debian calls: $*"
		return
	fi
	list=$(missing_packages "$@")
	if [ -z "$list" ]; then
		return
	fi
	mapfile -t missing <<<"$list"
	by_hand="apt-get install --no-install-recommends ${missing[*]}"
	if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
		die "Debian packages are missing, and installing them needs root or sudo: $by_hand"
	fi
	say "installing Debian packages: ${missing[*]}"
	as_root true || die "sudo did not let us; as root: $by_hand"
	# Package lists that are absent do not know the names; stale ones know versions that are gone.
	if apt_get install --no-install-recommends --simulate "${missing[@]}" >/dev/null 2>&1 &&
		try_install "${missing[@]}"; then
		return
	fi
	end_interrupted
	say "updating the package lists"
	apt_get update || die "apt-get update failed"
	try_install "${missing[@]}" || die "could not install: ${missing[*]}"
}
