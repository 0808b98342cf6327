# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Builds of the guest module, one for each kernel of kernels.sh: build/module/KERNEL/.  The sources
# are copied first, so that what the kernel's build leaves behind is not left in the tree.
#
# shellcheck disable=SC2154  # what is not set here is set by ../../run and its other parts

module_sources=guest/linux
module_header=include/aerostat/virtio_balloon.h

# Warnings of the kernel's first level, and none is let pass.
module_flags=(W=1 KCFLAGS=-Werror)

# kernel_make NAME DIRECTORY ARGUMENT... - the kernel's make for the module in that directory, which
# for a kernel of the Debian 13 system is a path in there
kernel_make() {
	local name=$1 directory=$2 jobs release
	shift 2
	jobs=-j$(nproc)
	case $name in
	uml)
		make "$jobs" -C "$cache/uml-$(uml_version)" ARCH=um M="$directory" "$@"
		;;
	6.1)
		make "$jobs" -C "$cache/6.1/usr/src/linux-headers-$(cat "$cache/6.1/release")" \
			M="$directory" "$@"
		;;
	*)
		release=$(cat "$cache/$name/release")
		# The check of comments in the kernel's own form wants a whole Perl or Python in there;
		# 6.1 and uml have made it.
		in_trixie make "$jobs" -C "/lib/modules/$release/build" M="$directory" cmd_checkdoc= "$@"
		;;
	esac
}

# module_files - the sources; a build inside the tree leaves a C file there that is none
module_files() {
	find "$module_sources" -maxdepth 1 \( -name Kbuild -o -name dkms.conf -o -name '*.[ch]' \) \
		! -name '*.mod.c' -print | sort
}

# copy_module DIRECTORY - the sources, with the header of the wire format beside them
copy_module() {
	local files
	mapfile -t files < <(module_files)
	rm -rf "$1"
	mkdir -p "$1/aerostat"
	cp "${files[@]}" "$1"
	cp "$module_header" "$1/aerostat"
}

# module_inputs NAME - one line that changes when a build has to be done again
module_inputs() {
	local kernel files
	mapfile -t files < <(module_files)
	if [ "$1" = uml ]; then
		kernel=$(uml_version)
	else
		kernel=$(cat "$cache/$1/release")
	fi
	echo "$cache $kernel $(sha256sum "${files[@]}" "$module_header" tools/lib/module.sh | sha256sum)"
}

# compile_module NAME DIRECTORY ARGUMENT... - copies the sources there and makes the module
compile_module() {
	local name=$1 directory=$2
	shift 2
	copy_module "$directory" || return
	case $name in
	uml | 6.1) kernel_make "$name" "$directory" "$@" modules ;;
	*) compile_in_trixie "$name" "$directory" "$@" ;;
	esac
}

# compile_in_trixie NAME DIRECTORY ARGUMENT... - the sources go in, the module comes out
compile_in_trixie() (
	name=$1 directory=$2
	shift 2
	inside=$(mktemp -d "$trixie/var/tmp/aerostat-module.XXXXXX") || exit
	trap 'rm -rf "$inside"' EXIT
	cp -r "$directory/." "$inside" || exit
	kernel_make "$name" "${inside#"$trixie"}" "$@" modules || exit
	cp "$inside/virtio_balloon.ko" "$directory"
)

# build_module NAME - build/module/NAME/virtio_balloon.ko, if it is not there or out of date
build_module() {
	local name=$1 place=$root/build/module/$1 inputs
	inputs=$(module_inputs "$name")
	if [ -f "$place/virtio_balloon.ko" ] && [ "$(cat "$place/inputs" 2>/dev/null)" = "$inputs" ]; then
		return
	fi
	say "$name: building the module in build/module/$name"
	rm -f "$place/inputs"
	if ! quietly compile_module "$name" "$place/build" "${module_flags[@]}"; then
		# Nobody shall test what is not in the sources.
		rm -f "$place/virtio_balloon.ko"
		die "$name: the module's build failed"
	fi
	mv "$place/build/virtio_balloon.ko" "$place/virtio_balloon.ko"
	echo "$inputs" >"$place/inputs"
}

# known_kernel NAME
known_kernel() {
	local name
	for name in "${module_kernels[@]}"; do
		if [ "$name" = "$1" ]; then
			return 0
		fi
	done
	return 1
}

# module_packages NAME... - what fetching these kernels and building for them needs
module_packages() {
	local name
	for name in "$@"; do
		case $name in
		uml) printf '%s\n' "${packages_module_uml[@]}" ;;
		6.1) printf '%s\n' "${packages_module_debian[@]}" ;;
		*) printf '%s\n' "${packages_module_trixie[@]}" ;;
		esac
	done | sort -u
}

# build_modules NAME... - fetches these kernels and builds for them; installs what that needs
build_modules() {
	local name packages
	for name in "$@"; do
		case $name in
		uml | 6.1) ;;
		*) need_root "$name" ;;
		esac
	done
	mapfile -t packages < <(module_packages "$@")
	install_packages "${packages[@]}"
	locked "$cache/lock" fetch_kernels "$@"
	for name in "$@"; do
		locked "$root/build/module/$name/lock" build_module "$name"
	done
}
