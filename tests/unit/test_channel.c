// SPDX-License-Identifier: MIT
/* What parent and worker say to each other. The modules are part of a program: compiled in. */
#include "helpers.h"

#include <fcntl.h>

#include "../../src/vhost-user-balloon/channel.c"
#include "../../src/vhost-user-balloon/settings.c"

struct ends {
	int parent;
	int worker;
};

static int setup(void **state)
{
	struct ends *e = calloc(1, sizeof(*e));
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
	e->parent = pair[0];
	e->worker = pair[1];
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct ends *e = *state;

	close(e->parent);
	close(e->worker);
	free(e);
	return 0;
}

/* How many descriptors this process has: none may be left behind. */
static int open_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static int get(int fd, enum channel_side from, struct channel_message *m, int *fds, uint32_t *n)
{
	memset(m, 0xee, sizeof(*m));
	return channel_receive(fd, from, m, fds, n);
}

static void nothing_and_the_end(void **state)
{
	struct ends *e = *state;
	struct channel_message m;
	int fds[CHANNEL_FDS_MAX];
	uint32_t n;

	assert_int_equal(get(e->worker, CHANNEL_PARENT, &m, fds, &n), -EAGAIN);
	close(e->parent);
	assert_int_equal(get(e->worker, CHANNEL_PARENT, &m, fds, &n), -ECONNRESET);
	m.type = CHANNEL_QUIT;
	assert_int_equal(channel_send(e->worker, &m, NULL, 0), -EPIPE);
	e->parent = dup(e->worker);
}

static void events_carry_bytes_and_descriptors(void **state)
{
	const struct ends *e = *state;
	struct channel_message m = {.type = CHANNEL_EVENT}, got;
	int fds[VU_FDS_MAX], back[CHANNEL_FDS_MAX], before = open_fds();
	uint32_t n;

	m.u.event.seq = 1ULL << 40;
	m.u.event.kind = CHANNEL_MESSAGE;
	m.u.event.len = CHANNEL_BYTES_MAX;
	memset(m.u.event.bytes, 0x5a, CHANNEL_BYTES_MAX);
	m.u.event.n_slots = VU_FDS_MAX;
	for (uint32_t i = 0; i < VU_FDS_MAX; i++) {
		m.u.event.slot[i] = (uint8_t)(CHANNEL_SLOT_COUNT - 1 - i);
		fds[i] = e->worker;
	}
	assert_int_equal(channel_send(e->parent, &m, fds, VU_FDS_MAX), 0);
	assert_int_equal(get(e->worker, CHANNEL_PARENT, &got, back, &n), 0);
	assert_int_equal(got.type, CHANNEL_EVENT);
	assert_memory_equal(&got.u.event, &m.u.event, sizeof(m.u.event));
	assert_int_equal(n, VU_FDS_MAX);
	assert_int_equal(open_fds(), before + (int)n);
	for (uint32_t i = 0; i < n; i++) {
		assert_int_equal(fcntl(back[i], F_GETFD), FD_CLOEXEC);
		close(back[i]);
	}
}

/* What makes no sense is refused whoever sends it, and no descriptor stays. */
static void refused(const struct ends *e, const struct channel_message *m, uint32_t n_fds)
{
	int fds[CHANNEL_FDS_MAX], before = open_fds();
	struct channel_message got;
	enum channel_side from = rows[m->type].from;
	uint32_t n = n_fds;

	for (uint32_t i = 0; i < n_fds; i++)
		fds[i] = e->worker;
	assert_int_equal(
		channel_send(from == CHANNEL_PARENT ? e->parent : e->worker, m, fds, n_fds), 0);
	assert_int_equal(get(from == CHANNEL_PARENT ? e->worker : e->parent, from, &got, fds, &n),
			 -EPROTO);
	assert_int_equal(n, 0);
	assert_int_equal(open_fds(), before);
}

static void bodies_are_checked(void **state)
{
	const struct ends *e = *state;
	struct channel_message m;

#define CASE(kind, statement, fds)        \
	do {                              \
		memset(&m, 0, sizeof(m)); \
		m.type = kind;            \
		statement;                \
		refused(e, &m, fds);      \
	} while (0)
	CASE(CHANNEL_EVENT, m.u.event.kind = CHANNEL_EVENT_KINDS, 0);
	CASE(CHANNEL_EVENT, m.u.event.len = CHANNEL_BYTES_MAX + 1, 0);
	CASE(CHANNEL_EVENT, m.u.event.n_slots = 1, 0);
	CASE(CHANNEL_EVENT, m.u.event.n_slots = 0, 1);
	CASE(CHANNEL_EVENT, m.u.event.n_slots = VU_FDS_MAX + 1, VU_FDS_MAX + 1);
	CASE(CHANNEL_EVENT, (m.u.event.n_slots = 1, m.u.event.slot[0] = CHANNEL_SLOT_COUNT), 1);
	CASE(CHANNEL_SLOTS, m.u.slots.n = 2, 1);
	CASE(CHANNEL_SLOTS, (m.u.slots.n = 1, m.u.slots.slot[0] = 0xff), 1);
	CASE(CHANNEL_CLIENT, m.u.client.id = CHANNEL_CLIENT_COUNT, 1);
	CASE(CHANNEL_CLIENT, m.u.client.id = 0, 0);
	CASE(CHANNEL_GO, (void)0, 1);
	CASE(CHANNEL_START, memset(m.u.start.reason, 'x', CHANNEL_REASON_MAX), 0);
	CASE(CHANNEL_START, m.u.start.settings.n_inhibitors = 1, 0);
	CASE(CHANNEL_DONE, m.u.report.reply_len = CHANNEL_REPLY_MAX + 1, 0);
	CASE(CHANNEL_STATE, m.u.report.reply_len = UINT32_MAX, 0);
	CASE(CHANNEL_CLIENT_GONE, m.u.client.id = CHANNEL_CLIENT_COUNT, 0);
	CASE(CHANNEL_SETTINGS, m.u.settings.n_inhibitors = UINT32_MAX, 0);
	/* A worker has no descriptors to give. */
	CASE(CHANNEL_QUIT, (void)0, 1);
	CASE(CHANNEL_DONE, (void)0, 1);
#undef CASE
}

static void raw(const struct ends *e, const void *bytes, size_t len)
{
	struct channel_message got;
	int fds[CHANNEL_FDS_MAX];
	uint32_t n;

	assert_int_equal(send(e->worker, bytes, len, 0), len);
	assert_int_equal(get(e->parent, CHANNEL_WORKER, &got, fds, &n), -EPROTO);
}

static void sizes_and_directions_are_checked(void **state)
{
	static const uint8_t zeros[sizeof(struct channel_message) + 64];
	const struct ends *e = *state;
	const uint32_t quit = CHANNEL_QUIT, unknown = CHANNEL_TYPE_COUNT, event = CHANNEL_EVENT;
	struct channel_message stop = {.type = CHANNEL_STOP};
	uint8_t long_quit[5] = {0};

	raw(e, &quit, 1);
	raw(e, &unknown, sizeof(unknown));
	raw(e, &event, sizeof(event));
	memcpy(long_quit, &quit, sizeof(quit));
	raw(e, long_quit, sizeof(long_quit));
	raw(e, zeros, sizeof(zeros));
	/* A worker cannot stop its parent, however well-formed it says so. */
	raw(e, &(uint32_t){CHANNEL_STOP}, sizeof(uint32_t));
	assert_int_equal(channel_send(e->parent, &stop, NULL, 0), 0);
}

/* A worker that reads nothing does not hold its parent up. */
static void a_full_channel(void **state)
{
	const struct ends *e = *state;
	const struct channel_message m = {.type = CHANNEL_DONE};
	struct channel_message got;
	int fds[CHANNEL_FDS_MAX], r, sent = 0, taken = 0;
	uint32_t n;

	while ((r = channel_send(e->worker, &m, NULL, 0)) == 0)
		sent++;
	assert_int_equal(r, -EAGAIN);
	while (get(e->parent, CHANNEL_WORKER, &got, fds, &n) == 0)
		taken++;
	assert_int_equal(taken, sent);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(nothing_and_the_end), TEST(events_carry_bytes_and_descriptors),
		TEST(bodies_are_checked),  TEST(sizes_and_directions_are_checked),
		TEST(a_full_channel),
	};

	return cmocka_run_group_tests_name("channel", tests, NULL, NULL);
}
