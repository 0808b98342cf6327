// SPDX-License-Identifier: MIT
/*
 * What must fail in the sandbox, how it looks from outside, and the way in. What must work there is
 * test_sandbox_use.c's, and each of its walls by itself test_sandbox_walls.c's.
 */
#include "sandbox_helpers.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#define PAGE 4096U

/* What the sources ask for. */
struct listed {
	const char *name;
	bool allowed;
};
#define ALLOW(name)                      {#name, true},
#define ALLOW_IF(name, arg, mask, value) {#name, true},
#define KILL(name)                       {#name, false},
static const struct listed listed[] = {
#include "sandbox_calls.inc"
};

static double milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* --- What must fail --- */

static void try_files(void)
{
	struct stat st;

	CHECK_FAILS(open("/etc/passwd", O_RDONLY), EPERM);
	CHECK_FAILS(openat(AT_FDCWD, "/proc/self/maps", O_RDONLY), EPERM);
	CHECK_FAILS(openat(AT_FDCWD, "/", O_PATH), EPERM);
	CHECK_FAILS(open("/tmp/aerostat-sandbox-test", O_CREAT | O_WRONLY, 0600), EPERM);
	CHECK_FAILS(open("/tmp", O_TMPFILE | O_RDWR, 0600), EPERM);
	CHECK_FAILS(memfd_create("x", 0), EPERM);
	CHECK_FAILS(mkdir("/x", 0700), EPERM);
	CHECK_FAILS(unlink("/tmp/none"), EPERM);
	CHECK_FAILS(rename("/tmp/none", "/tmp/x"), EPERM);
	CHECK_FAILS(truncate("/tmp/none", 0), EPERM);
	CHECK_FAILS(stat("/etc/passwd", &st), EPERM);
	CHECK_FAILS(access("/etc/passwd", R_OK), EPERM);
	CHECK_FAILS(readlink("/proc/self/exe", (char *)&st, 1), EPERM);
	CHECK_FAILS(chdir("/"), EPERM);
}

static void try_network(void)
{
	const struct sockaddr_in nobody = {.sin_family = AF_INET, .sin_port = htons(9)};
	static const int families[] = {AF_INET, AF_INET6, AF_UNIX, AF_NETLINK, AF_PACKET, AF_VSOCK};
	int pair[2];

	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		CHECK_FAILS(socket(families[i], SOCK_STREAM, 0), EPERM);
		CHECK_FAILS(socket(families[i], SOCK_DGRAM, 0), EPERM);
		CHECK_FAILS(socket(families[i], SOCK_RAW, 0), EPERM);
	}
	CHECK_FAILS(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), EPERM);
	/* Nor with a socket that somebody else has made. */
	CHECK_FAILS(connect(0, (const struct sockaddr *)&nobody, sizeof(nobody)), EPERM);
	CHECK_FAILS(bind(0, (const struct sockaddr *)&nobody, sizeof(nobody)), EPERM);
	CHECK_FAILS(listen(0, 1), EPERM);
	CHECK_FAILS(accept(0, NULL, NULL), EPERM);
	CHECK_FAILS(sendto(0, "x", 1, 0, (const struct sockaddr *)&nobody, sizeof(nobody)), EPERM);
}

static void try_processes(void)
{
	CHECK_FAILS(fork(), EPERM);
	CHECK_FAILS(syscall(SYS_clone, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0), EPERM);
	CHECK_FAILS(syscall(SYS_clone3, NULL, 0), EPERM);
	CHECK_FAILS(kill(getppid(), 0), EPERM);
	CHECK_FAILS(kill(1, 0), EPERM);
	CHECK_FAILS(kill(-1, 0), EPERM);
	CHECK_FAILS(syscall(SYS_tgkill, 1, 1, 0), EPERM);
	CHECK_FAILS(syscall(SYS_tkill, 1, 0), EPERM);
	CHECK_FAILS(syscall(SYS_pidfd_open, 1, 0), EPERM);
	CHECK_FAILS(setpriority(PRIO_PROCESS, 0, 1), EPERM);
}

static void try_privileges(void)
{
	CHECK_FAILS(setuid(0), EPERM);
	CHECK_FAILS(setresuid(0, 0, 0), EPERM);
	CHECK_FAILS(setgid(0), EPERM);
	CHECK_FAILS(sethostname("x", 1), EPERM);
	CHECK_FAILS(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), EPERM);
	CHECK_FAILS(prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0), EPERM);
	CHECK_FAILS(syscall(SYS_io_uring_setup, 1, NULL), EPERM);
	CHECK_FAILS(syscall(SYS_seccomp, 1, 0, NULL), EPERM);
}

/* Calls that are allowed, with arguments that are not. */
static void try_arguments(void)
{
	const char newline = '\n';
	struct stat st;
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(page != MAP_FAILED);
	CHECK_FAILS(mprotect(page, PAGE, PROT_READ | PROT_EXEC), EPERM);
	CHECK(mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
		      MAP_FAILED &&
	      errno == EPERM);
	CHECK_FAILS(madvise(page, PAGE, MADV_WILLNEED), EPERM);
	CHECK_FAILS(ioctl(STDERR_FILENO, TIOCSTI, &newline), EPERM);
	CHECK_FAILS(ioctl(STDERR_FILENO, TCGETS, &st), EPERM);
	CHECK_FAILS(fcntl(STDERR_FILENO, F_SETOWN, 1), EPERM);
	CHECK_FAILS(fcntl(STDERR_FILENO, F_SETLEASE, F_RDLCK), EPERM);
	CHECK_FAILS(fallocate(STDERR_FILENO, 0, 0, PAGE), EPERM);
	CHECK_FAILS(syscall(SYS_newfstatat, AT_FDCWD, "/", &st, 0), EPERM);
}

static void body_refused(enum who who, const void *arg)
{
	(void)arg;
	enter_fully(who);
	try_files();
	try_network();
	try_processes();
	try_privileges();
	try_arguments();
}

static void refused(void **state)
{
	(void)state;
	check_for_all(body_refused, NULL);
}

static const struct listed *find_listed(int nr)
{
	for (size_t i = 0; i < ARRAY_SIZE(listed); i++) {
		if (seccomp_syscall_resolve_name(listed[i].name) == nr)
			return &listed[i];
	}
	return NULL;
}

/* The kernel lets these pass, and ends a process that it has not itself led to them. */
static bool never_filtered(int nr)
{
#ifdef __x86_64__
	return nr == 335 || nr == 336; /* uretprobe(), uprobe() */
#else
	return false;
#endif
}

/* All numbers that there are, and will be soon: nothing but what the list has. */
static void body_nothing_else(enum who who, const void *arg)
{
	static bool known[1024];

	(void)arg;
	for (int nr = 0; nr < (int)ARRAY_SIZE(known); nr++)
		known[nr] = find_listed(nr) || never_filtered(nr);
	enter_fully(who);
	for (int nr = 0; nr < (int)ARRAY_SIZE(known); nr++) {
		if (known[nr])
			continue;
		errno = 0;
		if (syscall(nr, -1L, -1L, -1L, -1L, -1L, -1L) != -1 || errno != EPERM) {
			snprintf(shared->wrong, sizeof(shared->wrong), "system call %d: errno %d",
				 nr, errno);
			return;
		}
	}
}

static void nothing_else(void **state)
{
	(void)state;
	check_for_all(body_nothing_else, NULL);
}

static void body_deadly(enum who who, const void *arg)
{
	enter_fully(who);
	syscall(*(const int *)arg, -1L, -1L, -1L, -1L, -1L, -1L);
}

static void check_deadly(child_body body, enum who who, const void *arg, const char *what)
{
	int status = end_of_child(start_child(body, who, arg));

	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
		fail_msg("%s: %s: status %#x %s", who_names[who], what, (unsigned int)status,
			 shared->wrong);
}

static void deadly(void **state)
{
	static const char *const expected[] = {
		"execve", "execveat", "ptrace", "process_vm_readv", "mount",  "chroot",
		"setns",  "unshare",  "bpf",    "perf_event_open",  "keyctl", "open_by_handle_at",
	};
	uint32_t n = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(listed); i++) {
		int nr = seccomp_syscall_resolve_name(listed[i].name);

		if (listed[i].allowed || nr < 0)
			continue;
		for (int who = 0; who < WHO_COUNT; who++) {
			if (can_be((enum who)who))
				check_deadly(body_deadly, (enum who)who, &nr, listed[i].name);
		}
		n++;
	}
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		const struct listed *found = find_listed(seccomp_syscall_resolve_name(expected[i]));

		if (!found || found->allowed)
			fail_msg("%s should be deadly", expected[i]);
	}
	assert_true(n >= ARRAY_SIZE(expected));
}

/* As an attacker would do it, not by numbers alone. */
static void body_execve(enum who who, const void *arg)
{
	char *const argv[] = {(char[]){"true"}, NULL};

	(void)arg;
	enter_fully(who);
	execv("/bin/true", argv);
}

static void body_ptrace(enum who who, const void *arg)
{
	(void)arg;
	enter_fully(who);
	ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}

static void body_read_parent(enum who who, const void *arg)
{
	struct iovec here = {shared->wrong, 1}, there = {shared, 1};

	(void)arg;
	enter_fully(who);
	process_vm_readv(getppid(), &here, 1, &there, 1, 0);
}

#ifdef __x86_64__
/* Numbers mean other calls there. */
static void body_x32(enum who who, const void *arg)
{
	(void)arg;
	enter_fully(who);
	syscall(0x40000000L | SYS_getpid);
}

#endif

static void breaking_out(void **state)
{
	(void)state;
	check_deadly(body_execve, ORDINARY, NULL, "execve");
	check_deadly(body_ptrace, ORDINARY, NULL, "ptrace");
	check_deadly(body_read_parent, ORDINARY, NULL, "process_vm_readv");
#ifdef __x86_64__
	check_deadly(body_x32, ORDINARY, NULL, "x32");
#endif
}

/* A name that no architecture has would be left out in silence: a slip of the pen. */
static void names_exist(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(listed); i++) {
		if (seccomp_syscall_resolve_name(listed[i].name) == __NR_SCMP_ERROR)
			fail_msg("there is no system call %s()", listed[i].name);
	}
}

/* --- From outside --- */

/* Says that it is in, and waits until it may go. */
static void body_wait(enum who who, const void *arg)
{
	const int *ends = arg;
	char byte = 'r';

	close(ends[2]);
	enter_fully(who);
	CHECK(write(ends[0], &byte, 1) == 1);
	CHECK(read(ends[1], &byte, 1) == 0);
}

/* The value of a field in /proc/PID/status. */
static void check_status(pid_t pid, const char *field, const char *expected)
{
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		size_t len = strlen(field);

		if (strncmp(line, field, len) || line[len] != ':')
			continue;
		line[strcspn(line, "\n")] = '\0';
		assert_string_equal(line + len + 2, expected);
		fclose(f);
		return;
	}
	fail_msg("no %s in %s", field, path);
}

static void check_namespace(pid_t pid, const char *name)
{
	char path[64], theirs[64] = "", ours[64] = "";

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, name);
	assert_true(readlink(path, theirs, sizeof(theirs) - 1) > 0);
	snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
	assert_true(readlink(path, ours, sizeof(ours) - 1) > 0);
	assert_string_not_equal(theirs, ours);
}

/* What root sees of it; others see nothing, which is as it should be. */
static void check_inside(pid_t pid)
{
	static const char *const names[] = {"mnt", "net", "ipc", "uts"};
	char path[64], line[256];
	struct dirent *entry;
	uint32_t entries = 0, mounts = 0;
	FILE *f;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/root/", pid);
	d = opendir(path);
	assert_non_null(d);
	while ((entry = readdir(d)))
		entries += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
	closedir(d);
	assert_int_equal(entries, 0);
	snprintf(path, sizeof(path), "/proc/%d/mountinfo", pid);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		mounts++;
		assert_non_null(strstr(line, " / / ro,"));
		assert_non_null(strstr(line, " - tmpfs "));
	}
	fclose(f);
	assert_int_equal(mounts, 1);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		check_namespace(pid, names[i]);
}

static void check_outside(enum who who, pid_t pid)
{
	char ids[64];
	unsigned int uid = geteuid() ? geteuid() : SOMEBODY, gid = geteuid() ? getegid() : SOMEBODY;

	check_status(pid, "NoNewPrivs", "1");
	check_status(pid, "Seccomp", "2");
	check_status(pid, "CapInh", "0000000000000000");
	check_status(pid, "CapPrm", "0000000000000000");
	check_status(pid, "CapEff", "0000000000000000");
	check_status(pid, "CapAmb", "0000000000000000");
	if (shared->report.in_force & PART(SANDBOX_NO_BOUNDS))
		check_status(pid, "CapBnd", "0000000000000000");
	snprintf(ids, sizeof(ids), "%u\t%u\t%u\t%u", uid, uid, uid, uid);
	check_status(pid, "Uid", ids);
	snprintf(ids, sizeof(ids), "%u\t%u\t%u\t%u", gid, gid, gid, gid);
	check_status(pid, "Gid", ids);
	assert_int_equal(shared->report.uid, uid);
	assert_int_equal(shared->report.gid, gid);
	if (who == ROOT)
		check_status(pid, "Groups", " ");
	if (geteuid() == 0 && shared->report.in_force & PART(SANDBOX_EMPTY_ROOT))
		check_inside(pid);
}

static void outside(void **state)
{
	(void)state;
	for (int who = 0; who < WHO_COUNT; who++) {
		int ready[2], until[2];
		char byte = 0;
		pid_t pid;

		if (!can_be((enum who)who))
			continue;
		assert_int_equal(pipe(ready), 0);
		assert_int_equal(pipe(until), 0);
		pid = start_child(body_wait, (enum who)who,
				  (const int[]){ready[1], until[0], until[1]});
		close(ready[1]);
		close(until[0]);
		if (read(ready[0], &byte, 1) == 1)
			check_outside((enum who)who, pid);
		close(until[1]);
		check_child((enum who)who, pid);
		close(ready[0]);
	}
}

/* A parent that a test can let die, and its child in the sandbox. */
static void body_short_lived(enum who who, const void *arg)
{
	const int *ends = arg;
	const struct sandbox_options options = {SOMEBODY, SOMEBODY, getpid()};
	char byte = 'r';
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		close(ends[0]);
		signal(SIGTERM, SIG_IGN); /* as the worker does */
		if (who == ORDINARY)
			become_ordinary();
		CHECK(sandbox_enter(&options, &shared->report) == 0);
		CHECK(write(ends[1], &byte, 1) == 1);
		poll(NULL, 0, 1000 * (int)CHILD_SECONDS);
		_exit(1);
	}
	pause();
}

/* With its parent the worker dies, at once, and nobody needs to tell it. */
static void parent_dies(void **state)
{
	(void)state;
	for (int who = 0; who < WHO_COUNT; who++) {
		int ends[2];
		char byte;
		pid_t pid;

		if (!can_be((enum who)who))
			continue;
		assert_int_equal(pipe(ends), 0);
		pid = start_child(body_short_lived, (enum who)who, ends);
		close(ends[1]);
		if (read(ends[0], &byte, 1) != 1)
			fail_msg("%s", shared->wrong);
		kill(pid, SIGKILL);
		end_of_child(pid);
		/* End of file: nobody has the other end. */
		assert_int_equal(poll(&(struct pollfd){.fd = ends[0], .events = POLLIN}, 1, 5000),
				 1);
		assert_int_equal(read(ends[0], &byte, 1), 0);
		close(ends[0]);
	}
}

static void body_orphan(enum who who, const void *arg)
{
	const struct sandbox_options options = {SOMEBODY, SOMEBODY, getpid()};

	(void)arg;
	if (who == ORDINARY)
		become_ordinary();
	CHECK(sandbox_enter(&options, &shared->report) == -ESRCH);
}

/* Who comes too late to hear of its parent's death finds out. */
static void orphan(void **state)
{
	(void)state;
	check_for_all(body_orphan, NULL);
}

/* --- The way in --- */

static void body_cost(enum who who, const void *arg)
{
	double before = milliseconds();

	(void)arg;
	enter_fully(who);
	snprintf(shared->described, sizeof(shared->described), "%f", milliseconds() - before);
}

/* Part of the 20 ms from a crash to serving again. Other load on the host is not our cost. */
static void cost(void **state)
{
	(void)state;
	for (int who = 0; who < WHO_COUNT; who++) {
		double best = 1e9;

		if (!can_be((enum who)who))
			continue;
		for (int i = 0; i < 20; i++) {
			check_in_child(body_cost, (enum who)who, NULL);
			if (strtod(shared->described, NULL) < best)
				best = strtod(shared->described, NULL);
		}
		print_message("%s: %.2f ms\n", who_names[who], best);
		assert_true(best < 10);
	}
}

static void *idle_thread(void *arg)
{
	(void)arg;
	for (;;)
		pause(); /* changing user sends signals to threads */
	return NULL;
}

static void body_threads(enum who who, const void *arg)
{
	pthread_t thread;

	(void)arg;
	CHECK(pthread_create(&thread, NULL, idle_thread, NULL) == 0);
	CHECK(enter(who, NULL) == -EBUSY);
	CHECK(shared->report.in_force == 0);
}

static void threads(void **state)
{
	(void)state;
	check_for_all(body_threads, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refused),     cmocka_unit_test(nothing_else),
		cmocka_unit_test(deadly),      cmocka_unit_test(breaking_out),
		cmocka_unit_test(names_exist), cmocka_unit_test(outside),
		cmocka_unit_test(parent_dies), cmocka_unit_test(orphan),
		cmocka_unit_test(cost),        cmocka_unit_test(threads),
	};

	return cmocka_run_group_tests(tests, say_who, NULL);
}
