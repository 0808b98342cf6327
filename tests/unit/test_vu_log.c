// SPDX-License-Identifier: MIT
/* The dirty log: what may be one, which writes come into it, and when it changes under way. */
#include <signal.h>
#include <sys/socket.h>

#include "vhost_user/socket.h"
#include "vu_helpers.h"

static struct test_front f;

#define USED_GPA    (FRONT_GPA + 2ULL * PAGE) /* of ring 0 */
#define LOG_BYTES   PAGE                      /* for 128 MiB */
#define F_LOGGED    (F_PROTOCOL | F_LOG)
#define PAGE_OF(at) ((at) / PAGE)

static int log_file; /* the front end's */
static uint8_t *bits;

static int memfd(uint64_t size)
{
	int fd = memfd_create("log", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* SET_LOG_BASE; what feed said. A reply of its own, whether one was asked for or not. */
static int send_log(uint64_t size, uint64_t offset, int fd)
{
	struct vu_log_area area = {size, offset};
	struct vu_header header = {0};
	union vu_payload payload;
	int r = front_send(&f, VU_SET_LOG_BASE, &area, sizeof(area), fd);

	assert_int_equal(front_reply(&f, &header, &payload), r == 0);
	if (!r) {
		assert_int_equal(header.request, VU_SET_LOG_BASE);
		assert_int_equal(header.size, 8);
		assert_int_equal(payload.u64, 0);
	}
	return r;
}

static void make_log(uint64_t size)
{
	log_file = memfd(size);
	bits = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, log_file, 0);
	assert_true(bits != MAP_FAILED);
}

static void drop_log(uint64_t size)
{
	munmap(bits, size);
	close(log_file);
}

/* How many pages are marked; and then none. */
static uint32_t marked(uint64_t size)
{
	uint32_t n = 0;

	for (uint64_t i = 0; i < size * 8; i++)
		n += bits[i / 8] >> i % 8 & 1;
	memset(bits, 0, size);
	return n;
}

static bool is_marked(uint64_t gpa)
{
	return bits[PAGE_OF(gpa) / 8] >> PAGE_OF(gpa) % 8 & 1;
}

static int send_addr(uint32_t index, bool log, uint64_t gpa)
{
	struct vu_vring_addr addr = front_addr(index);

	addr.flags = log ? VU_VRING_F_LOG : 0;
	addr.log = gpa;
	return front_send(&f, VU_SET_VRING_ADDR, &addr, sizeof(addr), -1);
}

/* A session in which ring 0 runs, with its flag for logging as told. */
static void begin(uint64_t features, bool flag)
{
	front_negotiate(&f, features);
	front_memory(&f);
	front_ring_prepare(&f, 0, features & F_PACKED ? 0x80008000U : 0);
	assert_int_equal(send_addr(0, flag, USED_GPA), 0);
	front_enable(&f, 0, true);
	assert_true(front_runs(&f, 0));
	f.resets = 0;
}

/* threats.md, socket, line 13: offset and size that wrap, or reach past the end of the file. */
static void log_offset_and_size(void **state)
{
	static const struct {
		uint64_t size, offset;
		const char *error;
	} cases[] = {
		{4 * PAGE, 0, NULL},
		{1, 4 * PAGE - 1, NULL},
		{PAGE, PAGE + 8, NULL},
		{0, 0, "dirty log cannot be mapped"},
		{4 * PAGE + 1, 0, "dirty log is larger than its file"},
		{4 * PAGE, 1, "dirty log is larger than its file"},
		{1, 4 * PAGE, "dirty log is larger than its file"},
		{PAGE, 1ULL << 62, "dirty log is larger than its file"},
		{UINT64_MAX, 0, "dirty log is larger than its file"},
		{PAGE, UINT64_MAX, "dirty log cannot be mapped"},
		{UINT64_MAX, PAGE, "dirty log cannot be mapped"},
		{1ULL << 63, 1ULL << 63, "dirty log cannot be mapped"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int before = front_count_fds(), fd = memfd(4 * PAGE);

		front_negotiate(&f, F_LOGGED);
		assert_int_equal(send_log(cases[i].size, cases[i].offset, fd),
				 cases[i].error ? -EPROTO : 0);
		if (cases[i].error)
			assert_string_equal(f.s.error, cases[i].error);
		assert_int_equal(is_open(fd), !cases[i].error);
		front_end(&f);
		assert_int_equal(front_count_fds(), before);
	}
}

static void wrong_kind_of_log(void **state)
{
	int before = front_count_fds();

	(void)state;
	for (int kind = 0; kind < 7; kind++) {
		int pair[2], fd = -1;

		assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
		if (kind < 2)
			fd = dup(pair[kind]);
		else if (kind == 2)
			fd = eventfd(0, EFD_CLOEXEC);
		else if (kind == 3)
			fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
		else if (kind == 4)
			fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		else if (kind == 5)
			fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		else
			fd = memfd(PAGE);
		if (kind == 6)
			assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
		front_negotiate(&f, F_LOGGED);
		assert_int_equal(send_log(PAGE, 0, fd), -EPROTO);
		assert_false(is_open(fd));
		front_end(&f);
		close(pair[0]);
		close(pair[1]);
	}
	assert_int_equal(front_count_fds(), before);
}

/* A ring logs if LOG_ALL is acknowledged, its flag is set, and there is a log; not otherwise. */
static void all_three(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 16; i++) {
		bool all = i & 1, flag = i & 2, log = i & 4, late = i & 8;

		make_log(LOG_BYTES);
		if (late) {
			begin(all ? F_LOGGED : F_PROTOCOL, flag);
			if (log)
				assert_int_equal(send_log(LOG_BYTES, 0, dup(log_file)), 0);
		} else {
			front_negotiate(&f, all ? F_LOGGED : F_PROTOCOL);
			if (log)
				assert_int_equal(send_log(LOG_BYTES, 0, dup(log_file)), 0);
			front_memory(&f);
			front_ring_prepare(&f, 0, 0);
			assert_int_equal(send_addr(0, flag, USED_GPA), 0);
			front_enable(&f, 0, true);
		}
		front_serve(&f, 0, 3);
		assert_int_equal(is_marked(USED_GPA), all && flag && log);
		assert_int_equal(marked(LOG_BYTES), all && flag && log);
		front_end(&f);
		drop_log(LOG_BYTES);
	}
}

/* The bit is the session's own: the device never hears of it. */
static void own_bit(void **state)
{
	(void)state;
	front_negotiate(&f, F_LOGGED | F_V1);
	assert_true(f.features == F_V1);
	assert_true(f.s.features >> VHOST_F_LOG_ALL & 1);
	front_end(&f);
}

/* As a migration does: log, LOG_ALL, flags; later all of it back. The ring runs on meanwhile. */
static void switched_while_running(void **state)
{
	(void)state;
	make_log(LOG_BYTES);
	begin(F_PROTOCOL, false);
	for (int round = 0; round < 3; round++) {
		front_serve(&f, 0, 1);
		assert_int_equal(send_log(LOG_BYTES, 0, dup(log_file)), 0);
		front_serve(&f, 0, 1);
		assert_int_equal(front_send_u64(&f, VU_SET_FEATURES, F_LOGGED, -1), 0);
		front_serve(&f, 0, 1);
		assert_int_equal(marked(LOG_BYTES), 0);
		assert_int_equal(send_addr(0, true, USED_GPA), 0);
		front_serve(&f, 0, 1);
		assert_int_equal(marked(LOG_BYTES), 1);
		/* The rings' log may lie anywhere that is in the log. */
		assert_int_equal(send_addr(0, true, LOG_BYTES * 8ULL * PAGE - PAGE), 0);
		front_serve(&f, 0, 1);
		assert_true(is_marked(LOG_BYTES * 8ULL * PAGE - PAGE));
		assert_int_equal(marked(LOG_BYTES), 1);
		if (round == 1)
			assert_int_equal(send_addr(0, false, USED_GPA), 0);
		else
			assert_int_equal(front_send_u64(&f, VU_SET_FEATURES, F_PROTOCOL, -1), 0);
		front_serve(&f, 0, 1);
		assert_int_equal(marked(LOG_BYTES), 0);
		assert_int_equal(send_addr(0, false, 0), 0);
		assert_int_equal(front_send_u64(&f, VU_SET_FEATURES, F_PROTOCOL, -1), 0);
	}
	assert_int_equal(f.started[0], 1);
	assert_int_equal(f.stopped[0], 0);
	assert_int_equal(f.resets, 0);
	front_end(&f);
	drop_log(LOG_BYTES);
}

/* Other addresses are another matter, whatever the flags say. */
static void other_addresses(void **state)
{
	struct vu_vring_addr addr = front_addr(1);

	(void)state;
	begin(F_LOGGED, false);
	addr.index = 0;
	addr.flags = VU_VRING_F_LOG;
	assert_int_equal(front_send(&f, VU_SET_VRING_ADDR, &addr, sizeof(addr), -1), 0);
	assert_false(front_runs(&f, 0));
	assert_int_equal(f.resets, 1);
	front_end(&f);
}

/* Another log in the place of the first, also one whose beginning is nowhere near a page. */
static void replaced(void **state)
{
	const uint64_t offset = 3 * PAGE + 5;
	int first = memfd(LOG_BYTES), second = memfd(offset + LOG_BYTES), mine = dup(first);
	uint8_t byte = 0;

	(void)state;
	begin(F_LOGGED, true);
	assert_int_equal(send_log(LOG_BYTES, 0, first), 0);
	front_serve(&f, 0, 1);
	assert_int_equal(pread(mine, &byte, 1, (off_t)(PAGE_OF(USED_GPA) / 8)), 1);
	assert_int_equal(byte, 1U << PAGE_OF(USED_GPA) % 8);
	assert_int_equal(ftruncate(mine, 0), 0); /* nobody touches it any more, from here on */
	assert_int_equal(send_log(LOG_BYTES, offset, second), 0);
	assert_false(is_open(first));
	front_serve(&f, 0, 1);
	assert_int_equal(pread(second, &byte, 1, (off_t)(offset + PAGE_OF(USED_GPA) / 8)), 1);
	assert_int_equal(byte, 1U << PAGE_OF(USED_GPA) % 8);
	front_end(&f);
	assert_false(is_open(second));
	close(mine);
}

/* One that is no good leaves the old one where it is until the session ends. */
static void replaced_by_a_bad_one(void **state)
{
	int first = memfd(LOG_BYTES);

	(void)state;
	begin(F_LOGGED, true);
	assert_int_equal(send_log(LOG_BYTES, 0, first), 0);
	assert_int_equal(send_log(LOG_BYTES + 1, 0, memfd(LOG_BYTES)), -EPROTO);
	assert_true(is_open(first));
	front_serve(&f, 0, 1);
	front_end(&f);
	assert_false(is_open(first));
}

/* A log that has no bit for what a ring writes is no log: whichever of the messages comes last. */
static void too_short_for_a_ring(void **state)
{
	static const char error[] = "dirty log is too short for a vring";
	/* The used ring of 8 entries has 70 bytes. */
	const uint64_t end = LOG_BYTES * 8ULL * PAGE;
	const uint64_t gpas[] = {end - 69, end, UINT64_MAX - 69, UINT64_MAX};

	(void)state;
	make_log(LOG_BYTES);
	begin(F_LOGGED, false);
	assert_int_equal(send_log(LOG_BYTES, 0, dup(log_file)), 0);
	assert_int_equal(send_addr(0, true, end - 70), 0);
	front_serve(&f, 0, 8);
	front_end(&f);
	for (size_t i = 0; i < ARRAY_SIZE(gpas); i++) {
		begin(F_LOGGED, false);
		assert_int_equal(send_log(LOG_BYTES, 0, dup(log_file)), 0);
		assert_int_equal(send_addr(0, true, gpas[i]), -EPROTO);
		assert_string_equal(f.s.error, error);
		front_end(&f);

		begin(F_PROTOCOL, false);
		assert_int_equal(send_log(LOG_BYTES, 0, dup(log_file)), 0);
		assert_int_equal(send_addr(0, true, gpas[i]), 0);
		assert_int_equal(front_send_u64(&f, VU_SET_FEATURES, F_LOGGED, -1), -EPROTO);
		assert_string_equal(f.s.error, error);
		front_end(&f);

		begin(F_LOGGED, false);
		assert_int_equal(send_addr(0, true, gpas[i]), 0);
		assert_int_equal(send_log(LOG_BYTES, 0, dup(log_file)), -EPROTO);
		assert_string_equal(f.s.error, error);
		front_end(&f);

		begin(F_LOGGED, false);
		front_enable(&f, 0, false);
		assert_int_equal(send_addr(0, true, gpas[i]), 0);
		assert_int_equal(send_log(LOG_BYTES, 0, dup(log_file)), 0);
		assert_int_equal(front_send_state(&f, VU_SET_VRING_ENABLE, 0, 1), -EPROTO);
		assert_string_equal(f.s.error, error);
		assert_false(front_runs(&f, 0));
		front_end(&f);
	}
	drop_log(LOG_BYTES);
}

/* A packed ring is written in place; where that is for the guest, the memory table says. */
static void packed_ring(void **state)
{
	const uint64_t enough = PAGE_OF(FRONT_GPA + 3ULL * PAGE) / 8 + 1;

	(void)state;
	make_log(LOG_BYTES);
	begin(F_LOGGED | F_PACKED, true);
	assert_int_equal(send_log(LOG_BYTES, 0, dup(log_file)), 0);
	front_serve(&f, 0, 1);
	assert_true(is_marked(FRONT_GPA));
	assert_int_equal(marked(LOG_BYTES), 1);
	assert_int_equal(send_log(enough, 0, dup(log_file)), 0);
	front_serve(&f, 0, 1);
	assert_true(is_marked(FRONT_GPA));
	assert_int_equal(send_log(PAGE_OF(FRONT_GPA) / 8, 0, dup(log_file)), -EPROTO);
	assert_string_equal(f.s.error, "dirty log is too short for a vring");
	front_end(&f);
	drop_log(LOG_BYTES);
}

/* ... and may say otherwise later. */
static void packed_ring_moves_out_of_the_log(void **state)
{
	const struct vu_mem_region low = front_region().region;
	struct vu_mem_table table = {.n = 1, .region[0] = low};
	const uint32_t size = 8 + sizeof(table.region[0]);

	(void)state;
	make_log(LOG_BYTES);
	begin(F_LOGGED | F_PACKED, true);
	assert_int_equal(send_log(LOG_BYTES, 0, dup(log_file)), 0);
	table.region[0].gpa = LOG_BYTES * 8ULL * PAGE - FRONT_PAGES * PAGE;
	assert_int_equal(front_send(&f, VU_SET_MEM_TABLE, &table, size, dup(f.memory)), 0);
	/* The guest's side of this ring is elsewhere too: only the device writes to it here. */
	(void)vq_enable_kicks(&f.s.ring[0].vq);
	assert_true(is_marked(table.region[0].gpa + 2ULL * PAGE));
	assert_int_equal(marked(LOG_BYTES), 1);
	table.region[0].gpa += LOG_BYTES * 8ULL * PAGE;
	assert_int_equal(front_send(&f, VU_SET_MEM_TABLE, &table, size, dup(f.memory)), -EPROTO);
	assert_string_equal(f.s.error, "dirty log is too short for a vring");
	front_end(&f);
	drop_log(LOG_BYTES);
}

static volatile sig_atomic_t patched;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (vu_session_patch(&f.s, info->si_addr))
		patched = 1;
	else
		signal(sig, SIG_DFL);
}

/* threats.md, socket, line 14, for the log: its file is truncated while the rings run. */
static void log_truncated_later(void **state)
{
	const struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
	struct sigaction old;
	uint8_t local;

	(void)state;
	make_log(LOG_BYTES);
	begin(F_LOGGED, true);
	assert_int_equal(send_log(LOG_BYTES - 8, 8, dup(log_file)), 0);
	assert_false(vu_session_patch(&f.s, &local));
	assert_false(vu_session_patch(&f.s, bits));
	assert_int_equal(sigaction(SIGBUS, &action, &old), 0);
	assert_int_equal(ftruncate(log_file, 0), 0);
	patched = 0;
	front_serve(&f, 0, 1);
	assert_true(patched);
	patched = 0;
	front_serve(&f, 0, 1);
	assert_false(patched);
	/* Guest memory is as it was. */
	assert_int_equal(le16_get(f.map + 2 * PAGE + VRING_USED_IDX), 2);
	assert_int_equal(sigaction(SIGBUS, &old, NULL), 0);
	front_end(&f);
	drop_log(LOG_BYTES);
}

static uint64_t taken(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

/* The front end's eventfd: signalled after a ring that logs was run. */
static void log_signal(void **state)
{
	int fd, another = eventfd(0, EFD_CLOEXEC), mine = dup(another);

	(void)state;
	make_log(LOG_BYTES);
	begin(F_LOGGED, true);
	fd = eventfd(0, EFD_CLOEXEC);
	vu_socket_signal_log(&f.s, 0); /* to nobody */
	assert_int_equal(front_send(&f, VU_SET_LOG_FD, NULL, 0, fd), 0);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	vu_socket_signal_log(&f.s, 0);
	assert_int_equal(taken(fd), 0);
	assert_int_equal(send_log(LOG_BYTES, 0, dup(log_file)), 0);
	vu_socket_signal_log(&f.s, 0);
	vu_socket_signal_log(&f.s, 1); /* does not run */
	assert_int_equal(taken(fd), 1);
	assert_int_equal(front_send(&f, VU_SET_LOG_FD, NULL, 0, another), 0);
	assert_false(is_open(fd));
	vu_socket_signal_log(&f.s, 0);
	assert_int_equal(taken(mine), 1);
	front_end(&f);
	assert_false(is_open(another));
	close(mine);
	drop_log(LOG_BYTES);
}

static void wrong_kind_of_signal(void **state)
{
	int before = front_count_fds();

	(void)state;
	for (int kind = 0; kind < 3; kind++) {
		int fd = kind == 0   ? memfd(PAGE)
			 : kind == 1 ? open("/dev/null", O_RDWR | O_CLOEXEC)
				     : open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		front_negotiate(&f, F_LOGGED);
		assert_int_equal(front_send(&f, VU_SET_LOG_FD, NULL, 0, fd), -EPROTO);
		front_end(&f);
	}
	assert_int_equal(front_count_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(log_offset_and_size),
		cmocka_unit_test(wrong_kind_of_log),
		cmocka_unit_test(all_three),
		cmocka_unit_test(own_bit),
		cmocka_unit_test(switched_while_running),
		cmocka_unit_test(other_addresses),
		cmocka_unit_test(replaced),
		cmocka_unit_test(replaced_by_a_bad_one),
		cmocka_unit_test(too_short_for_a_ring),
		cmocka_unit_test(packed_ring),
		cmocka_unit_test(packed_ring_moves_out_of_the_log),
		cmocka_unit_test(log_truncated_later),
		cmocka_unit_test(log_signal),
		cmocka_unit_test(wrong_kind_of_signal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
