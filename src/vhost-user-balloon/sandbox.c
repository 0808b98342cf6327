// SPDX-License-Identifier: MIT
/*
 * The worker holds descriptors of guest memory and of rings, and that is what a guest that takes it
 * over has anyway. All else is closed, each by more than one wall where the kernel has them:
 *
 *   files        an empty root in a mount namespace of its own; Landlock without a rule; no open()
 *   network      a network namespace of its own; Landlock; no socket()
 *   processes    a user of its own; Landlock's scope for signals; no kill(), ptrace() or execve()
 *   privileges   no capabilities, no new privileges, not root
 *   the kernel   few system calls, some of them with one kind of argument only
 *
 * The order is given by what each step needs. Namespaces and the bounding set need privileges, so
 * root makes them before it becomes somebody else; who has no privileges gets them, for this and
 * nothing else, in a user namespace, where that is permitted. No user is mapped there: it stays
 * the same to the outside and is nobody within. Changing user makes the process dumpable or not as
 * the system wishes and forgets the signal for the parent's death, so these come after. Landlock
 * forbids mounting. The system calls that all this takes are not on the list, so the list is last.
 *
 * Nothing limits the size of files: standard error may be one.
 *
 * What the worker calls is said next to where it does, in comments that tools/seccomp-list
 * gathers. Calls that are refused fail with EPERM, as libraries try things and go on without; those
 * that only an attacker makes end the process.
 */
#include "sandbox.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cap-ng.h>
#include <seccomp.h>

/* gcc tells of AddressSanitizer by a macro, clang by a feature. */
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define SANDBOX_SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(SANDBOX_SANITIZED)
#define SANDBOX_SANITIZED
#endif
#ifdef SANDBOX_SANITIZED
#include <sanitizer/common_interface_defs.h>
#endif

#define PART(part)    (1U << (part))
#define NOBODY        65534
#define ROOT_OPTIONS  "size=4k,nr_inodes=1,mode=555"
#define OPTIMIZE_TREE 2 /* libseccomp: a binary tree instead of a list */

static const char *const part_names[] = {
	[SANDBOX_NO_NEW_PRIVS] = "no new privileges",
	[SANDBOX_NO_DUMP] = "not dumpable",
	[SANDBOX_USER] = "not root",
	[SANDBOX_NO_CAPS] = "no capabilities",
	[SANDBOX_NO_BOUNDS] = "empty bounding set",
	[SANDBOX_MOUNT_NS] = "mount namespace",
	[SANDBOX_NET_NS] = "network namespace",
	[SANDBOX_IPC_NS] = "IPC namespace",
	[SANDBOX_UTS_NS] = "UTS namespace",
	[SANDBOX_EMPTY_ROOT] = "empty root",
	[SANDBOX_LANDLOCK] = "Landlock",
	[SANDBOX_LIMITS] = "limits",
	[SANDBOX_SECCOMP] = "seccomp",
};
static_assert(sizeof(part_names) / sizeof(part_names[0]) == SANDBOX_PART_COUNT,
	      "a name for every part");
static_assert(SANDBOX_PART_COUNT <= 32, "a bit for every part");

/* What must hold: one part of each, at least. */
static const struct {
	uint32_t any_of;
	const char *what;
} needs[] = {
	{PART(SANDBOX_NO_NEW_PRIVS), "new privileges cannot be ruled out"},
	{PART(SANDBOX_NO_CAPS), "capabilities cannot be given up"},
	{PART(SANDBOX_EMPTY_ROOT) | PART(SANDBOX_LANDLOCK), "the file system cannot be closed"},
	{PART(SANDBOX_NET_NS) | PART(SANDBOX_SECCOMP), "the network cannot be closed"},
	{PART(SANDBOX_SECCOMP), "system calls cannot be limited"},
};

static const struct {
	enum sandbox_part part;
	int flag;
} namespaces[] = {
	{SANDBOX_MOUNT_NS, CLONE_NEWNS},
	{SANDBOX_NET_NS, CLONE_NEWNET},
	{SANDBOX_IPC_NS, CLONE_NEWIPC},
	{SANDBOX_UTS_NS, CLONE_NEWUTS},
};

/* r: 0 or -errno. */
static void note(struct sandbox_report *report, enum sandbox_part part, int r)
{
	report->error[part] = -r;
	if (r == 0)
		report->in_force |= PART(part);
}

static bool holds(const struct sandbox_report *report, enum sandbox_part part)
{
	return report->in_force & PART(part);
}

/* For calls that return 0, or -1 with errno. */
static int result(long r)
{
	return r < 0 ? -errno : 0;
}

void sandbox_account(uid_t *uid, gid_t *gid)
{
	const struct passwd *user = getpwnam(SANDBOX_USER_NAME);

	if (!user)
		user = getpwnam("nobody");
	*uid = user ? user->pw_uid : NOBODY;
	*gid = user ? user->pw_gid : NOBODY;
}

/* --- Namespaces and the root --- */

static void enter_namespaces(struct sandbox_report *report)
{
	for (size_t i = 0; i < sizeof(namespaces) / sizeof(namespaces[0]); i++) {
		if (!holds(report, namespaces[i].part))
			note(report, namespaces[i].part, result(unshare(namespaces[i].flag)));
	}
}

/* An empty file system somewhere, and the process in it. */
static int mount_empty(void)
{
	/* Any folder will do: all that is below it is left behind. */
	static const char *const places[] = {"/tmp", "/proc", "/run", "/var", "/usr"};
	const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
	int r = -ENOENT;

	for (size_t i = 0; r && i < sizeof(places) / sizeof(places[0]); i++) {
		r = result(mount("tmpfs", places[i], "tmpfs", flags, ROOT_OPTIONS));
		if (!r)
			r = result(chdir(places[i]));
	}
	return r;
}

static int empty_root(void)
{
	/* What is mounted here is not to be seen elsewhere. */
	int r = result(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));

	if (!r)
		r = mount_empty();
	if (r)
		return r;
	/* The old root comes to lie on top of the new one, from where it is taken away. */
	r = result(syscall(SYS_pivot_root, ".", "."));
	if (!r)
		return result(umount2(".", MNT_DETACH) < 0 ? -1 : chdir("/"));
	/* The kernel's first root, that of an initramfs, cannot be exchanged, only covered. */
	r = result(mount(".", "/", NULL, MS_MOVE, NULL));
	if (!r)
		r = result(chroot(".") < 0 ? -1 : chdir("/"));
	return r;
}

static void close_root(struct sandbox_report *report)
{
	if (holds(report, SANDBOX_EMPTY_ROOT))
		return;
	if (holds(report, SANDBOX_MOUNT_NS))
		note(report, SANDBOX_EMPTY_ROOT, empty_root());
	else
		report->error[SANDBOX_EMPTY_ROOT] = report->error[SANDBOX_MOUNT_NS];
}

/* --- Privileges --- */

/*
 * Wants a privilege, so it is done whenever there may be some. Without, the library would complain
 * to syslog, and leave a socket for that open.
 */
static void drop_bounds(void)
{
	if (capng_get_caps_process() < 0 || !capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP))
		return;
	capng_clear(CAPNG_SELECT_ALL);
	(void)capng_apply(CAPNG_SELECT_BOUNDS);
}

static int become(uid_t uid, gid_t gid)
{
	int r = result(setgroups(0, NULL));

	/* As much of it as is permitted. */
	if (setresgid(gid, gid, gid) < 0)
		r = -errno;
	if (setresuid(uid, uid, uid) < 0)
		r = -errno;
	return r;
}

static void become_user(const struct sandbox_options *o, struct sandbox_report *report)
{
	uid_t uid = o->uid;
	gid_t gid = o->gid;
	int r = 0;

	if (geteuid() == 0 || getuid() == 0) {
		if (uid == SANDBOX_NO_UID || gid == SANDBOX_NO_GID)
			sandbox_account(&uid, &gid);
		drop_bounds();
		r = become(uid, gid);
	}
	report->uid = geteuid();
	report->gid = getegid();
	if (!r && report->uid == 0)
		r = -EINVAL; /* what we were told to become */
	note(report, SANDBOX_USER, r);
}

static void drop_caps(struct sandbox_report *report)
{
	bool all_known;

	drop_bounds();
	capng_clear(CAPNG_SELECT_ALL);
	(void)capng_apply(CAPNG_SELECT_CAPS);
	(void)capng_apply(CAPNG_SELECT_AMBIENT);
	/* What counts is what the kernel says. */
	all_known = capng_get_caps_process() == 0;
	note(report, SANDBOX_NO_CAPS,
	     all_known && capng_have_capabilities(CAPNG_SELECT_CAPS) == CAPNG_NONE &&
			     capng_have_capabilities(CAPNG_SELECT_AMBIENT) == CAPNG_NONE
		     ? 0
		     : -EPERM);
	note(report, SANDBOX_NO_BOUNDS,
	     all_known && capng_have_capabilities(CAPNG_SELECT_BOUNDS) == CAPNG_NONE ? 0 : -EPERM);
}

/* Also of a parent that died before: the signal would never come. */
static int follow_parent(pid_t parent)
{
	if (!parent)
		return 0;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return -errno;
	return getppid() == parent ? 0 : -ESRCH;
}

static int set_limits(void)
{
	const struct rlimit none = {0, 0};
	int r = result(setrlimit(RLIMIT_NPROC, &none));

	return r ? r : result(setrlimit(RLIMIT_CORE, &none));
}

/* --- Landlock --- */

/* As the kernel's interface has it; the system's headers may be older. */
struct landlock_attr {
	uint64_t fs;
	uint64_t net;
	uint64_t scoped;
};

/* All that a version of the interface can forbid: what is new in it, and so on. */
static const struct {
	int abi;
	size_t size;
	struct landlock_attr attr;
} landlock_versions[] = {
	{6, 24, {0xffff, 3, 3}}, /* scopes: abstract Unix sockets, signals */
	{5, 16, {0xffff, 3, 0}}, /* ioctl() on devices */
	{4, 16, {0x7fff, 3, 0}}, /* net: bind and connect TCP */
	{3, 8, {0x7fff, 0, 0}},  /* truncating */
	{2, 8, {0x3fff, 0, 0}},  /* linking and renaming between folders */
	{1, 8, {0x1fff, 0, 0}},
};

/* Version of the interface, or -errno. */
static int landlock_restrict(void)
{
	const int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* version */);
	size_t i = 0;
	int rules, r;

	if (abi < 1)
		return abi < 0 ? -errno : -EOPNOTSUPP;
	while (landlock_versions[i].abi > abi)
		i++;
	rules = (int)syscall(SYS_landlock_create_ruleset, &landlock_versions[i].attr,
			     landlock_versions[i].size, 0);
	if (rules < 0)
		return -errno;
	r = result(syscall(SYS_landlock_restrict_self, rules, 0));
	close(rules);
	if (r)
		return r;
	/* Seeing is believing. */
	r = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r >= 0) {
		close(r);
		return -EPERM;
	}
	return abi;
}

static void apply_landlock(struct sandbox_report *report)
{
	int abi = landlock_restrict();

	note(report, SANDBOX_LANDLOCK, abi < 0 ? abi : 0);
	report->landlock_abi = abi < 0 ? 0 : abi;
}

/* --- System calls --- */

/*
 * What the code of others calls in the worker's name, found with strace.
 *
 * The C library: ends of the process, signals, a message before abort(), standard error.
 * seccomp: exit exit_group rt_sigaction rt_sigprocmask rt_sigreturn sigreturn restart_syscall
 * seccomp: getpid gettid tgkill(0 == (uint32_t)getpid()) write writev
 * seccomp: fstat fstat64 newfstatat(3 == AT_EMPTY_PATH) lseek _llseek
 * Its malloc(); nothing becomes executable.
 * seccomp: brk futex futex_time64 getrandom madvise(2 == MADV_DONTNEED) mremap munmap
 * seccomp: mmap(2 & PROT_EXEC == 0) mmap2(2 & PROT_EXEC == 0) mprotect(2 & PROT_EXEC == 0)
 * Its clock, where the kernel has no faster way.
 * seccomp: clock_getres clock_getres_time64 clock_gettime clock_gettime64 gettimeofday time
 * libuv: the loop, its own descriptors, and the monitor's clients. Newer versions want io_uring for
 * the loop, and once they have it abort when it is refused: so the loop is made in here, too.
 * seccomp: epoll_create1 eventfd2 pipe2
 * seccomp: epoll_ctl epoll_pwait epoll_wait read readv recvmsg sendmsg close dup3 shutdown
 * seccomp: ioctl(1 == FIONBIO) ioctl(1 == FIOCLEX) fcntl(1 == F_GETFL) fcntl(1 == F_SETFL)
 * seccomp: fcntl64(1 == F_GETFL) fcntl64(1 == F_SETFL)
 * json-c: the seed of its hash tables (getrandom, above).
 *
 * What sanitizers need on top, for the threads and the memory that they look after and to report.
 * seccomp-if SANDBOX_SANITIZED: madvise(2 == MADV_DONTDUMP) madvise(2 == MADV_NOHUGEPAGE)
 * seccomp-if SANDBOX_SANITIZED: sigaltstack sched_yield
 *
 * What this file calls on the way in, and to see what cannot be done any more.
 * seccomp-before: prctl getppid setrlimit chdir open socket
 *
 * What nothing in this process ever calls, unless it is no longer ours.
 * seccomp-kill: execve execveat ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp
 * seccomp-kill: process_madvise mount umount2 pivot_root chroot unshare setns move_mount fsopen
 * seccomp-kill: fsmount fspick open_tree mount_setattr open_by_handle_at bpf perf_event_open
 * seccomp-kill: userfaultfd keyctl add_key request_key init_module finit_module delete_module
 * seccomp-kill: kexec_load kexec_file_load reboot swapon swapoff iopl ioperm modify_ldt personality
 */
struct call {
	const char *name;
	uint32_t action;
	/* With a mask: only if argument `arg`, as far as the mask goes, is `value`. */
	unsigned int arg;
	uint64_t mask;
	uint64_t value;
};

#define ALLOW(name)                      {#name, SCMP_ACT_ALLOW, 0, 0, 0},
#define ALLOW_IF(name, arg, mask, value) {#name, SCMP_ACT_ALLOW, arg, mask, (value) & (mask)},
#define KILL(name)                       {#name, SCMP_ACT_KILL_PROCESS, 0, 0, 0},

/* 0 or -errno; counts what is allowed on this architecture. */
static int add_calls(scmp_filter_ctx filter, uint32_t *n_rules)
{
	const struct call calls[] = {
#include "sandbox_calls.inc"
	};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		const struct call *c = &calls[i];
		int nr = seccomp_syscall_resolve_name(c->name), r;

		if (nr < 0)
			continue; /* another architecture's, or newer than the library */
		if (c->mask)
			r = seccomp_rule_add(
				filter, c->action, nr, 1,
				SCMP_CMP64(c->arg, SCMP_CMP_MASKED_EQ, c->mask, c->value));
		else
			r = seccomp_rule_add(filter, c->action, nr, 0);
		if (r < 0)
			return r;
		if (c->action == SCMP_ACT_ALLOW)
			++*n_rules;
	}
	return 0;
}

static int limit_calls(uint32_t *n_rules)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r;

	if (!filter)
		return -ENOMEM;
	r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!r)
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, OPTIMIZE_TREE);
	if (!r)
		r = add_calls(filter, n_rules);
	if (!r)
		r = seccomp_load(filter);
	seccomp_release(filter);
	if (r)
		return r;
	/* Seeing is believing. */
	r = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (r >= 0) {
		close(r);
		return -EPERM;
	}
	return 0;
}

/* --- All together --- */

static int check_needs(struct sandbox_report *report)
{
	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
		if (!(report->in_force & needs[i].any_of)) {
			report->lacking = needs[i].what;
			return -EPERM;
		}
	}
	return 0;
}

/*
 * Changing namespaces, capabilities and Landlock is one thread's matter. CLONE_THREAD changes
 * nothing, and is refused in a process that has more threads than one.
 */
static bool has_threads(void)
{
	return unshare(CLONE_THREAD) < 0 && errno == EINVAL;
}

static void isolate(const struct sandbox_options *o, struct sandbox_report *report)
{
	enter_namespaces(report);
	close_root(report);
	become_user(o, report);
	if (!holds(report, SANDBOX_MOUNT_NS) || !holds(report, SANDBOX_NET_NS)) {
		if (unshare(CLONE_NEWUSER) == 0)
			enter_namespaces(report);
		close_root(report);
	}
	drop_caps(report);
}

int sandbox_enter(const struct sandbox_options *o, struct sandbox_report *report)
{
	int r;

	memset(report, 0, sizeof(*report));
	if (has_threads())
		return -EBUSY;
#ifdef SANDBOX_SANITIZED
	/* Reads what it cannot read later, and has one place left to report to. */
	__sanitizer_sandbox_on_notify(&(__sanitizer_sandbox_arguments){0});
	__sanitizer_set_report_path("stderr");
#endif
	note(report, SANDBOX_NO_NEW_PRIVS, result(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)));
	isolate(o, report);
	r = follow_parent(o->parent);
	if (r < 0)
		return r;
	note(report, SANDBOX_NO_DUMP, result(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)));
	note(report, SANDBOX_LIMITS, set_limits());
	apply_landlock(report);
	note(report, SANDBOX_SECCOMP, limit_calls(&report->n_rules));
	return check_needs(report);
}

/* Appends to text at *at, as much as there is room for. */
__attribute__((format(printf, 4, 5))) static void append(char *text, size_t size, size_t *at,
							 const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text + *at, size - *at, fmt, ap);
	va_end(ap);
	if (n > 0)
		*at = (size_t)n < size - *at ? *at + (size_t)n : size - 1;
}

const char *sandbox_describe(const struct sandbox_report *report, char *text, size_t size)
{
	size_t at = 0;

	append(text, size, &at, "user %u:%u", report->uid, report->gid);
	for (int i = 0; i < SANDBOX_PART_COUNT; i++) {
		if (!holds(report, (enum sandbox_part)i))
			continue;
		append(text, size, &at, ", %s", part_names[i]);
		if (i == SANDBOX_LANDLOCK)
			append(text, size, &at, " %d", report->landlock_abi);
		else if (i == SANDBOX_SECCOMP)
			append(text, size, &at, " (%u)", report->n_rules);
	}
	for (int i = 0; i < SANDBOX_PART_COUNT; i++) {
		if (!holds(report, (enum sandbox_part)i))
			append(text, size, &at, "; not %s: %s", part_names[i],
			       report->error[i] ? strerror(report->error[i]) : "not tried");
	}
	return text;
}
