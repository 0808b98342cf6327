// SPDX-License-Identifier: MIT
/*
 * The device path alone: buffers of PFNs through a real ring into lib/balloon, and from there to
 * the kernel, in one process. What it costs is set against what the kernel alone costs.
 *
 *     device time STREAM ROUNDS   1 GiB of touched memfd; for each round a line of seconds: by the
 *                                 device, by punching the same merged ranges, by one punch a page
 *     device run STREAM PAGES     only the device, discarding nothing: to count instructions
 *
 * STREAM: in-order, reverse or shuffled. Memory is touched through a mapping of its own, as a
 * guest's is; the device's stays untouched.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "balloon/balloon.h"
#include "base/le.h"
#include "driver/ring.h"
#include "reclaim.h"

#define PAGE        4096ULL
#define GUEST_BYTES (1ULL << 30)
#define PAGES       (GUEST_BYTES / PAGE)
#define ARRAY       256U /* PFNs a buffer, as the stock Linux driver sends them */
#define RING_SIZE   128U
#define LOW_GPA     0x10000000000ULL /* rings and buffers, away from the memory to be ballooned */
#define LOW_BYTES   0x10000ULL

enum stream { IN_ORDER, REVERSE, SHUFFLED };

struct bench {
	struct balloon balloon;
	struct vq vq[VIRTIO_BALLOON_VQ_COUNT];
	struct driver_ring ring;
	struct vu_memory memory;
	struct reclaim reclaim;
	bool discarding;
	uint8_t *low;   /* the device's and the driver's, both */
	uint8_t *guest; /* the guest's mapping of memory */
	int fd;
	uint32_t *pfn;
};

static struct bench bench;

static void die(const char *what)
{
	fprintf(stderr, "device: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t on_discard(void *opaque, const struct balloon_range *ranges, uint32_t n)
{
	struct bench *b = opaque;

	return b->discarding ? reclaim_discard(&b->reclaim, ranges, n) : 0;
}

static void on_config_changed(void *opaque)
{
	(void)opaque;
}

static void on_queue(void *opaque, uint32_t queue)
{
	(void)opaque;
	(void)queue;
}

static void on_event(void *opaque, enum balloon_event event)
{
	(void)opaque;
	(void)event;
}

static void on_commit(void *opaque)
{
	(void)opaque;
}

static const struct balloon_ops ops = {on_discard, on_config_changed, on_queue,
				       on_queue,   on_event,          on_commit};

static void add_memory(struct bench *b, uint64_t gpa, uint64_t size, int fd)
{
	struct vu_mem_region r = {.gpa = gpa, .size = size, .uaddr = gpa};

	errno = -vu_memory_add(&b->memory, &r, fd);
	if (errno)
		die("memory");
}

static int make_memory(uint64_t size)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		die("memfd");
	return fd;
}

static void set_up(struct bench *b)
{
	int low = make_memory(LOW_BYTES);
	struct vq *vq = &b->vq[VIRTIO_BALLOON_VQ_INFLATE];

	b->fd = make_memory(GUEST_BYTES);
	b->guest = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
	if (b->guest == MAP_FAILED)
		die("mmap");
	balloon_init(&b->balloon, 0, &ops, b);
	for (uint32_t i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++)
		b->balloon.vq[i] = &b->vq[i];
	vu_memory_init(&b->memory);
	add_memory(b, 0, GUEST_BYTES, dup(b->fd));
	add_memory(b, LOW_GPA, LOW_BYTES, low);
	if (reclaim_init(&b->reclaim, make_memory(2 * GUEST_BYTES), GUEST_BYTES, -1) < 0 ||
	    reclaim_memory_changed(&b->reclaim, &b->balloon, &b->memory, 1) < 0)
		die("bitmap");
	b->low = b->memory.mem.host[1];

	driver_ring_init(&b->ring, false, false, RING_SIZE, b->low);
	vq->st.size = RING_SIZE;
	vq->st.desc_uaddr = LOW_GPA;
	vq->st.driver_uaddr = LOW_GPA + driver_ring_driver_offset(RING_SIZE);
	vq->st.device_uaddr = LOW_GPA + driver_ring_device_offset(false, RING_SIZE);
	balloon_set_features(&b->balloon, 1ULL << VIRTIO_BALLOON_F_MUST_TELL_HOST);
	if (vq_start(vq, &b->memory.mem) < 0)
		die("ring");
	balloon_queue_started(&b->balloon, VIRTIO_BALLOON_VQ_INFLATE, false);
}

/* A small generator of its own: the same shuffle on every machine. */
static uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(*state >> 33);
}

static void make_stream(struct bench *b, enum stream stream)
{
	uint64_t random = 1;

	b->pfn = calloc(PAGES, sizeof(*b->pfn));
	if (!b->pfn)
		die("stream");
	for (uint32_t i = 0; i < PAGES; i++)
		b->pfn[i] = stream == REVERSE ? (uint32_t)PAGES - 1 - i : i;
	for (uint32_t i = (uint32_t)PAGES; stream == SHUFFLED && i > 1; i--) {
		uint32_t j = next_random(&random) % i, swap = b->pfn[i - 1];

		b->pfn[i - 1] = b->pfn[j];
		b->pfn[j] = swap;
	}
}

static void inflate(struct bench *b, const uint32_t *pfn)
{
	const uint32_t data = 0x8000;
	struct driver_buf buf = {LOW_GPA + data, ARRAY * 4};
	uint32_t written;
	uint16_t id;

	for (uint32_t i = 0; i < ARRAY; i++)
		le32_put(b->low + data + (size_t)i * 4, pfn[i]);
	if (driver_ring_add(&b->ring, &buf, 1, 1) < 0)
		die("ring full");
	balloon_queue_run(&b->balloon, VIRTIO_BALLOON_VQ_INFLATE, (struct instant){0});
	if (!driver_ring_used(&b->ring, &id, &written)) {
		errno = EPROTO;
		die("the device did not answer");
	}
}

static void touch(struct bench *b)
{
	for (uint64_t at = 0; at < GUEST_BYTES; at += PAGE)
		b->guest[at] = 1;
}

static void punch(struct bench *b, uint64_t first, uint64_t n)
{
	if (fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(first * PAGE),
		      (off_t)(n * PAGE)) < 0)
		die("fallocate");
}

static double by_device(struct bench *b)
{
	double start;

	touch(b);
	balloon_reset(&b->balloon);
	start = now_s();
	for (uint64_t i = 0; i < PAGES; i += ARRAY)
		inflate(b, b->pfn + i);
	return now_s() - start;
}

/* The ranges that merging one buffer's PFNs gives; only for streams of whole runs. */
static double by_ranges(struct bench *b)
{
	double start;

	touch(b);
	start = now_s();
	for (uint64_t i = 0; i < PAGES; i += ARRAY) {
		uint32_t first = b->pfn[i], last = b->pfn[i + ARRAY - 1];

		punch(b, first < last ? first : last, ARRAY);
	}
	return now_s() - start;
}

static double by_page(struct bench *b)
{
	double start;

	touch(b);
	start = now_s();
	for (uint64_t i = 0; i < PAGES; i++)
		punch(b, b->pfn[i], 1);
	return now_s() - start;
}

static int time_stream(struct bench *b, enum stream stream, long rounds)
{
	b->discarding = true;
	(void)by_device(b); /* what is done for the first time is not measured */
	for (long i = 0; i < rounds; i++) {
		double device = by_device(b);
		double ranges = stream == SHUFFLED ? 0 : by_ranges(b);
		double page = by_page(b);

		printf("%.6f %.6f %.6f\n", device, ranges, page);
		fflush(stdout);
	}
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"in-order", "reverse", "shuffled"};
	enum stream stream = IN_ORDER;
	long n = argc == 4 ? strtol(argv[3], NULL, 10) : 0;

	while (argc == 4 && stream < SHUFFLED && strcmp(names[stream], argv[2]) != 0)
		stream++;
	if (argc != 4 || n <= 0 || strcmp(names[stream], argv[2]) != 0) {
		fprintf(stderr, "usage: device time|run in-order|reverse|shuffled N\n");
		return EXIT_FAILURE;
	}
	set_up(&bench);
	make_stream(&bench, stream);
	if (strcmp(argv[1], "time") == 0)
		return time_stream(&bench, stream, n);
	for (uint64_t i = 0; i + ARRAY <= (uint64_t)n && i + ARRAY <= PAGES; i += ARRAY)
		inflate(&bench, bench.pfn + i);
	return EXIT_SUCCESS;
}
