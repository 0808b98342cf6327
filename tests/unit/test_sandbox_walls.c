// SPDX-License-Identifier: MIT
/*
 * The sandbox on kernels that lack something, and each of its walls by itself. A filter of the
 * test's own stands for the lack: calls fail as they do there, or only pretend to have been done.
 */
#include "sandbox_helpers.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>

#define NAMESPACES                                                              \
	(PART(SANDBOX_MOUNT_NS) | PART(SANDBOX_NET_NS) | PART(SANDBOX_IPC_NS) | \
	 PART(SANDBOX_UTS_NS))
#define NO_NAMESPACES               \
	{                           \
		"unshare", EPERM, 0 \
	}
#define NO_LANDLOCK                                  \
	{                                            \
		"landlock_create_ruleset", ENOSYS, 0 \
	}
#define NO_SECCOMP                              \
	{"seccomp", ENOSYS, 0},                 \
	{                                       \
		"prctl", EINVAL, PR_SET_SECCOMP \
	}
#define PRETENDS_SECCOMP                   \
	{"seccomp", 0, 0},                 \
	{                                  \
		"prctl", 0, PR_SET_SECCOMP \
	}

/* What the kernel under the test has. */
static bool has_namespaces[WHO_COUNT];
static int landlock_abi;

static void body_namespaces(enum who who, const void *arg)
{
	(void)arg;
	if (who == ORDINARY)
		become_ordinary();
	CHECK(unshare((who == ROOT ? 0 : CLONE_NEWUSER) | CLONE_NEWNS | CLONE_NEWNET) == 0);
}

static int look_at_kernel(void **state)
{
	say_who(state);
	for (int who = 0; who < WHO_COUNT; who++) {
		if (!can_be((enum who)who))
			continue;
		has_namespaces[who] =
			end_of_child(start_child(body_namespaces, (enum who)who, NULL)) == 0;
		if (!has_namespaces[who])
			print_message("%s: no namespaces here\n", who_names[who]);
	}
	landlock_abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
	print_message("Landlock: %d\n", landlock_abi);
	return 0;
}

/* --- What is lacking --- */

/* What a world has nothing of, and what comes of that. */
struct world {
	struct denial deny[DENIALS];
	uint32_t missing[WHO_COUNT]; /* parts that are not in force */
	const char *lacking;         /* NULL: it does without */
};

#define BOTH(parts)          \
	{                    \
		parts, parts \
	}

static const struct world worlds[] = {
	{{{NULL, 0, 0}}, BOTH(0), NULL},
	{{NO_NAMESPACES},
	 {NAMESPACES | PART(SANDBOX_EMPTY_ROOT),
	  NAMESPACES | PART(SANDBOX_EMPTY_ROOT) | PART(SANDBOX_NO_BOUNDS)},
	 NULL},
	{{NO_LANDLOCK}, BOTH(PART(SANDBOX_LANDLOCK)), NULL},
	{{NO_NAMESPACES, NO_LANDLOCK},
	 {NAMESPACES | PART(SANDBOX_EMPTY_ROOT) | PART(SANDBOX_LANDLOCK),
	  NAMESPACES | PART(SANDBOX_EMPTY_ROOT) | PART(SANDBOX_LANDLOCK) | PART(SANDBOX_NO_BOUNDS)},
	 "the file system cannot be closed"},
	/* One namespace only. */
	{{{"unshare", ENOSPC, CLONE_NEWNET}}, BOTH(PART(SANDBOX_NET_NS)), NULL},
	{{{"unshare", EINVAL, CLONE_NEWIPC}}, BOTH(PART(SANDBOX_IPC_NS)), NULL},
	/* Roots that cannot be exchanged: an initramfs. */
	{{{"pivot_root", EINVAL, 0}}, BOTH(0), NULL},
	{{{"pivot_root", EINVAL, 0}, {"chroot", EPERM, 0}}, BOTH(PART(SANDBOX_EMPTY_ROOT)), NULL},
	{{{"mount", EACCES, 0}}, BOTH(PART(SANDBOX_EMPTY_ROOT)), NULL},
	{{{"mount", EACCES, 0}, NO_LANDLOCK},
	 BOTH(PART(SANDBOX_EMPTY_ROOT) | PART(SANDBOX_LANDLOCK)),
	 "the file system cannot be closed"},
	/* A rule that is taken and does nothing. */
	{{{"landlock_restrict_self", 0, 0}}, BOTH(PART(SANDBOX_LANDLOCK)), NULL},
	{{NO_SECCOMP}, BOTH(PART(SANDBOX_SECCOMP)), "system calls cannot be limited"},
	{{PRETENDS_SECCOMP}, BOTH(PART(SANDBOX_SECCOMP)), "system calls cannot be limited"},
	{{NO_NAMESPACES, NO_SECCOMP},
	 {NAMESPACES | PART(SANDBOX_EMPTY_ROOT) | PART(SANDBOX_SECCOMP),
	  NAMESPACES | PART(SANDBOX_EMPTY_ROOT) | PART(SANDBOX_SECCOMP) | PART(SANDBOX_NO_BOUNDS)},
	 "the network cannot be closed"},
	{{{"setrlimit", EPERM, 0}, {"prlimit64", EPERM, 0}}, BOTH(PART(SANDBOX_LIMITS)), NULL},
	{{{"prctl", EINVAL, PR_SET_DUMPABLE}}, BOTH(PART(SANDBOX_NO_DUMP)), NULL},
};

static void body_world(enum who who, const void *arg)
{
	const struct world *world = arg;
	int r = enter(who, world->deny);
	uint32_t missing = world->missing[who];

	if (!has_namespaces[who])
		missing |= NAMESPACES | PART(SANDBOX_EMPTY_ROOT) |
			   (who == ORDINARY ? PART(SANDBOX_NO_BOUNDS) : 0);
	if (landlock_abi < 1)
		missing |= PART(SANDBOX_LANDLOCK);
	CHECK(shared->report.in_force == (ALL_PARTS & ~missing));
	CHECK(r == (world->lacking ? -EPERM : 0));
	CHECK(!world->lacking == !shared->report.lacking);
	CHECK(!world->lacking || strcmp(world->lacking, shared->report.lacking) == 0);
}

static void lacks(void **state)
{
	(void)state;
	if (!has_namespaces[ORDINARY] || landlock_abi < 1) {
		print_message("this kernel lacks things of its own\n");
		skip();
	}
	for (size_t i = 0; i < ARRAY_SIZE(worlds); i++)
		check_for_all(body_world, &worlds[i]);
}

/* What only one of the two can lack. */
static void lacks_of_one(void **state)
{
	static const struct {
		enum who who;
		struct world world;
	} cases[] = {
		/* Root stays root, with nothing that root may. */
		{ROOT, {{{"setresuid", EPERM, 0}}, BOTH(PART(SANDBOX_USER)), NULL}},
		{ROOT, {{{"setgroups", EPERM, 0}}, BOTH(PART(SANDBOX_USER)), NULL}},
		{ROOT,
		 {{{"prctl", EINVAL, PR_SET_NO_NEW_PRIVS}},
		  BOTH(PART(SANDBOX_NO_NEW_PRIVS) | PART(SANDBOX_LANDLOCK) | PART(SANDBOX_SECCOMP)),
		  "new privileges cannot be ruled out"}},
		{ROOT, {{{"prctl", EPERM, PR_CAPBSET_DROP}}, BOTH(PART(SANDBOX_NO_BOUNDS)), NULL}},
		{ROOT,
		 {{{"setresuid", EPERM, 0}, {"capset", EPERM, 0}},
		  BOTH(PART(SANDBOX_USER) | PART(SANDBOX_NO_CAPS)),
		  "capabilities cannot be given up"}},
		{ORDINARY,
		 {{{"capset", EPERM, 0}},
		  BOTH(PART(SANDBOX_NO_CAPS)),
		  "capabilities cannot be given up"}},
		{ORDINARY,
		 {{{"unshare", EPERM, CLONE_NEWUSER}},
		  BOTH(NAMESPACES | PART(SANDBOX_EMPTY_ROOT) | PART(SANDBOX_NO_BOUNDS)),
		  NULL}},
	};

	(void)state;
	if (geteuid() != 0 || !has_namespaces[ORDINARY] || landlock_abi < 1) {
		print_message("not root, or this kernel lacks things of its own\n");
		skip();
	}
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_in_child(body_world, cases[i].who, &cases[i].world);
}

static void body_describe(enum who who, const void *arg)
{
	static const struct denial none[DENIALS] = {NO_LANDLOCK};
	char small[16], text[SANDBOX_TEXT_MAX];

	(void)arg;
	CHECK(enter(who, none) == 0);
	CHECK(strstr(shared->described, ", seccomp (") && strstr(shared->described, "empty root"));
	CHECK(strstr(shared->described, "; not Landlock: Function not implemented"));
	CHECK(strlen(shared->described) < SANDBOX_TEXT_MAX - 1);
	/* Cut off where there is no room. */
	memset(small, 'x', sizeof(small));
	sandbox_describe(&shared->report, small, sizeof(small) - 1);
	CHECK(strncmp(small, shared->described, sizeof(small) - 2) == 0);
	CHECK(small[14] == '\0' && small[15] == 'x');
	memset(&shared->report, 0, sizeof(shared->report));
	sandbox_describe(&shared->report, text, sizeof(text));
	CHECK(strstr(text, "; not seccomp: not tried") && strlen(text) < sizeof(text) - 1);
}

static void describes(void **state)
{
	(void)state;
	if (!has_namespaces[ORDINARY])
		skip();
	check_for_all(body_describe, NULL);
}

/* --- Wall by wall --- */

/* On a kernel that only pretends to know seccomp: all but that is there. */
static void enter_without_filter(enum who who, const struct denial *other)
{
	const struct denial denials[DENIALS] = {PRETENDS_SECCOMP, *other};

	CHECK(enter(who, denials) == -EPERM);
	CHECK(!(shared->report.in_force & PART(SANDBOX_SECCOMP)));
}

static void body_empty_root(enum who who, const void *arg)
{
	static const struct denial no_landlock = NO_LANDLOCK;
	struct dirent *entry;
	DIR *root;

	(void)arg;
	enter_without_filter(who, &no_landlock);
	CHECK_FAILS(open("/etc/passwd", O_RDONLY), ENOENT);
	CHECK_FAILS(open("/proc/self/maps", O_RDONLY), ENOENT);
	CHECK_FAILS(open("../../../../etc/passwd", O_RDONLY), ENOENT);
	CHECK(open("/x", O_CREAT | O_WRONLY, 0600) < 0);
	CHECK(mkdir("/x", 0700) < 0);
	CHECK_FAILS(mount(NULL, "/", NULL, MS_REMOUNT, NULL), EPERM);
	root = opendir("/");
	CHECK(root);
	while ((entry = readdir(root)))
		CHECK(strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
	closedir(root);
}

/* The same where the kernel's first root is only covered. */
static void body_covered_root(enum who who, const void *arg)
{
	static const struct denial denials[DENIALS] = {
		{"pivot_root", EINVAL, 0}, NO_LANDLOCK, {"seccomp", 0, 0}};

	(void)arg;
	(void)enter(who, denials);
	CHECK(shared->report.in_force & PART(SANDBOX_EMPTY_ROOT));
	CHECK_FAILS(open("/etc/passwd", O_RDONLY), ENOENT);
	CHECK_FAILS(open("../../../../etc/passwd", O_RDONLY), ENOENT);
	CHECK(open("/x", O_CREAT | O_WRONLY, 0600) < 0);
}

static uint32_t count_mounts(void)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	uint32_t n = 0;

	CHECK(f);
	for (int c = fgetc(f); c != EOF; c = fgetc(f))
		n += c == '\n';
	fclose(f);
	return n;
}

/* Where mounts are shared between namespaces, as systemd has them, nobody sees ours. */
static void body_shared_mounts(enum who who, const void *arg)
{
	uint32_t before;
	int status = -1;
	pid_t pid;

	(void)arg;
	CHECK(unshare(CLONE_NEWNS) == 0);
	CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
	CHECK(mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL) == 0);
	before = count_mounts();
	pid = fork();
	if (pid == 0) {
		enter_fully(who);
		CHECK(shared->report.in_force & PART(SANDBOX_EMPTY_ROOT));
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(count_mounts() == before);
}

static void empty_root(void **state)
{
	(void)state;
	if (!has_namespaces[ORDINARY])
		skip();
	check_for_all(body_empty_root, NULL);
	check_for_all(body_covered_root, NULL);
	if (can_be(ROOT))
		check_in_child(body_shared_mounts, ROOT, NULL);
}

/* A file that everybody may do everything with. */
static const char open_file[] = "/tmp/aerostat-sandbox-open";

static void body_landlock(enum who who, const void *arg)
{
	static const struct denial no_namespaces = NO_NAMESPACES;
	char *const argv[] = {(char[]){"true"}, NULL};

	(void)arg;
	enter_without_filter(who, &no_namespaces);
	CHECK_FAILS(open("/etc/passwd", O_RDONLY), EACCES);
	CHECK_FAILS(open("/proc/self/maps", O_RDONLY), EACCES);
	CHECK_FAILS(open("/", O_RDONLY | O_DIRECTORY), EACCES);
	CHECK_FAILS(open(open_file, O_WRONLY), EACCES);
	CHECK_FAILS(open("/tmp/aerostat-sandbox-new", O_CREAT | O_WRONLY, 0600), EACCES);
	CHECK_FAILS(mkdir("/tmp/aerostat-sandbox-new", 0700), EACCES);
	CHECK_FAILS(unlink(open_file), EACCES);
	CHECK_FAILS(execv("/bin/true", argv), EACCES);
	if (landlock_abi >= 3)
		CHECK_FAILS(truncate(open_file, 0), EACCES);
}

static void landlock(void **state)
{
	int fd = open(open_file, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, 0666), 0);
	close(fd);
	if (landlock_abi < 1) {
		print_message("no Landlock here\n");
		skip();
	}
	check_for_all(body_landlock, NULL);
	unlink(open_file);
}

/* Who listens, on both kinds of sockets. */
struct listener {
	struct sockaddr_in tcp;
	struct sockaddr_un abstract;
	socklen_t abstract_len;
};

static int knock(const void *addr, socklen_t len, int family)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r;

	CHECK(fd >= 0);
	r = connect(fd, addr, len) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static void body_network_namespace(enum who who, const void *arg)
{
	static const struct denial no_landlock = NO_LANDLOCK;
	const struct listener *l = arg;

	CHECK(knock(&l->tcp, sizeof(l->tcp), AF_INET) == 0);
	CHECK(knock(&l->abstract, l->abstract_len, AF_UNIX) == 0);
	enter_without_filter(who, &no_landlock);
	CHECK(knock(&l->tcp, sizeof(l->tcp), AF_INET) == -ENETUNREACH);
	CHECK(knock(&l->abstract, l->abstract_len, AF_UNIX) == -ECONNREFUSED);
}

static void body_network_landlock(enum who who, const void *arg)
{
	static const struct denial no_namespaces = NO_NAMESPACES;
	const struct listener *l = arg;

	enter_without_filter(who, &no_namespaces);
	CHECK(knock(&l->tcp, sizeof(l->tcp), AF_INET) == -EACCES);
	if (landlock_abi >= 6)
		CHECK(knock(&l->abstract, l->abstract_len, AF_UNIX) == -EPERM);
}

static void network(void **state)
{
	struct listener l = {.tcp = {.sin_family = AF_INET},
			     .abstract = {.sun_family = AF_UNIX},
			     .abstract_len = sizeof(sa_family_t)};
	int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int abstract = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(l.tcp);

	(void)state;
	l.tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(tcp, (struct sockaddr *)&l.tcp, len), 0);
	assert_int_equal(getsockname(tcp, (struct sockaddr *)&l.tcp, &len), 0);
	assert_int_equal(bind(abstract, (struct sockaddr *)&l.abstract, l.abstract_len), 0);
	l.abstract_len = sizeof(l.abstract);
	assert_int_equal(getsockname(abstract, (struct sockaddr *)&l.abstract, &l.abstract_len), 0);
	assert_int_equal(listen(tcp, 100), 0);
	assert_int_equal(listen(abstract, 100), 0);
	if (has_namespaces[ORDINARY])
		check_for_all(body_network_namespace, &l);
	if (landlock_abi >= 4)
		check_for_all(body_network_landlock, &l);
	close(tcp);
	close(abstract);
	if (!has_namespaces[ORDINARY] || landlock_abi < 4)
		skip();
}

/* Without system calls being refused, and without Landlock. */
static void body_privileges(enum who who, const void *arg)
{
	static const struct denial no_landlock = NO_LANDLOCK;
	const uint32_t handle[] = {8, 1, 2, 0}; /* bytes, kind, inode */
	struct iovec here = {shared->wrong, 1}, there = {shared, 1};

	(void)arg;
	enter_without_filter(who, &no_landlock);
	CHECK(setuid(0) < 0);
	CHECK(setgid(0) < 0);
	CHECK(setgroups(0, NULL) < 0);
	CHECK_FAILS(unshare(CLONE_NEWNS), EPERM);
	CHECK_FAILS(chroot("/"), EPERM);
	CHECK_FAILS(mount("x", "/", "tmpfs", 0, NULL), EPERM);
	CHECK_FAILS(umount2("/", MNT_DETACH), EPERM);
	CHECK_FAILS(sethostname("x", 1), EPERM);
	CHECK_FAILS(syscall(SYS_open_by_handle_at, AT_FDCWD, handle, O_RDONLY), EPERM);
	CHECK_FAILS(fork(), EAGAIN);
	CHECK_FAILS(kill(1, 0), EPERM);
	if (who == ROOT) {
		CHECK_FAILS(kill(getppid(), 0), EPERM);
		CHECK_FAILS(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL), EPERM);
		CHECK_FAILS(process_vm_readv(getppid(), &here, 1, &there, 1, 0), EPERM);
	}
	CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	CHECK(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
}

static void privileges(void **state)
{
	(void)state;
	if (!has_namespaces[ORDINARY])
		skip();
	check_for_all(body_privileges, NULL);
}

/* Of the same user: only Landlock stands between them. */
static void body_neighbour(enum who who, const void *arg)
{
	static const struct denial no_namespaces = NO_NAMESPACES;
	const int *ends = arg;
	pid_t neighbour;
	char byte;

	become_ordinary();
	neighbour = fork();
	CHECK(neighbour >= 0);
	close(ends[1]);
	if (neighbour == 0)
		_exit(read(ends[0], &byte, 1) == 0 ? 0 : 1); /* when the test closes its end */
	CHECK(kill(neighbour, 0) == 0);
	enter_without_filter(who, &no_namespaces);
	CHECK_FAILS(kill(neighbour, 0), EPERM);
	CHECK_FAILS(ptrace(PTRACE_ATTACH, neighbour, NULL, NULL), EPERM);
	CHECK(kill(getpid(), 0) == 0);
}

static void neighbours(void **state)
{
	int ends[2];

	(void)state;
	if (landlock_abi < 6) {
		print_message("Landlock has no scope for signals here\n");
		skip();
	}
	assert_int_equal(pipe(ends), 0);
	check_in_child(body_neighbour, ORDINARY, ends);
	close(ends[0]);
	close(ends[1]);
}

static void body_names(enum who who, const void *arg)
{
	(void)who;
	(void)arg;
	sandbox_account(&shared->report.uid, &shared->report.gid);
	CHECK(shared->report.uid != 0 && shared->report.gid != 0);
	CHECK(shared->report.uid != SANDBOX_NO_UID && shared->report.gid != SANDBOX_NO_GID);
}

/* Root that is told to stay root is not in force as a user. */
static void body_told_root(enum who who, const void *arg)
{
	const struct sandbox_options options = {.uid = 0, .gid = 0};

	(void)who;
	(void)arg;
	CHECK(sandbox_enter(&options, &shared->report) == 0);
	CHECK(!(shared->report.in_force & PART(SANDBOX_USER)));
	CHECK(shared->report.in_force & PART(SANDBOX_NO_CAPS));
	CHECK_FAILS(setuid(0), EPERM);
}

/* Without a word on the account it is looked up. */
static void body_any_account(enum who who, const void *arg)
{
	const struct sandbox_options options = {SANDBOX_NO_UID, SANDBOX_NO_GID, 0};
	uid_t uid;
	gid_t gid;

	(void)who;
	(void)arg;
	sandbox_account(&uid, &gid);
	CHECK(sandbox_enter(&options, &shared->report) == 0);
	CHECK(shared->report.uid == uid && shared->report.gid == gid);
}

static void accounts(void **state)
{
	(void)state;
	check_in_child(body_names, ORDINARY, NULL);
	if (!can_be(ROOT))
		skip();
	check_in_child(body_told_root, ROOT, NULL);
	check_in_child(body_any_account, ROOT, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lacks),      cmocka_unit_test(lacks_of_one),
		cmocka_unit_test(describes),  cmocka_unit_test(empty_root),
		cmocka_unit_test(landlock),   cmocka_unit_test(network),
		cmocka_unit_test(privileges), cmocka_unit_test(neighbours),
		cmocka_unit_test(accounts),
	};

	return cmocka_run_group_tests(tests, look_at_kernel, NULL);
}
