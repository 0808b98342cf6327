# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# The steps of `./run lint`.  Each prints its name and how it ended; the output of a step that
# failed follows it.
#
# shellcheck disable=SC2154  # what is not set here is set by ../../run and its other parts

lint_failed=()

# step NAME COMMAND... - runs one step, keeps what it says for when it fails
step() {
	local name=$1 status=0 started=$SECONDS log=build/lint/step.log
	shift
	printf '%-28s' "$name"
	"$@" >"$log" 2>&1 </dev/null || status=$?
	if [ "$status" -eq 0 ]; then
		printf 'ok    %4d s\n' "$((SECONDS - started))"
	else
		printf 'FAIL  %4d s\n' "$((SECONDS - started))"
		sed 's/^/    /' "$log"
		lint_failed+=("$name")
	fi
}

# source_files PATTERN... - files of the tree that match, tracked or new, one a line
source_files() {
	if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
		git ls-files --cached --others --exclude-standard -- "$@" | sort -u
	else
		local pattern alternatives=()
		for pattern in "$@"; do
			alternatives+=(-o -path "./$pattern")
		done
		find . \( -name .git -o -path ./build -o -path './build-*' -o -name __pycache__ \) -prune \
			-o -type f \( "${alternatives[@]:1}" \) -print | sed 's|^\./||' | sort
	fi | while IFS= read -r file; do
		# A tracked file may be gone from the work tree.
		if [ -f "$file" ]; then
			echo "$file"
		fi
	done
}

# first_line_has PATTERN FILE... - those files whose "#!" line matches
first_line_has() {
	local pattern=$1 file line
	shift
	for file in "$@"; do
		IFS= read -r line <"$file" || true
		if [[ $line == '#!'*$pattern* ]]; then
			echo "$file"
		fi
	done 2>/dev/null
}

# compile_all DIRECTORY - every target of a meson build
compile_all() {
	ninja -C "$1" -j "$(nproc)" -k 0 --quiet
}

# Names the files alone: what is wrong with them `clang-format -i` knows best.
lint_format() {
	local file bad=()
	for file in "$@"; do
		clang-format --dry-run -Werror "$file" >/dev/null 2>&1 || bad+=("$file")
	done
	if [ "${#bad[@]}" -gt 0 ]; then
		echo "clang-format -i ${bad[*]}"
		return 1
	fi
}

# lint_tidy DATABASE FILE...
lint_tidy() {
	local database=$1
	shift
	# What it says of headers that are not ours is only a number.
	printf '%s\0' "$@" |
		xargs -0 -r -P "$(nproc)" -n 1 clang-tidy --quiet -p "$database" 2>&1 |
		sed '/warnings\{0,1\} generated\.$/d'
}

lint_cppcheck() {
	cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 -j "$(nproc)" \
		--enable=warning,portability,performance --template=gcc \
		--suppress=missingIncludeSystem --suppress=unknownMacro \
		-D_GNU_SOURCE -D__linux__ -I include -I lib "$@"
}

# lint_module DIRECTORY - the guest module by the kernel's own compiler flags, and by sparse.  What
# sparse says of the kernel's headers is not ours.
lint_module() {
	local log=build/lint/module.log
	if ! compile_module uml "$1" "${module_flags[@]}" C=2 >"$log" 2>&1; then
		cat "$log"
		return 1
	fi
	! grep -F "$1/" "$log" | grep -E '\.[ch]:[0-9]+:'
}

# lint_kernel_style FILE... - by the kernel's checkpatch.pl, all that it knows, but
#   LINUX_VERSION_CODE    compat.h: a driver in the kernel asks for no version, one outside must
#   CONSTANT_COMPARISON   compat.h: it takes LINUX_VERSION_CODE for a constant
#   MACRO_ARG_PRECEDENCE  counters.c: an argument that names a member bears no parentheses
lint_kernel_style() {
	local file ignored=() status=0
	for file in "$@"; do
		case ${file##*/} in
		compat.h) ignored=(--ignore "LINUX_VERSION_CODE,CONSTANT_COMPARISON") ;;
		counters.c) ignored=(--ignore MACRO_ARG_PRECEDENCE) ;;
		*) ignored=() ;;
		esac
		perl "$cache/uml-$(uml_version)/scripts/checkpatch.pl" --no-tree --strict --file --terse \
			--show-types --no-summary "${ignored[@]}" "$file" || status=1
	done
	return "$status"
}

lint_python() {
	"$PYTHON" -m compileall -q -f "$@" && "$PYTHON" -m pyflakes "$@"
}

# Manual pages as the reader's formatter sees them: any warning of it is a failure.
lint_manuals() {
	local page findings status=0
	for page in "$@"; do
		findings=$(groff -man -ww -z "$page" 2>&1) || status=1
		if [ -n "$findings" ]; then
			echo "$findings"
			status=1
		fi
	done
	return "$status"
}

# compiled_by DATABASE FILE... - those that the compilation database knows (others, such as fuzz
# targets that this build leaves out, have no flags to be analysed with)
compiled_by() {
	local database=$1 file
	shift
	for file in "$@"; do
		if grep -q "\"file\": \".*[/\"]$file\"" "$database/compile_commands.json"; then
			echo "$file"
		fi
	done
}

lint_tree() {
	local all c_files c_sources module known shell_files python_files manuals
	mkdir -p build/lint
	mapfile -t all < <(source_files '*')
	mapfile -t c_files < <(source_files '*.c' '*.h')
	# The guest module has a compiler and checkers of its own, the kernel's.
	mapfile -t c_sources < <(source_files '*.c' | grep -v '^guest/linux/')
	mapfile -t module < <(source_files 'guest/linux/*.c' 'guest/linux/*.h')
	mapfile -t shell_files < <(
		source_files '*.sh'
		first_line_has bash "${all[@]}"
	)
	mapfile -t python_files < <({
		source_files '*.py'
		first_line_has python3 "${all[@]}"
	} | sort -u)

	step "house rules" tools/check-sources "${all[@]}"
	if [ "${#c_files[@]}" -gt 0 ]; then
		step "clang-format" lint_format "${c_files[@]}"
	fi
	step "shellcheck" shellcheck -x "${shell_files[@]}"
	step "python" lint_python "${python_files[@]}"

	step "gcc: configure" setup_build lint-gcc gcc --buildtype=release -Ddebug=true --werror
	step "gcc: build" compile_all build/lint-gcc
	step "clang: configure" setup_build lint-clang clang --werror -Dfuzz=true
	step "clang: build" compile_all build/lint-clang
	step "layering" tools/check-layering build/lint-gcc
	mapfile -t manuals < <(find build/lint-gcc/man -name '*.[1-8]' 2>/dev/null | sort)
	if [ "${#manuals[@]}" -gt 0 ]; then
		step "manual pages" lint_manuals "${manuals[@]}"
	fi
	mapfile -t known < <(compiled_by build/lint-clang "${c_sources[@]}")
	if [ "${#known[@]}" -gt 0 ]; then
		step "clang-tidy" lint_tidy build/lint-clang "${known[@]}"
		step "cppcheck" lint_cppcheck "${c_sources[@]}"
	fi
	locked "$cache/lock" fetch_kernels uml
	step "module: gcc and sparse" lint_module "$root/build/lint/module"
	step "module: checkpatch" lint_kernel_style "${module[@]}"

	if [ "${#lint_failed[@]}" -gt 0 ]; then
		printf 'lint: failed: %s\n' "$(printf '%s, ' "${lint_failed[@]}" | sed 's/, $//')"
		return 1
	fi
	echo "lint: clean"
}
