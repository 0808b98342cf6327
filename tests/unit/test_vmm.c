// SPDX-License-Identifier: MIT
/*
 * The parent's side of the front end: each message once, each reply once, however often the worker
 * dies. The modules are part of a program: compiled in; the tests play VMM and worker.
 */
#include "helpers.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/eventfd.h>

#include "../../src/vhost-user-balloon/framer.c"
#include "../../src/vhost-user-balloon/vmm.c"

void log_limited(const char *fmt, ...)
{
	(void)fmt;
}

int unix_socket_accept(int fd)
{
	(void)fd;
	return -EAGAIN;
}

struct scene {
	struct vmm vmm;
	int peer; /* the VMM's end; -1: closed */
	int fds[VU_FDS_MAX];
	uint64_t handled; /* by the worker that the test plays */
	uint64_t session;
};

static int open_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* What is due now; there must be something. */
static const struct channel_message *due(struct scene *s)
{
	const struct channel_message *m = vmm_due(&s->vmm, s->fds);

	if (!m) {
		fail_msg("nothing is due");
		abort(); /* not reached, which compilers do not know */
	}
	return m;
}

/* What the worker is to deal with next; it must be of that kind. */
static const struct channel_event *next(struct scene *s, enum channel_event_kind kind)
{
	const struct channel_message *m = NULL;

	for (int i = 0; i < 8 && !(m = vmm_due(&s->vmm, s->fds)); i++) {
		struct pollfd p = vmm_wanted(&s->vmm, 0);

		if (p.fd >= 0 && poll(&p, 1, 0) == 1)
			vmm_ready(&s->vmm, 0);
	}
	m = due(s);
	assert_int_equal(m->u.event.kind, kind);
	vmm_was_sent(&s->vmm);
	assert_null(vmm_due(&s->vmm, s->fds));
	return &m->u.event;
}

static void nothing_due(struct scene *s)
{
	for (int i = 0; i < 8; i++) {
		struct pollfd p = vmm_wanted(&s->vmm, 0);

		if (p.fd >= 0 && poll(&p, 1, 0) == 1)
			vmm_ready(&s->vmm, 0);
		assert_null(vmm_due(&s->vmm, s->fds));
	}
}

static bool report(struct scene *s, enum channel_type type, const char *reply)
{
	struct channel_report r = {.handled = s->handled, .session = s->session};

	r.reply_len = (uint32_t)strlen(reply);
	memcpy(r.reply, reply, r.reply_len);
	return vmm_report(&s->vmm, type, &r);
}

/* The worker deals with what it was given. */
static void served(struct scene *s, const struct channel_event *e, const char *reply)
{
	s->handled = e->seq;
	if (e->kind == CHANNEL_BEGIN)
		s->session = e->seq;
	if (e->kind == CHANNEL_END)
		s->session = 0;
	assert_true(report(s, CHANNEL_DONE, reply));
}

static int setup(void **state)
{
	struct scene *s = calloc(1, sizeof(*s));
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	vmm_init(&s->vmm);
	assert_int_equal(vmm_serve(&s->vmm, pair[0]), 0);
	s->peer = pair[1];
	served(s, next(s, CHANNEL_BEGIN), "");
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct scene *s = *state;

	vmm_close(&s->vmm);
	if (s->peer >= 0)
		close(s->peer);
	free(s);
	return 0;
}

static void put(const struct scene *s, const void *bytes, size_t len, int n_fds)
{
	union {
		char buf[CMSG_SPACE(300 * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {(void *)(uintptr_t)bytes, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	int fd = eventfd(0, EFD_CLOEXEC);

	if (n_fds) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE((size_t)n_fds * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN((size_t)n_fds * sizeof(int));
		for (int i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(&control.align) + (size_t)i * sizeof(int), &fd,
			       sizeof(fd));
	}
	assert_int_equal(sendmsg(s->peer, &msg, 0), len);
	close(fd);
}

static void put_message(const struct scene *s, uint32_t request, int n_fds)
{
	struct {
		struct vu_header header;
		uint64_t payload;
	} __attribute__((packed)) m = {{request, VU_FLAG_VERSION, sizeof(uint64_t)}, request};

	put(s, &m, sizeof(m), n_fds);
}

static uint32_t request_of(const struct channel_event *e)
{
	struct vu_header header;

	memcpy(&header, e->bytes, sizeof(header));
	return header.request;
}

static void heard(const struct scene *s, const char *reply)
{
	char buf[64];
	ssize_t n = recv(s->peer, buf, sizeof(buf), MSG_DONTWAIT);

	if (!*reply) {
		assert_int_equal(n, -1);
		return;
	}
	assert_int_equal(n, strlen(reply));
	assert_memory_equal(buf, reply, strlen(reply));
}

static void one_message_at_a_time(void **state)
{
	struct scene *s = *state;
	const struct channel_event *e;

	put_message(s, 1, 0);
	put_message(s, 2, 0);
	e = next(s, CHANNEL_MESSAGE);
	assert_int_equal(request_of(e), 1);
	nothing_due(s);
	served(s, e, "one");
	heard(s, "one");
	e = next(s, CHANNEL_MESSAGE);
	assert_int_equal(request_of(e), 2);
	assert_int_equal(e->seq, 3);
	served(s, e, "");
	heard(s, "");
	nothing_due(s);
}

/* It died before the message had its effect: the next one gets the same. */
static void given_to_the_successor(void **state)
{
	struct scene *s = *state;
	const struct channel_event *e;
	uint64_t seq;

	put_message(s, 5, 2);
	e = next(s, CHANNEL_MESSAGE);
	seq = e->seq;
	for (int i = 0; i < 10; i++) {
		assert_null(vmm_worker_gone(&s->vmm, false));
		assert_true(report(s, CHANNEL_READY, "an older reply"));
		heard(s, "");
		e = next(s, CHANNEL_MESSAGE);
		assert_int_equal(e->seq, seq);
		assert_int_equal(request_of(e), 5);
		assert_int_equal(e->n_slots, 2);
		assert_true(fcntl(s->fds[0], F_GETFD) >= 0 && fcntl(s->fds[1], F_GETFD) >= 0);
	}
	served(s, e, "reply");
	heard(s, "reply");
	nothing_due(s);
}

/* It died after it: the successor says so, and has the reply. */
static void not_given_twice(void **state)
{
	struct scene *s = *state;
	const struct channel_event *e;

	put_message(s, 5, 0);
	e = next(s, CHANNEL_MESSAGE);
	assert_null(vmm_worker_gone(&s->vmm, true));
	s->handled = e->seq;
	assert_true(report(s, CHANNEL_READY, "reply"));
	heard(s, "reply");
	nothing_due(s);
	/* The same again tells nothing new: the reply is out. */
	assert_null(vmm_worker_gone(&s->vmm, false));
	assert_true(report(s, CHANNEL_READY, "reply"));
	heard(s, "");
	nothing_due(s);
}

static void descriptors_have_one_owner(void **state)
{
	struct scene *s = *state;
	const struct channel_event *e;
	struct channel_report r = {0};
	int before = open_fds();
	uint8_t kept;

	put_message(s, 5, 3);
	e = next(s, CHANNEL_MESSAGE);
	assert_int_equal(open_fds(), before + 3);
	kept = e->slot[1];
	/* What was reported before the event does not know of its descriptors. */
	assert_true(report(s, CHANNEL_STATE, ""));
	assert_int_equal(open_fds(), before + 3);
	r.handled = s->handled = e->seq;
	r.session = s->session;
	r.in_use[kept / 64] = 1ULL << kept % 64;
	assert_true(vmm_report(&s->vmm, CHANNEL_DONE, &r));
	assert_int_equal(open_fds(), before + 1);
	r.in_use[kept / 64] = 0;
	assert_true(vmm_report(&s->vmm, CHANNEL_STATE, &r));
	assert_int_equal(open_fds(), before);
}

static void slots_run_out(void **state)
{
	struct scene *s = *state;
	struct channel_report r = {.in_use = {UINT64_MAX, UINT64_MAX}};
	const struct channel_event *e;
	int before = open_fds();

	r.session = s->session;
	for (uint32_t i = 0; i < CHANNEL_SLOT_COUNT / VU_FDS_MAX; i++) {
		put_message(s, 5, VU_FDS_MAX);
		r.handled = s->handled = next(s, CHANNEL_MESSAGE)->seq;
		assert_true(vmm_report(&s->vmm, CHANNEL_DONE, &r));
	}
	assert_int_equal(open_fds(), before + (int)CHANNEL_SLOT_COUNT);
	put_message(s, 5, 1);
	e = next(s, CHANNEL_END);
	assert_int_equal(e->seq, s->handled + 1);
	served(s, e, "");
	/* Everything of the session is gone, and its socket. */
	assert_int_equal(open_fds(), before - 1);
	assert_true(vmm_finished(&s->vmm));
}

static void ended_with(struct scene *s, const char *reason)
{
	const struct channel_event *e = next(s, CHANNEL_END);

	assert_int_equal(e->len, strlen(reason));
	assert_memory_equal(e->bytes, reason, e->len);
	assert_int_equal(s->vmm.fd, -1);
	assert_false(vmm_finished(&s->vmm));
	served(s, e, "");
	assert_true(vmm_finished(&s->vmm));
}

static void the_vmm_goes(void **state)
{
	struct scene *s = *state;
	int before = open_fds();

	/* In the middle of a message that has descriptors. */
	put(s, "\1\0\0\0\1", 5, 2);
	nothing_due(s);
	assert_int_equal(open_fds(), before + 2);
	close(s->peer);
	s->peer = -1;
	ended_with(s, "the VMM closed the connection");
	assert_int_equal(open_fds(), before - 2);
}

static void descriptors_in_the_middle(void **state)
{
	struct scene *s = *state;

	put(s, "\1", 1, 1);
	nothing_due(s);
	put(s, "\0", 1, 1);
	ended_with(s, "file descriptors in the middle of a message");
}

static void too_many_descriptors(void **state)
{
	struct scene *s = *state;
	int before = open_fds();

	put(s, "\1", 1, 253);
	ended_with(s, "too many file descriptors with a message");
	assert_int_equal(open_fds(), before - 1);
}

/* A header whose payload does not come is looked at by the worker, once. */
static void a_header_alone(void **state)
{
	const struct vu_header header = {7, VU_FLAG_VERSION, sizeof(uint64_t)};
	struct scene *s = *state;
	const struct channel_event *e;

	put(s, &header, sizeof(header), 1);
	e = next(s, CHANNEL_HEADER);
	assert_int_equal(e->len, sizeof(header));
	assert_int_equal(e->n_slots, 0);
	served(s, e, "");
	nothing_due(s);
	put(s, "12345678", 8, 0);
	e = next(s, CHANNEL_MESSAGE);
	assert_int_equal(e->len, sizeof(header) + 8);
	assert_int_equal(e->n_slots, 1);
	served(s, e, "");

	/* The worker ends the session over it, with an error that is still delivered. */
	put(s, &header, sizeof(header), 0);
	e = next(s, CHANNEL_HEADER);
	s->session = 0;
	s->handled = e->seq;
	assert_true(report(s, CHANNEL_DONE, "error"));
	heard(s, "error");
	assert_true(vmm_finished(&s->vmm));
}

static void an_oversized_message(void **state)
{
	const struct vu_header header = {7, VU_FLAG_VERSION, CHANNEL_BYTES_MAX};
	struct scene *s = *state;

	put(s, &header, sizeof(header), 0);
	/* Even if the worker finds it good. */
	served(s, next(s, CHANNEL_HEADER), "");
	put(s, "1", 1, 0);
	ended_with(s, "oversized message");
}

static void the_worker_ends_the_session(void **state)
{
	struct scene *s = *state;

	put_message(s, 5, 0);
	s->session = 0;
	assert_true(report(s, CHANNEL_STATE, ""));
	assert_true(vmm_finished(&s->vmm));
	nothing_due(s);
}

static void a_message_that_kills(void **state)
{
	struct scene *s = *state;
	uint64_t seq;

	put_message(s, 5, 1);
	for (int i = 0; i < 2; i++) {
		seq = next(s, CHANNEL_MESSAGE)->seq;
		assert_null(vmm_worker_gone(&s->vmm, true));
		assert_true(report(s, CHANNEL_READY, ""));
		/* A death for another reason in between does not count. */
		assert_int_equal(next(s, CHANNEL_MESSAGE)->seq, seq);
		assert_null(vmm_worker_gone(&s->vmm, false));
		assert_true(report(s, CHANNEL_READY, ""));
	}
	seq = next(s, CHANNEL_MESSAGE)->seq;
	assert_non_null(vmm_worker_gone(&s->vmm, true));
	assert_true(report(s, CHANNEL_READY, ""));
	assert_int_equal(due(s)->u.event.seq, seq);
	ended_with(s, "the device died of one of its messages, several times");
}

/* Replies that nobody takes hold up nobody but their front end. */
static void replies_that_are_not_read(void **state)
{
	struct scene *s = *state;
	char reply[CHANNEL_REPLY_MAX + 1];
	int filler = 0;

	memset(reply, 'x', sizeof(reply) - 1);
	reply[sizeof(reply) - 1] = '\0';
	while (send(s->vmm.fd, reply, sizeof(reply), MSG_DONTWAIT) > 0)
		filler++;
	put_message(s, 1, 0);
	put_message(s, 2, 0);
	served(s, next(s, CHANNEL_MESSAGE), reply);
	assert_int_equal(vmm_wanted(&s->vmm, 0).events, POLLOUT);
	nothing_due(s);
	while (filler--)
		assert_true(recv(s->peer, reply, sizeof(reply), MSG_WAITALL) > 0);
	assert_int_equal(request_of(next(s, CHANNEL_MESSAGE)), 2);
}

static void a_worker_that_says_what_cannot_be(void **state)
{
	struct scene *s = *state;
	struct channel_report r = {.session = s->session};

	r.handled = s->handled + 1;
	assert_false(vmm_report(&s->vmm, CHANNEL_STATE, &r));
	put_message(s, 5, 0);
	(void)next(s, CHANNEL_MESSAGE);
	r.handled = s->handled;
	assert_false(vmm_report(&s->vmm, CHANNEL_DONE, &r));
	r.handled = s->handled + 2;
	assert_false(vmm_report(&s->vmm, CHANNEL_READY, &r));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_message_at_a_time),
		TEST(given_to_the_successor),
		TEST(not_given_twice),
		TEST(descriptors_have_one_owner),
		TEST(slots_run_out),
		TEST(the_vmm_goes),
		TEST(descriptors_in_the_middle),
		TEST(too_many_descriptors),
		TEST(a_header_alone),
		TEST(an_oversized_message),
		TEST(the_worker_ends_the_session),
		TEST(a_message_that_kills),
		TEST(replies_that_are_not_read),
		TEST(a_worker_that_says_what_cannot_be),
	};

	return cmocka_run_group_tests_name("vmm", tests, NULL, NULL);
}
