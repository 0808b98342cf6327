#!/bin/bash
# SPDX-License-Identifier: MIT
#
# For test_module.py: under their names, the programs that fetch kernels and build modules.  They
# write down in $FAKES/calls how they were called.  A file $FAKES/fail-WHAT makes WHAT fail, as many
# times as it has lines.

name=${0##*/}
trixie=$AEROSTAT_CACHE/trixie
echo "$name $*" >>"$FAKES/calls"
fails() {
	if [ -s "$FAKES/fail-$1" ]; then
		sed -i 1d "$FAKES/fail-$1"
		echo "$1 went wrong"
		exit 2
	fi
}
download() {
	local package
	for package; do
		touch "${package%%=*}_1_all.deb"
	done
}
unpack() {
	local package=${1##*/} release
	package=${package%%_*} release=${package#linux-*-}
	case $package in
	linux-source-*)
		mkdir -p "$2/usr/src" "$FAKES/$package"/{include,scripts,kernel,arch/{um,x86},sound} \
			"$FAKES/$package/security/selinux/include"
		touch "$FAKES/$package"/{Makefile,Kbuild,Kconfig,scripts/checkpatch.pl,sound/{big.c,Kconfig}}
		tar -cJf "$2/usr/src/$package.tar.xz" -C "$FAKES" "$package"
		;;
	linux-image-6.1*)
		mkdir -p "$2/boot" "$2/lib/modules/$release"
		touch "$2/boot/vmlinuz-$release"
		;;
	linux-binary-*)
		mkdir -p "$2/usr/lib/modules/$release"
		touch "$2/usr/lib/modules/$release/vmlinuz"
		;;
	linux-headers-*-amd64)
		mkdir -p "$2/usr/src/$package"
		echo "include /usr/src/linux-headers-${release%-amd64}-common/Makefile" \
			>"$2/usr/src/$package/Makefile"
		;;
	esac
}
build() {
	local word place
	for word; do
		case $word in
		modules_prepare) fails prepare && sleep "${FAKE_DELAY:-0}" ;;
		M=*) place=$1${word#M=} ;;
		modules) fails build && sha256sum "$place/main.c" >"$place/virtio_balloon.ko" ;;
		esac
	done
}
case "$name $1" in
'linux.uml --version') echo 6.1.176 ;;
'linux.uml --showconfig') echo CONFIG_UML=y ;;
'dpkg-query --admindir='*) if [ -e "$trixie/has-${!#}" ]; then echo -n installed; fi ;;
dpkg-query*) echo installed ;;
'apt-cache madison') printf '%s | %s | somewhere\n' "$2" 6.1.192-2 "$2" 6.1.176-1 "$2" 6.1.17-1 ;;
'apt-cache show') echo 'Depends: linux-headers-6.1.0-56-amd64 (= 6.1.192-2)' ;;
'apt-get -q')
	shift
	case $* in
	download*) fails download && shift && download "$@" ;;
	esac
	;;
dpkg-deb*) unpack "$2" "$3" ;;
make*) build '' "$@" ;;
debootstrap*) fails debootstrap && mkdir -p "$3/etc/apt/apt.conf.d" "$3/var/tmp" ;;
id*) cat "$FAKES/id" ;;
sudo*) shift && exec "$@" ;;
unshare*)
	while [ "$1" != DEBIAN_FRONTEND=noninteractive ]; do shift; done
	shift
	echo "trixie $*" >>"$FAKES/calls"
	case $* in
	'apt-cache pkgnames linux-headers-7.2.') printf 'linux-headers-7.2.%s\n' 9+deb13-amd64 \
		12+deb13-amd64 12+deb13-common 12+deb13-cloud-amd64 ;;
	'apt-cache depends'*) printf '  Depends: linux-%s-7.2.12+deb13-amd64\n' base binary modules ;;
	sh*) cd "$trixie/var/tmp/aerostat-debs" && shift 4 && download "$@" ;;
	*' install '*)
		fails install
		while [ "$1" != install ]; do shift; done
		for package; do touch "$trixie/has-$package"; done
		;;
	make*) shift && build "$trixie" "$@" ;;
	esac
	;;
esac
exit 0
