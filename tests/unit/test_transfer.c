// SPDX-License-Identifier: MIT
/* A balloon's state through pipes and sockets, by a real event loop. */
#include "helpers.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "../../src/vhost-user-balloon/transfer.h"

#define V1      BIT(VIRTIO_F_VERSION_1)
#define PAGES   (1U << 20) /* of the guest */
#define MESSAGE BIT(VIRTIO_BALLOON_F_MESSAGE_VQ)

/* One side: a device. */
struct side {
	struct test_balloon t;
	struct transfer transfer;
	uint32_t released;
	int result; /* of memory_changed */
};

static uv_loop_t loop;
static struct side here, there;

static int on_memory_changed(void *opaque)
{
	struct side *s = opaque;

	if (s->result)
		s->t.mem.n = 0;
	test_balloon_memory(&s->t);
	return s->result;
}

static void on_released(void *opaque)
{
	((struct side *)opaque)->released++;
}

static void side_init(struct side *s, uint64_t offered)
{
	static const struct transfer_ops ops = {.memory_changed = on_memory_changed,
						.released = on_released};

	test_balloon_init(&s->t, offered);
	test_add_region(&s->t.mem, 0, (uint64_t)PAGES * PAGE, PAGE, s->t.queues);
	test_balloon_memory(&s->t);
	s->released = 0;
	s->result = 0;
	transfer_init(&s->transfer, &loop, &s->t.b, &ops, s);
}

static void side_end(struct side *s)
{
	transfer_stop(&s->transfer);
	assert_int_equal(s->transfer.fd, -1);
	test_balloon_end(&s->t);
}

static int begin(void **state)
{
	(void)state;
	assert_int_equal(uv_loop_init(&loop), 0);
	side_init(&here, MESSAGE);
	side_init(&there, 0);
	return 0;
}

static int end(void **state)
{
	(void)state;
	side_end(&here);
	side_end(&there);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	return 0;
}

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Holds every other page of the guest, or one in 4096: 128 KiB of bitmap, or little of it. */
static void inflate(uint32_t step)
{
	for (uint32_t page = 0; page < PAGES; page += step)
		pageset_set(&here.t.b.held, 0, page, 1);
	here.t.b.st.actual = PAGES / step;
	here.t.b.st.negotiated = V1;
}

enum channel {
	PIPE,
	SMALL_PIPE,
	SOCKETS,
	CHANNELS,
};

/* pair[0] for reading, pair[1] for writing. */
static void make(enum channel channel, int *pair)
{
	if (channel == SOCKETS) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		return;
	}
	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	if (channel == SMALL_PIPE)
		assert_true(fcntl(pair[1], F_SETPIPE_SZ, 4096) > 0);
}

/* The front ends between: all of a stream into a file. */
static int collect(int fd)
{
	int file = memfd_create("stream", MFD_CLOEXEC);
	uint8_t buf[5000];

	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	for (;;) {
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n == 0)
			break;
		if (n > 0)
			assert_int_equal(write(file, buf, (size_t)n), n);
		else
			assert_int_equal(errno, EAGAIN);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	close(fd);
	assert_int_equal(lseek(file, 0, SEEK_SET), 0);
	return file;
}

/* ... and out of it again, as far as `limit`, or what fits. Closes neither. */
static void send_file(int file, int fd, size_t limit)
{
	uint8_t buf[3000];
	size_t sent = 0;

	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	while (sent < limit) {
		ssize_t n = pread(file, buf, min_u64(sizeof(buf), limit - sent), (off_t)sent), m;

		if (n <= 0)
			break;
		m = write(fd, buf, (size_t)n);
		if (m < 0 && errno == EPIPE)
			break;
		if (m > 0)
			sent += (size_t)m;
		else
			assert_int_equal(errno, EAGAIN);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
}

static int saved(enum channel channel)
{
	int pair[2], file;

	make(channel, pair);
	assert_int_equal(transfer_start(&here.transfer, false, pair[1]), 0);
	if (channel == SOCKETS)
		shutdown(pair[0], SHUT_WR);
	file = collect(pair[0]);
	assert_int_equal(here.transfer.state, TRANSFER_SAVED);
	assert_int_equal(here.transfer.fd, -1);
	assert_true(fcntl(pair[1], F_GETFD) < 0);
	assert_int_equal(here.released, 1);
	assert_int_equal(transfer_check(&here.transfer), 0);
	return file;
}

static void whole_way(void **state)
{
	static const uint32_t steps[] = {2, 4096};

	for (int channel = 0; channel < CHANNELS; channel++) {
		for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
			int before, pair[2], file;

			begin(state);
			before = count_fds();
			inflate(steps[i]);
			file = saved((enum channel)channel);
			make((enum channel)channel, pair);
			assert_int_equal(transfer_start(&there.transfer, true, pair[0]), 0);
			send_file(file, pair[1], SIZE_MAX);
			assert_int_equal(there.t.b.held.count, 0); /* not yet */
			close(pair[1]);
			assert_int_equal(transfer_check(&there.transfer), 0);
			assert_int_equal(there.transfer.state, TRANSFER_APPLIED);
			assert_int_equal(there.t.b.held.count, PAGES / steps[i]);
			assert_memory_equal(there.t.b.held.map, here.t.b.held.map, PAGES / 8);
			assert_int_equal(there.t.b.st.actual, PAGES / steps[i]);
			assert_int_equal(there.released, 1);
			close(file);
			uv_run(&loop, UV_RUN_NOWAIT);
			assert_int_equal(count_fds(), before);
			end(state);
		}
	}
}

/* All of it is in the pipe when it is asked for, and the event loop has had no turn. */
static void check_reads_what_is_there(void **state)
{
	int pair[2], file;

	(void)state;
	inflate(4096);
	file = saved(PIPE);
	make(PIPE, pair);
	send_file(file, pair[1], SIZE_MAX);
	close(pair[1]);
	assert_int_equal(transfer_start(&there.transfer, true, pair[0]), 0);
	assert_int_equal(transfer_check(&there.transfer), 0);
	assert_int_equal(there.t.b.held.count, 256);
	/* Asked again, it is as it was. */
	assert_int_equal(transfer_check(&there.transfer), 0);
	close(file);
}

/* The loop came to the end of it before it was asked for: there is nothing to be read any more. */
static void read_before_the_check(void **state)
{
	int pair[2], file;

	(void)state;
	inflate(4096);
	file = saved(PIPE);
	make(PIPE, pair);
	assert_int_equal(transfer_start(&there.transfer, true, pair[0]), 0);
	send_file(file, pair[1], SIZE_MAX);
	close(pair[1]);
	for (int i = 0; i < 10; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(there.transfer.state, TRANSFER_READ);
	assert_int_equal(there.released, 1);
	assert_int_equal(there.t.b.held.count, 0);
	assert_int_equal(there.t.b.st.actual, 0);
	assert_int_equal(transfer_check(&there.transfer), 0);
	assert_int_equal(there.t.b.held.count, 256);
	close(file);
}

static void nothing_to_check(void **state)
{
	(void)state;
	assert_int_equal(transfer_check(&here.transfer), -ENODATA);
	transfer_stop(&here.transfer);
	transfer_stop(&here.transfer);
	assert_int_equal(transfer_check(&here.transfer), -ENODATA);
	transfer_hold(&here.transfer);
	transfer_forget(&here.transfer);
	assert_int_equal(here.released, 0);
}

/* The front end asks before it has read, or ended, the stream. The descriptor is given up. */
static void checked_too_early(void **state)
{
	int pair[2];

	(void)state;
	inflate(2);
	make(PIPE, pair);
	assert_int_equal(transfer_start(&here.transfer, false, pair[1]), 0);
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(transfer_check(&here.transfer), -EAGAIN);
	assert_true(fcntl(pair[1], F_GETFD) < 0);
	assert_int_equal(transfer_check(&here.transfer), -EAGAIN);
	close(pair[0]);
	make(PIPE, pair);
	assert_int_equal(transfer_start(&there.transfer, true, pair[0]), 0);
	assert_int_equal(write(pair[1], "AEROSTAT", 8), 8);
	assert_int_equal(transfer_check(&there.transfer), -EAGAIN);
	assert_true(fcntl(pair[0], F_GETFD) < 0);
	close(pair[1]);
}

/* threats.md: a descriptor that was made to block again keeps nobody waiting. */
static void descriptors_that_block(void **state)
{
	int pair[2], theirs;

	(void)state;
	inflate(2);
	for (int channel = 0; channel < CHANNELS; channel++) {
		make((enum channel)channel, pair);
		theirs = dup(pair[1]);
		assert_int_equal(transfer_start(&here.transfer, false, pair[1]), 0);
		assert_int_equal(fcntl(theirs, F_SETFL, 0), 0);
		for (int i = 0; i < 100; i++)
			uv_run(&loop, UV_RUN_NOWAIT); /* to where it is full */
		assert_int_equal(here.transfer.state, TRANSFER_SAVING);
		assert_int_equal(transfer_check(&here.transfer), -EAGAIN);
		close(theirs);
		close(pair[0]);
		make((enum channel)channel, pair);
		theirs = dup(pair[0]);
		assert_int_equal(transfer_start(&there.transfer, true, pair[0]), 0);
		assert_int_equal(fcntl(theirs, F_SETFL, 0), 0);
		assert_int_equal(transfer_check(&there.transfer), -EAGAIN);
		close(theirs);
		close(pair[1]);
	}
}

static void other_side_is_gone(void **state)
{
	int pair[2];

	(void)state;
	inflate(2);
	for (int channel = 0; channel < CHANNELS; channel++) {
		make((enum channel)channel, pair);
		assert_int_equal(transfer_start(&here.transfer, false, pair[1]), 0);
		close(pair[0]);
		for (int i = 0; i < 10; i++)
			uv_run(&loop, UV_RUN_NOWAIT);
		assert_int_equal(here.transfer.state, TRANSFER_FAILED);
		assert_int_equal(here.transfer.fd, -1);
		assert_int_equal(transfer_check(&here.transfer), -EPIPE);
	}
}

/* A stream that is cut, or none at all: told as soon as it is known, and nothing comes of it. */
static void bad_streams(void **state)
{
	int pair[2], file, garbage = memfd_create("garbage", MFD_CLOEXEC);

	(void)state;
	inflate(4096);
	file = saved(PIPE);
	assert_int_equal(ftruncate(garbage, 1 << 20), 0);
	there.t.b.st.actual = 77;
	for (int kind = 0; kind < 3; kind++) {
		make(PIPE, pair);
		assert_int_equal(transfer_start(&there.transfer, true, pair[0]), 0);
		if (kind < 2)
			send_file(file, pair[1], kind ? 1000 : 0);
		else
			send_file(garbage, pair[1], SIZE_MAX);
		assert_int_equal(there.transfer.state,
				 kind < 2 ? TRANSFER_LOADING : TRANSFER_FAILED);
		close(pair[1]);
		assert_int_equal(transfer_check(&there.transfer), -EBADMSG);
		assert_int_equal(there.transfer.fd, -1);
		assert_null(there.transfer.map);
		assert_int_equal(there.t.b.st.actual, 77);
		assert_int_equal(there.t.b.held.count, 0);
	}
	close(file);
	close(garbage);
}

/* Whoever writes for ever does not keep the check for ever. */
static void endless_stream(void **state)
{
	/* A beginning, and a section that may be passed over, of 4 GiB. */
	static const uint8_t head[] = {'A', 'E', 'R', 'O',  'S',  'T',  'A',  'T',
				       1,   0,   0,   0,    0,    0,    0,    0,
				       1,   0,   0,   0x80, 0xff, 0xff, 0xff, 0xff};
	int pair[2], status;
	pid_t writer;

	(void)state;
	make(PIPE, pair);
	writer = fork();
	if (writer == 0) {
		static uint8_t zeros[1 << 16];

		signal(SIGPIPE, SIG_DFL);
		close(pair[0]);
		if (write(pair[1], head, sizeof(head)) < 0)
			_exit(1);
		while (write(pair[1], zeros, sizeof(zeros)) > 0)
			;
		_exit(1);
	}
	assert_true(writer > 0);
	close(pair[1]);
	assert_int_equal(transfer_start(&there.transfer, true, pair[0]), 0);
	assert_int_equal(transfer_check(&there.transfer), -EAGAIN);
	assert_int_equal(waitpid(writer, &status, 0), writer);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
}

/* A connection to a socket with a name: such as the front end's own. */
static int connection(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, "transfer-%d", getpid());
	assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(listener);
	return fd;
}

/* threats.md, socket, line 13: descriptors of the wrong kind, or for the other direction. */
static void wrong_descriptors(void **state)
{
	int before = count_fds();

	(void)state;
	for (int kind = 0; kind < 6; kind++) {
		for (int load = 0; load < 2; load++) {
			int pair[2], fd = -1;

			make(PIPE, pair);
			if (kind == 0)
				fd = dup(pair[load]); /* the wrong end */
			else if (kind == 1)
				fd = memfd_create("file", MFD_CLOEXEC);
			else if (kind == 2)
				fd = eventfd(0, EFD_CLOEXEC);
			else if (kind == 3)
				fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
			else if (kind == 4)
				fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			else
				fd = connection();
			assert_int_equal(transfer_start(&here.transfer, load, fd), -EBADF);
			assert_true(fcntl(fd, F_GETFD) < 0);
			assert_int_equal(transfer_check(&here.transfer), -EBADF);
			close(pair[0]);
			close(pair[1]);
		}
	}
	assert_int_equal(count_fds(), before);
}

/* A second one takes the first one's place; a stop, a reset or other memory ends what is on. */
static void given_up(void **state)
{
	int first[2], second[2];

	(void)state;
	inflate(2);
	make(PIPE, first);
	make(PIPE, second);
	assert_int_equal(transfer_start(&here.transfer, false, first[1]), 0);
	assert_int_equal(transfer_start(&here.transfer, false, second[1]), 0);
	assert_true(fcntl(first[1], F_GETFD) < 0);
	transfer_stop(&here.transfer);
	assert_true(fcntl(second[1], F_GETFD) < 0);
	assert_int_equal(transfer_check(&here.transfer), -ENODATA);
	close(first[0]);
	close(second[0]);
	for (int how = 0; how < 2; how++) {
		make(PIPE, first);
		assert_int_equal(transfer_start(&here.transfer, false, first[1]), 0);
		uv_run(&loop, UV_RUN_NOWAIT);
		if (how == 0)
			transfer_hold(&here.transfer);
		else
			transfer_forget(&here.transfer);
		assert_int_equal(transfer_check(&here.transfer), -EBUSY);
		close(first[0]);
	}
}

/* Loads what `here` has; what the check says. */
static int move(void)
{
	int pair[2], file = saved(PIPE), r;

	make(PIPE, pair);
	assert_int_equal(transfer_start(&there.transfer, true, pair[0]), 0);
	send_file(file, pair[1], SIZE_MAX);
	close(pair[1]);
	r = transfer_check(&there.transfer);
	close(file);
	return r;
}

/* Memory comes in pieces after the state; with a reset, or a ring that starts, that is over. */
static void memory_after_the_state(void **state)
{
	for (int how = 0; how < 2; how++) {
		begin(state);
		inflate(4096);
		there.t.mem.n = 0;
		test_balloon_memory(&there.t);
		assert_int_equal(move(), 0);
		assert_int_equal(there.t.b.held.count, 0);
		for (uint32_t pages = 1; pages <= PAGES; pages *= 16) {
			there.t.mem.n = 1;
			there.t.mem.region[0].size = (uint64_t)pages * PAGE;
			transfer_hold(&there.transfer);
			test_balloon_memory(&there.t);
			assert_int_equal(there.t.b.held.count, (pages + 4095) / 4096);
		}
		if (how)
			transfer_forget(&there.transfer);
		else
			transfer_stop(&there.transfer);
		pageset_clear(&there.t.b.held);
		transfer_hold(&there.transfer);
		test_balloon_memory(&there.t);
		assert_int_equal(there.t.b.held.count, 0);
		end(state);
	}
}

static void features_that_do_not_fit(void **state)
{
	(void)state;
	inflate(4096);
	here.t.b.st.negotiated = V1 | MESSAGE;
	assert_int_equal(move(), -ENOTSUP);
	assert_int_equal(there.t.b.st.actual, 0);
	assert_int_equal(there.t.b.held.count, 0);
	assert_null(there.transfer.map);
}

static void no_room_for_the_bitmap(void **state)
{
	(void)state;
	inflate(4096);
	there.result = -ENOMEM;
	assert_int_equal(move(), -ENOMEM);
	assert_int_equal(there.t.b.st.actual, 0);
	assert_int_equal(there.t.b.held.count, 0);
	assert_int_equal(transfer_check(&there.transfer), -ENOMEM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_way),
		cmocka_unit_test_setup_teardown(check_reads_what_is_there, begin, end),
		cmocka_unit_test_setup_teardown(read_before_the_check, begin, end),
		cmocka_unit_test_setup_teardown(nothing_to_check, begin, end),
		cmocka_unit_test_setup_teardown(checked_too_early, begin, end),
		cmocka_unit_test_setup_teardown(descriptors_that_block, begin, end),
		cmocka_unit_test_setup_teardown(other_side_is_gone, begin, end),
		cmocka_unit_test_setup_teardown(bad_streams, begin, end),
		cmocka_unit_test_setup_teardown(endless_stream, begin, end),
		cmocka_unit_test_setup_teardown(wrong_descriptors, begin, end),
		cmocka_unit_test_setup_teardown(given_up, begin, end),
		cmocka_unit_test(memory_after_the_state),
		cmocka_unit_test_setup_teardown(features_that_do_not_fit, begin, end),
		cmocka_unit_test_setup_teardown(no_room_for_the_bitmap, begin, end),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
