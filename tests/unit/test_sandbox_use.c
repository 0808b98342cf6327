// SPDX-License-Identifier: MIT
/*
 * What must work in the sandbox: all that the worker does, and the libraries for it. Also what goes
 * wrong there must go wrong as it should.
 */
#include "sandbox_helpers.h"

#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <uv.h>
#ifdef SANDBOX_SANITIZED
#include <sanitizer/common_interface_defs.h>
#endif

#define PAGE  4096U
#define BYTES (64U * PAGE)

static int shared_file(void)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);
	uint8_t byte = 1;

	CHECK(fd >= 0 && ftruncate(fd, BYTES) == 0);
	for (uint32_t i = 0; i < BYTES; i += PAGE)
		CHECK(pwrite(fd, &byte, 1, i) == 1);
	return fd;
}

static void use_memory(int fd)
{
	uint8_t *map = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct stat before, after;
	struct statfs fs;
	char *large, *larger;

	CHECK(map != MAP_FAILED && fstat(fd, &before) == 0 && fstatfs(fd, &fs) == 0);
	CHECK(map[PAGE] == 1);
	CHECK(madvise(map, BYTES, MADV_DONTDUMP) == 0);
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE, PAGE) == 0);
	CHECK(fstat(fd, &after) == 0);
	CHECK(before.st_blocks - after.st_blocks == PAGE / 512);
	CHECK(lseek(fd, 0, SEEK_HOLE) == PAGE);
	CHECK(map[PAGE] == 0 && map[0] == 1);
	CHECK(madvise(map + 2 * PAGE, PAGE, MADV_REMOVE) == 0 && map[2 * PAGE] == 0);
	CHECK(munmap(map, BYTES) == 0);
	large = malloc(64U << 20);
	CHECK(large);
	memset(large, 1, 64U << 20);
	larger = realloc(large, 128U << 20);
	CHECK(larger && larger[(64U << 20) - 1] == 1);
	free(larger);
	for (uint32_t i = 1; i < 4096; i++)
		free(malloc(i * 16));
}

static void use_events(int loop, int event)
{
	struct pollfd p = {.fd = event, .events = POLLIN};
	struct epoll_event e = {.events = EPOLLIN};
	uint64_t value = 3;
	struct timespec now;
	int flags, copy;

	CHECK(write(event, &value, sizeof(value)) == sizeof(value));
	CHECK(poll(&p, 1, 0) == 1);
	CHECK(epoll_ctl(loop, EPOLL_CTL_ADD, event, &e) == 0);
	CHECK(epoll_wait(loop, &e, 1, 1000) == 1);
	CHECK(epoll_ctl(loop, EPOLL_CTL_DEL, event, NULL) == 0);
	copy = dup3(event, 300, O_CLOEXEC);
	CHECK(copy == 300);
	flags = fcntl(copy, F_GETFL);
	CHECK(flags >= 0 && fcntl(copy, F_SETFL, flags | O_NONBLOCK) == 0);
	CHECK(read(copy, &value, sizeof(value)) == sizeof(value) && value == 3);
	CHECK_FAILS(read(copy, &value, sizeof(value)), EAGAIN);
	CHECK(ioctl(copy, FIONBIO, &(int){0}) == 0);
	CHECK(close(copy) == 0);
	CHECK(getrandom(&value, sizeof(value), 0) == sizeof(value));
	CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0 && now.tv_sec >= 0);
}

/* The parent has sent a descriptor of memory over the socket. */
static void use_socket(int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	int received;

	CHECK(recvmsg(fd, &msg, MSG_CMSG_CLOEXEC) == 1);
	CHECK(msg.msg_controllen >= CMSG_LEN(sizeof(int)));
	memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(received));
	use_memory(received);
	msg.msg_control = NULL;
	msg.msg_controllen = 0;
	CHECK(sendmsg(fd, &msg, MSG_NOSIGNAL) == 1);
	CHECK(send(fd, "x", 1, MSG_NOSIGNAL) == 1);
}

static void send_fd(int socket, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {.align = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	struct iovec iov = {(char[]){"x"}, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};

	memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	CHECK(sendmsg(socket, &msg, 0) == 1);
}

static void body_works(enum who who, const void *arg)
{
	int memory = shared_file(), loop = epoll_create1(0), event = eventfd(0, 0), pair[2];

	(void)arg;
	CHECK(loop >= 0 && event >= 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	send_fd(pair[0], memory);
	enter_fully(who);
	use_events(loop, event);
	use_socket(pair[1]);
}

static void works(void **state)
{
	(void)state;
	check_for_all(body_works, NULL);
}

static uint8_t *vanished;

static void on_bus_error(int sig)
{
	(void)sig;
	if (mmap(vanished, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) == MAP_FAILED)
		_exit(2);
	signal(SIGBUS, SIG_DFL);
}

/* Memory that a front end has taken back. */
static void body_bus_error(enum who who, const void *arg)
{
	const struct sigaction action = {.sa_handler = on_bus_error};
	int fd = shared_file();

	(void)arg;
	vanished = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(vanished != MAP_FAILED);
	sigaction(SIGBUS, &action, NULL);
	CHECK(ftruncate(fd, 0) == 0);
	enter_fully(who);
	CHECK(*(volatile uint8_t *)vanished == 0);
}

static void body_abort(enum who who, const void *arg)
{
	(void)arg;
	enter_fully(who);
	abort();
}

static void signals(void **state)
{
	int status;

	(void)state;
	check_for_all(body_bus_error, NULL);
	status = end_of_child(start_child(body_abort, ORDINARY, NULL));
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_false(WCOREDUMP(status));
}

/* Stopped and going on in the middle of a call that then is done again, by a call of its own. */
static void body_stopped(enum who who, const void *arg)
{
	const int *fd = arg;
	struct pollfd nothing = {.fd = fd[0], .events = POLLIN};
	char byte = 'r';

	enter_fully(who);
	CHECK(write(fd[1], &byte, 1) == 1);
	CHECK(poll(&nothing, 1, 300) == 0);
}

static void stopped(void **state)
{
	int never[2], ready[2];
	char byte;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(never), 0);
	assert_int_equal(pipe(ready), 0);
	pid = start_child(body_stopped, ORDINARY, (const int[]){never[0], ready[1]});
	close(ready[1]);
	if (read(ready[0], &byte, 1) == 1) {
		usleep(20000);
		kill(pid, SIGSTOP);
		usleep(20000);
		kill(pid, SIGCONT);
	}
	check_child(ORDINARY, pid);
	close(ready[0]);
	close(never[0]);
	close(never[1]);
}

#ifdef SANDBOX_SANITIZED
/* What the sanitizer finds it can still say, and says it where it can. */
static void body_overflow(enum who who, const void *arg)
{
	/* By a call, which no other check of the compiler's sees first. */
	void *(*volatile fill)(void *, int, size_t) = memset;
	char *p = malloc(8);

	CHECK(p && dup2(*(const int *)arg, STDERR_FILENO) >= 0);
	__sanitizer_set_report_path("/tmp/aerostat-sandbox-report"); /* as the test runner has it */
	enter_fully(who);
	fill(p, 1, 40);
}

static void sanitizer_reports(void **state)
{
	char text[4096] = "";
	size_t len = 0;
	int fds[2], status;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	pid = start_child(body_overflow, ORDINARY, &fds[1]);
	close(fds[1]);
	for (ssize_t n = 1; n > 0 && len < sizeof(text) - 1; len += (size_t)n) {
		n = read(fds[0], text + len, sizeof(text) - 1 - len);
		assert_true(n >= 0);
	}
	close(fds[0]);
	status = end_of_child(pid);
	assert_true(status != 0);
	assert_non_null(strstr(text, "heap-buffer-overflow"));
	assert_non_null(strstr(text, "allocated by"));
}
#else
static void sanitizer_reports(void **state)
{
	(void)state;
	print_message("not built with AddressSanitizer\n");
	skip();
}
#endif

/* --- The libraries --- */

struct traffic {
	uv_loop_t loop;
	uv_poll_t poll;
	uv_timer_t timer;
	uv_pipe_t pipe;
	uv_write_t write;
	char in[64];
	int event, ticks, kicks;
	size_t read;
};

static void on_tick(uv_timer_t *timer)
{
	struct traffic *t = timer->data;
	const uint64_t one = 1;

	if (++t->ticks == 3)
		uv_timer_stop(timer);
	CHECK(write(t->event, &one, sizeof(one)) == sizeof(one));
}

static void on_kick(uv_poll_t *poll, int status, int events)
{
	struct traffic *t = poll->data;
	uint64_t value;

	CHECK(status == 0 && events == UV_READABLE);
	CHECK(read(t->event, &value, sizeof(value)) == sizeof(value));
	if (++t->kicks == 3)
		uv_close((uv_handle_t *)poll, NULL);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct traffic *t = handle->data;

	(void)suggested;
	*buf = uv_buf_init(t->in, sizeof(t->in));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct traffic *t = stream->data;
	struct json_object *parsed;

	if (n < 0) {
		CHECK(n == UV_EOF);
		uv_close((uv_handle_t *)stream, NULL);
		return;
	}
	buf->base[n] = '\0';
	parsed = json_tokener_parse(buf->base);
	CHECK(parsed && json_object_object_get(parsed, "execute"));
	CHECK(strstr(json_object_to_json_string(parsed), "qmp_capabilities"));
	json_object_put(parsed);
	t->read += (size_t)n;
}

static void on_written(uv_write_t *write, int status)
{
	(void)write;
	CHECK(status == 0);
}

/* A loop like the worker's, with clients that come later; *arg: it is made within. */
static void body_libraries(enum who who, const void *arg)
{
	static const char command[] = "{\"execute\": \"qmp_capabilities\"}";
	static struct traffic t;
	uv_buf_t buf = uv_buf_init((char[]){"hello"}, 5);
	char answer[5];
	const bool within = *(const bool *)arg;
	int pair[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	if (within)
		enter_fully(who);
	CHECK(uv_loop_init(&t.loop) == 0);
	t.event = eventfd(0, EFD_NONBLOCK);
	CHECK(t.event >= 0);
	if (!within)
		enter_fully(who);
	uv_timer_init(&t.loop, &t.timer);
	CHECK(uv_poll_init(&t.loop, &t.poll, t.event) == 0);
	CHECK(uv_pipe_init(&t.loop, &t.pipe, 0) == 0 && uv_pipe_open(&t.pipe, pair[0]) == 0);
	t.timer.data = t.poll.data = t.pipe.data = &t;
	uv_timer_start(&t.timer, on_tick, 1, 1);
	uv_poll_start(&t.poll, UV_READABLE, on_kick);
	CHECK(uv_read_start((uv_stream_t *)&t.pipe, on_alloc, on_read) == 0);
	CHECK(uv_write(&t.write, (uv_stream_t *)&t.pipe, &buf, 1, on_written) == 0);
	CHECK(write(pair[1], command, sizeof(command) - 1) == sizeof(command) - 1);
	CHECK(read(pair[1], answer, sizeof(answer)) == sizeof(answer));
	CHECK(shutdown(pair[1], SHUT_WR) == 0);
	uv_run(&t.loop, UV_RUN_DEFAULT);
	CHECK(t.ticks == 3 && t.kicks == 3 && t.read == sizeof(command) - 1);
	uv_close((uv_handle_t *)&t.timer, NULL);
	uv_run(&t.loop, UV_RUN_DEFAULT);
	CHECK(uv_loop_close(&t.loop) == 0);
}

static void libraries(void **state)
{
	(void)state;
	check_for_all(body_libraries, &(bool){false});
	check_for_all(body_libraries, &(bool){true});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(works),     cmocka_unit_test(signals),
		cmocka_unit_test(stopped),   cmocka_unit_test(sanitizer_reports),
		cmocka_unit_test(libraries),
	};

	return cmocka_run_group_tests(tests, say_who, NULL);
}
