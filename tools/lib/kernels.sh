# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# The kernels that the guest module is built for, fetched from Debian into a cache outside of the
# tree, and QEMU to boot them.
#
# The cache is $AEROSTAT_CACHE, by default ~/.cache/aerostat:
#   uml-VERSION/     source of the kernel in `linux.uml`, configured like that one
#   6.1/ 6.12/ 7.2/  Debian's kernel, unpacked: vmlinuz, its modules, for 6.1 its headers
#   trixie/          a Debian 13 system: headers and compiler for 6.12 and 7.2, QEMU
#   kernels.json     what of it boots, for the tests: see write_index
# A directory is made as NAME.new and renamed when it is whole, or else removed; one run at a time
# writes there.
#
# shellcheck disable=SC2034  # module_kernels is used by ../../run

cache=$(readlink -m "${AEROSTAT_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/aerostat}")
trixie=$cache/trixie
trixie_mirror=http://deb.debian.org/debian
module_kernels=(uml 6.1 6.12 7.2)
begun=''

# What in_trixie runs in a mount namespace of its own.  Where / is no mount point, as in a plain
# chroot, the namespace cannot be cut off from the one that it came from, so that the mount is
# undone and not just forgotten.
# shellcheck disable=SC2016  # for the inner shell
in_trixie_script='
	mount --make-rprivate / 2>/dev/null || true
	mount -t proc proc "$0/proc" || exit
	trap "exit 130" INT
	trap "exit 143" TERM
	trap "umount -l \"\$0/proc\"" EXIT
	chroot "$0" "$@"'

# in_trixie COMMAND... - runs it inside the Debian 13 system; its /proc is gone with the command
in_trixie() {
	unshare --mount --propagation unchanged sh -c "$in_trixie_script" "$trixie" \
		/usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
		DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy="$http_proxy"} "$@" </dev/null
}

# begin NAME - an empty directory, $begun, for a part of the cache that is not there yet
begin() {
	begun=$cache/$1.new
	rm -rf --one-file-system "$begun"
	mkdir -p "$begun"
}

# finish NAME - the part is whole
finish() {
	rm -rf --one-file-system "${cache:?}/$1"
	mv -T "$cache/$1.new" "$cache/$1"
	begun=''
}

# drop_begun - what was begun and did not come to its end goes
drop_begun() {
	if [ -n "$begun" ]; then
		rm -rf --one-file-system "$begun"
		begun=''
	fi
}

# locked FILE COMMAND... - while no other run holds the lock
locked() {
	local file=$1 lock
	shift
	mkdir -p "$(dirname "$file")"
	exec {lock}>>"$file"
	if ! flock --nonblock "$lock"; then
		say "another run is at work there: waiting for it ($file)"
		flock "$lock"
	fi
	"$@"
	exec {lock}>&-
}

# download DIRECTORY PACKAGE[=VERSION]... - gets the .deb files, on this system or, with
# `download_with=in_trixie`, on that one
download() {
	local directory=$1 root=''
	shift
	if [ "${download_with:-}" = in_trixie ]; then
		root=$trixie
	fi
	if fetch_debs "$root" "$directory" "$@"; then
		return
	fi
	# Package lists that are stale name files that the archive no longer has.
	update_lists
	fetch_debs "$root" "$directory" "$@" || die "could not download: $*"
}

# fetch_debs ROOT DIRECTORY PACKAGE...
fetch_debs() {
	local root=$1 directory=$2 status=0
	shift 2
	if [ -z "$root" ]; then
		(cd "$directory" && quietly apt-get -q download "$@")
		return
	fi
	# Inside, the same files go through a directory that both sides see.
	rm -rf "$root/var/tmp/aerostat-debs"
	mkdir -p "$root/var/tmp/aerostat-debs"
	# shellcheck disable=SC2016  # for the inner shell
	quietly in_trixie sh -c 'cd /var/tmp/aerostat-debs && apt-get -q download "$@"' - "$@" || status=1
	if [ "$status" -eq 0 ]; then
		mv "$root"/var/tmp/aerostat-debs/*.deb "$directory" || status=1
	fi
	rm -rf "$root/var/tmp/aerostat-debs"
	return "$status"
}

update_lists() {
	say "updating the package lists"
	if [ "${download_with:-}" = in_trixie ]; then
		quietly in_trixie apt-get -q update || die "apt-get update failed in $trixie"
	else
		quietly apt_get update || die "apt-get update failed"
	fi
}

# unpack DIRECTORY - unpacks the .deb files in it, and drops them
unpack() {
	local file
	for file in "$1"/*.deb; do
		dpkg-deb -x "$file" "$1" || die "cannot unpack $file"
		rm "$file"
	done
}

# unpack_kernel DIRECTORY RELEASE - the same, and makes what depmod would on a real system
unpack_kernel() {
	local directory=$1 release=$2 place
	unpack "$directory"
	if [ ! -e "$directory/lib" ]; then
		ln -s usr/lib "$directory/lib"
	fi
	for place in boot/vmlinuz-"$release" lib/modules/"$release"/vmlinuz; do
		if [ -f "$directory/$place" ]; then
			ln -s "$place" "$directory/vmlinuz"
			break
		fi
	done
	[ -e "$directory/vmlinuz" ] || die "Debian's packages hold no vmlinuz of $release"
	PATH=$PATH:/usr/sbin:/sbin depmod -b "$directory" "$release" || die "depmod failed"
	echo "$release" >"$directory/release"
}

# uml_version - of the kernel in Debian's user-mode-linux
uml_version() {
	local version
	version=$(linux.uml --version 2>/dev/null </dev/null) || die "linux.uml --version failed"
	[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || die "cannot read linux.uml's version: '$version'"
	echo "$version"
}

# debian_revision PACKAGE VERSION - the newest Debian version of that upstream version
debian_revision() {
	apt-cache madison "$1" 2>/dev/null |
		awk -F'|' -v wanted="$2-" '{ gsub(/ /, "", $2) } index($2, wanted) == 1 { print $2; exit }'
}

# What of a kernel's source makes external modules, and its checkpatch: a tenth of the whole.
uml_parts=(Makefile Kbuild Kconfig include scripts kernel arch/um arch/x86 security/selinux/include
	'*/Kconfig*')

fetch_uml() {
	local version package revision directory
	version=$(uml_version)
	if [ -d "$cache/uml-$version" ]; then
		return
	fi
	package=linux-source-${version%.*}
	revision=$(debian_revision "$package" "$version")
	if [ -z "$revision" ]; then
		update_lists
		revision=$(debian_revision "$package" "$version")
	fi
	[ -n "$revision" ] || die "apt knows no $package of version $version, which linux.uml is"
	say "uml: fetching $package $revision"
	begin "uml-$version"
	directory=$begun
	mkdir "$directory/deb"
	download "$directory/deb" "$package=$revision"
	unpack "$directory/deb"
	say "uml: unpacking and preparing it"
	tar -xJf "$directory/deb/usr/src/$package.tar.xz" -C "$directory" --strip-components=1 \
		--anchored --wildcards "${uml_parts[@]/#/$package/}" || die "cannot unpack $package"
	rm -rf "$directory/deb"
	linux.uml --showconfig >"$directory/.config" </dev/null || die "linux.uml --showconfig failed"
	quietly make -C "$directory" ARCH=um olddefconfig modules_prepare ||
		die "could not prepare the source of $version"
	finish "uml-$version"
}

# named_release PACKAGE SERIES - the kernel release that a metapackage stands for, of one series
named_release() {
	apt-cache show --no-all-versions "$1" 2>/dev/null |
		sed -n "s/^Depends:.*linux-headers-\\($2\\.[^ ]*-amd64\\).*/\\1/p"
}

fetch_6.1() {
	local release directory
	if [ -d "$cache/6.1" ]; then
		return
	fi
	release=$(named_release linux-headers-amd64 '6\.1')
	if [ -z "$release" ]; then
		update_lists
		release=$(named_release linux-headers-amd64 '6\.1')
	fi
	[ -n "$release" ] || die "6.1: this system's apt has no kernel 6.1: it is Debian 12's"
	say "6.1: fetching Debian's kernel $release"
	begin 6.1
	directory=$begun
	download "$directory" "linux-image-$release" "linux-headers-$release" \
		"linux-headers-${release%-amd64}-common" linux-kbuild-6.1
	say "6.1: unpacking it"
	unpack_kernel "$directory" "$release"
	# Its Makefile names /usr/src.
	# shellcheck disable=SC2016  # for make
	sed -i 's|/usr/src/|$(dir $(lastword $(MAKEFILE_LIST)))../|' \
		"$directory/usr/src/linux-headers-$release/Makefile"
	finish 6.1
}

need_root() {
	[ "$(id -u)" -eq 0 ] || die "$1: fetching it and building for it happen in a Debian 13 system" \
		"below $cache, and that needs root (uml and 6.1 do not)"
}

# make_trixie - the Debian 13 system with the backports, told to use the network as this one does
make_trixie() {
	local directory
	if [ -d "$trixie" ]; then
		cp -L /etc/resolv.conf /etc/hosts "$trixie/etc/"
		return
	fi
	say "making a Debian 13 system in $trixie"
	begin trixie
	directory=$begun
	quietly debootstrap --variant=minbase trixie "$directory" "$trixie_mirror" ||
		die "debootstrap failed"
	cp -a /etc/apt/apt.conf.d/. "$directory/etc/apt/apt.conf.d/"
	cp -L /etc/resolv.conf /etc/hosts "$directory/etc/"
	echo "deb $trixie_mirror trixie-backports main" >>"$directory/etc/apt/sources.list"
	quietly chroot "$directory" sh -c 'apt-get clean && apt-get -q update' </dev/null ||
		die "apt-get update failed in trixie"
	finish trixie
}

# trixie_install OPTION|PACKAGE... - there, with what was interrupted before brought to its end
trixie_install() {
	local install=(in_trixie apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 install
		"$@")
	quietly in_trixie dpkg --configure -a || die "dpkg --configure failed in $trixie"
	if ! quietly "${install[@]}"; then
		download_with=in_trixie update_lists
		quietly "${install[@]}" || die "could not install in $trixie: $*"
	fi
	quietly in_trixie apt-get clean
}

trixie_has() {
	local package
	for package in "$@"; do
		if [ "$(dpkg-query --admindir="$trixie/var/lib/dpkg" -W -f='${db:Status-Status}' \
			"$package" 2>/dev/null)" != installed ]; then
			return 1
		fi
	done
}

# newest_release SERIES - the newest kernel release of a series that Debian 13 or its backports have
newest_release() {
	in_trixie apt-cache pkgnames "linux-headers-$1." |
		sed -n 's/^linux-headers-\([0-9.]*+deb[0-9]*-amd64\)$/\1/p' | sort -V | tail -n 1
}

# image_packages RELEASE - the packages that make up the kernel: one in 6.12, four since
image_packages() {
	echo "linux-image-$1"
	in_trixie apt-cache depends --no-recommends --no-suggests "linux-image-$1" |
		awk -v end="-$1" '$1 == "Depends:" && $2 ~ /^linux-/ &&
			substr($2, length($2) - length(end) + 1) == end { print $2 }' | sort -u
}

# fetch_from_trixie SERIES
fetch_from_trixie() {
	local series=$1 release directory packages
	need_root "$series"
	make_trixie
	if [ -d "$cache/$series" ]; then
		release=$(cat "$cache/$series/release")
	else
		release=$(newest_release "$series")
		[ -n "$release" ] || die "$series: neither Debian 13 nor its backports have such a kernel"
		say "$series: fetching Debian's kernel $release"
		begin "$series"
		directory=$begun
		mapfile -t packages < <(image_packages "$release")
		download_with=in_trixie download "$directory" "${packages[@]}"
		say "$series: unpacking it"
		unpack_kernel "$directory" "$release"
		finish "$series"
	fi
	if ! trixie_has "linux-headers-$release" make; then
		say "$series: installing its headers and compiler in $trixie"
		trixie_install "linux-headers-$release" make
	fi
}

fetch_6.12() {
	fetch_from_trixie 6.12
	fetch_qemu
}

fetch_7.2() {
	fetch_from_trixie 7.2
	fetch_qemu
}

# fetch_qemu - QEMU 11 from the backports: the first with a generic vhost-user device
fetch_qemu() {
	need_root qemu
	make_trixie
	if ! trixie_has qemu-system-x86; then
		say "installing QEMU in $trixie"
		trixie_install -t trixie-backports qemu-system-x86
	fi
}

# json TEXT - as a JSON string
json() {
	local text=${1//\\/\\\\}
	printf '"%s"' "${text//\"/\\\"}"
}

# write_index - kernels.json: for each kernel in the cache its release, its vmlinuz and the
# directory with its modules; for QEMU the command that starts it without chroot
write_index() {
	local name release command word separator='' entries=''
	for name in 6.1 6.12 7.2; do
		if [ -d "$cache/$name" ]; then
			release=$(cat "$cache/$name/release")
			entries+="$separator  $(json "$name"): {\"release\": $(json "$release"),"
			entries+=$'\n'"    \"vmlinuz\": $(json "$cache/$name/vmlinuz"),"
			entries+=$'\n'"    \"modules\": $(json "$cache/$name/lib/modules/$release")}"
			separator=$',\n'
		fi
	done
	if [ -d "$trixie" ] && trixie_has qemu-system-x86; then
		command=(env "QEMU_MODULE_DIR=$trixie/usr/lib/x86_64-linux-gnu/qemu"
			"$trixie/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
			--library-path "$trixie/usr/lib/x86_64-linux-gnu" "$trixie/usr/bin/qemu-system-x86_64"
			-L "$trixie/usr/share/qemu" -L "$trixie/usr/share/seabios" -L "$trixie/usr/lib/ipxe/qemu")
		entries+="$separator  \"qemu\": {\"command\": ["
		separator=''
		for word in "${command[@]}"; do
			entries+="$separator$(json "$word")"
			separator=$',\n    '
		done
		entries+=']}'
	fi
	printf '{\n%s\n}\n' "$entries" >"$cache/kernels.json.new"
	mv "$cache/kernels.json.new" "$cache/kernels.json"
}

# fetch_kernels NAME... - whatever of them the cache does not have
fetch_kernels() {
	local name
	for name in "$@"; do
		"fetch_$name"
	done
	write_index
}
