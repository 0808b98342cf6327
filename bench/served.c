// SPDX-License-Identifier: MIT
/*
 * The whole program seen from the guest: a front end that does no more than it must, and a driver
 * at work on the rings. The program is started as a process of its own; a line for each figure.
 *
 *     served PROGRAM message N      N messages about pressure, the four levels in turn: ns from the
 *                                   kick to the acknowledgement, "device P50 P99"; before and after
 *                                   them N round trips over the same two eventfds with another
 *                                   process, "eventfd P50 P99", twice
 *     served PROGRAM stats SECONDS  statistics pushed 100 times a second, a monitor client listens:
 *                                   "cpu PERCENT" of a core that parent and worker take, for each
 *                                   second; "alone" instead of "stats": nobody listens
 *     served PROGRAM crash N        its worker is killed N times: ms until a buffer is
 *                                   served again, "crash P50 P99 MAX"
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/le.h"
#include "frontend.h"

#define MEMORY_BYTES (16ULL << 20)
#define RING_SIZE    64U
#define RING_AREA    0x10000ULL
#define BUFFER_AT    0x80000ULL
#define RINGS        4 /* inflate, deflate, statistics, message: without the other features */
#define STATS_RING   2
#define MESSAGE_RING 3
#define FEATURES     "--features=no-free-page-hint,no-page-reporting,stats-push,message"
#define RATE         100 /* statistics a second */

struct served {
	char dir[64], path[96], monitor[96];
	pid_t pid;
	int client;
	struct frontend fe;
	struct driver_ring ring[RINGS];
};

static struct served served = {.pid = -1, .client = -1};

static void clean_up(void)
{
	if (served.pid > 0) {
		kill(served.pid, SIGTERM);
		waitpid(served.pid, NULL, 0);
	}
	if (served.dir[0])
		rmdir(served.dir);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
	struct timespec t = {(time_t)(ns / 1000000000U), (long)(ns % 1000000000U)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

/* --- the program, and the front end's messages -------------------------------------------------
 */

static void start_program(char *program)
{
	char socket_option[128], qmp_option[128], features[] = FEATURES;
	char limit[] = "--message-limit=0", push[] = "--stats-push-interval=10";
	char *argv[] = {program, socket_option, qmp_option, features, limit, push, NULL};

	strcpy(served.dir, "/tmp/aerostat-served-XXXXXX");
	if (!mkdtemp(served.dir))
		frontend_die("directory");
	atexit(clean_up);
	snprintf(served.path, sizeof(served.path), "%s/vhost", served.dir);
	snprintf(served.monitor, sizeof(served.monitor), "%s/qmp", served.dir);
	snprintf(socket_option, sizeof(socket_option), "--socket-path=%s", served.path);
	snprintf(qmp_option, sizeof(qmp_option), "--qmp=%s", served.monitor);
	errno = posix_spawn(&served.pid, program, NULL, NULL, argv, environ);
	if (errno)
		frontend_die(program);
}

static void connect_guest(void)
{
	struct frontend *fe = &served.fe;
	uint64_t features = 1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_BALLOON_F_STATS_VQ |
			    1ULL << VIRTIO_BALLOON_F_STATS_PUSH |
			    1ULL << VIRTIO_BALLOON_F_MESSAGE_VQ;

	frontend_connect(fe, served.path, MEMORY_BYTES);
	if (features & ~fe->offered) {
		errno = ENOTSUP;
		frontend_die("features");
	}
	frontend_set_features(fe, features);
	for (uint32_t i = 0; i < RINGS; i++) {
		driver_ring_init(&served.ring[i], false, false, RING_SIZE, fe->mem + i * RING_AREA);
		frontend_set_ring(fe, i, &served.ring[i], i * RING_AREA);
	}
	frontend_start(fe);
}

/* --- the driver --------------------------------------------------------------------------------
 */

/* Sends what stands in the buffer and waits until it comes back. */
static void send_buffer(uint32_t index, uint32_t len)
{
	struct driver_ring *r = &served.ring[index];
	struct driver_buf buf = {BUFFER_AT + index * 0x1000ULL, len};
	uint32_t written;
	uint16_t id;

	if (driver_ring_add(r, &buf, 1, 1) < 0)
		frontend_die("ring");
	if (driver_ring_should_kick(r))
		frontend_kick(&served.fe, index);
	while (!driver_ring_used(r, &id, &written))
		frontend_wait(&served.fe, index);
}

static uint8_t *buffer(uint32_t index)
{
	return served.fe.mem + BUFFER_AT + index * 0x1000ULL;
}

static void send_message(uint32_t level)
{
	le32_put(buffer(MESSAGE_RING), VIRTIO_BALLOON_MSG_PRESSURE);
	le32_put(buffer(MESSAGE_RING) + 4, level);
	send_buffer(MESSAGE_RING, sizeof(struct virtio_balloon_message));
}

/* All sixteen, as a recent kernel sends them. */
static void send_stats(uint64_t value)
{
	for (uint32_t tag = 0; tag < VIRTIO_BALLOON_S_NR; tag++) {
		le16_put(buffer(STATS_RING) + tag * 10U, (uint16_t)tag);
		le64_put(buffer(STATS_RING) + tag * 10U + 2, value + tag);
	}
	send_buffer(STATS_RING, VIRTIO_BALLOON_S_NR * 10U);
}

/* --- measurements ---------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double quantile(uint64_t *values, size_t n, double q)
{
	qsort(values, n, sizeof(*values), compare);
	return (double)values[(size_t)((double)(n - 1) * q)];
}

static void signal_fd(int fd)
{
	const uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) != sizeof(one))
		frontend_die("eventfd");
}

/* As the driver waits, with a limit. */
static void wait_fd(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t count;

	if (poll(&p, 1, 10000) != 1 || read(fd, &count, sizeof(count)) != sizeof(count))
		frontend_die("eventfd");
}

static void measure_eventfd(uint64_t *ns, size_t n)
{
	int there = eventfd(0, EFD_CLOEXEC), back = eventfd(0, EFD_CLOEXEC);
	pid_t pid = fork();

	if (pid == 0) {
		for (size_t i = 0; i < n; i++) {
			wait_fd(there);
			signal_fd(back);
		}
		_exit(0);
	}
	if (pid < 0)
		frontend_die("fork");
	for (size_t i = 0; i < n; i++) {
		uint64_t start = now_ns();

		signal_fd(there);
		wait_fd(back);
		ns[i] = now_ns() - start;
	}
	waitpid(pid, NULL, 0);
	close(there);
	close(back);
	printf("eventfd %.0f %.0f\n", quantile(ns, n, 0.5), quantile(ns, n, 0.99));
}

static int measure_messages(size_t n)
{
	uint64_t *ns = calloc(n, sizeof(*ns));

	if (!ns)
		frontend_die("measurements");
	measure_eventfd(ns, n);
	for (size_t i = 0; i < n; i++) {
		uint64_t start = now_ns();

		send_message(i % VIRTIO_BALLOON_PRESSURE_NR);
		ns[i] = now_ns() - start;
	}
	printf("device %.0f %.0f\n", quantile(ns, n, 0.5), quantile(ns, n, 0.99));
	measure_eventfd(ns, n);
	free(ns);
	return EXIT_SUCCESS;
}

/* The first number in a file below /proc; 0: there is none. */
static uint64_t number_in(const char *path)
{
	char line[64] = "";
	FILE *file = fopen(path, "re");

	if (!file)
		frontend_die(path);
	if (!fgets(line, sizeof(line), file))
		line[0] = '\0';
	fclose(file);
	return strtoull(line, NULL, 10);
}

/* 0: there is none now. */
static pid_t worker(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)served.pid, (int)served.pid);
	return (pid_t)number_in(path);
}

/* Time on a processor: ns. */
static uint64_t cpu_of(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)pid);
	return number_in(path);
}

static void connect_monitor(void)
{
	static const char hello[] = "{\"execute\": \"qmp_capabilities\"}\n";

	served.client = frontend_dial(served.monitor);
	if (write(served.client, hello, sizeof(hello) - 1) < 0)
		frontend_die("monitor");
}

static void drain_monitor(void)
{
	char buf[65536];

	while (recv(served.client, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
}

static uint64_t cpu_of_program(void)
{
	return cpu_of(served.pid) + cpu_of(worker());
}

/* All that a second has, from the time `start` on. */
static void push_for_a_second(uint64_t start)
{
	for (uint64_t i = 1; i <= RATE; i++) {
		sleep_until(start + i * 1000000000ULL / RATE);
		send_stats(i);
		if (served.client >= 0)
			drain_monitor();
	}
}

static int measure_alone(size_t seconds)
{
	uint64_t start, cpu, now, last;

	push_for_a_second(now_ns());
	start = now_ns();
	cpu = cpu_of_program();
	for (size_t i = 0; i < seconds; i++) {
		last = start;
		push_for_a_second(start);
		start = now_ns();
		now = cpu_of_program();
		printf("cpu %.4f\n", 100.0 * (double)(now - cpu) / (double)(start - last));
		cpu = now;
	}
	return EXIT_SUCCESS;
}

static int measure_stats(size_t seconds)
{
	connect_monitor();
	return measure_alone(seconds);
}

static int measure_crashes(size_t n)
{
	uint64_t *ns = calloc(n, sizeof(*ns));

	if (!ns)
		frontend_die("measurements");
	for (size_t i = 0; i < n; i++) {
		uint64_t start;
		pid_t pid;

		send_message(1);
		while ((pid = worker()) == 0)
			usleep(1000);
		usleep((useconds_t)(i % 7) * 3000);
		start = now_ns();
		if (kill(pid, SIGKILL) < 0)
			frontend_die("kill");
		/* Sent to nobody at first. */
		send_message(2);
		ns[i] = now_ns() - start;
	}
	printf("crash %.3f %.3f %.3f\n", quantile(ns, n, 0.5) / 1e6, quantile(ns, n, 0.99) / 1e6,
	       quantile(ns, n, 1.0) / 1e6);
	free(ns);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*measure)(size_t n);
	} modes[] = {
		{"message", measure_messages},
		{"stats", measure_stats},
		{"alone", measure_alone},
		{"crash", measure_crashes},
	};
	long n = argc == 4 ? strtol(argv[3], NULL, 10) : 0;

	for (size_t i = 0; n > 0 && i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(modes[i].name, argv[2]) != 0)
			continue;
		start_program(argv[1]);
		connect_guest();
		return modes[i].measure((size_t)n);
	}
	fprintf(stderr, "usage: served PROGRAM message|stats|alone|crash N\n");
	return EXIT_FAILURE;
}
