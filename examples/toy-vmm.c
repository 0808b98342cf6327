// SPDX-License-Identifier: MIT
/*
 * A toy of a virtual machine monitor that embeds the balloon device of libaerostat. Its "guest" are
 * the functions guest_*, which do what a driver does with a split ring; in a real VMM they run on a
 * virtual CPU, and kicks arrive as exits or eventfds.
 *
 *     cc toy-vmm.c $(pkg-config --cflags --libs libaerostat) -o toy-vmm && ./toy-vmm
 */
#define _GNU_SOURCE 1
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <aerostat/balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#define MIB      (1024U * 1024U)
#define RAM      (64U * MIB)
#define RING_AT  0x10000U /* in guest memory: two rings, a list of pages, then other data */
#define LIST_AT  0x40000U
#define FREE_AT  (16U * MIB)
#define LIST_LEN 1024U

static struct aerostat_balloon *balloon;
static uint8_t *ram;
static struct vring ring[2];

static void must(int ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "toy-vmm: failed: %s\n", what);
		exit(EXIT_FAILURE);
	}
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Two interrupts: the VMM's transport would raise them. The guest below looks without. */
static void config_changed(void *opaque)
{
	(void)opaque;
}

static void notify(void *opaque, uint32_t index)
{
	(void)opaque;
	(void)index;
}

/* The guest sends n page numbers. Its kick ends up in the VMM, which lets the device work. */
static void guest_send(uint32_t queue, uint32_t first, uint32_t n)
{
	struct vring *r = &ring[queue];
	uint16_t idx = r->avail->idx;

	for (uint32_t i = 0; i < n; i++)
		((uint32_t *)(void *)(ram + LIST_AT))[i] = htole32(first + i);
	r->desc[0] = (struct vring_desc){.addr = htole64(LIST_AT), .len = htole32(n * 4)};
	r->avail->ring[idx % r->num] = 0; /* that descriptor */
	__atomic_store_n(&r->avail->idx, ++idx, __ATOMIC_RELEASE);

	must(aerostat_balloon_kick(balloon, queue) == 0, "kick");
	while (aerostat_balloon_run(balloon, now_ms()) == 1)
		; /* an event loop would do other things in between */
	must(__atomic_load_n(&r->used->idx, __ATOMIC_ACQUIRE) == idx, "the buffer came back");
}

/* The guest's driver brings the balloon to the size that the configuration asks for. */
static void guest_balloon(void)
{
	struct virtio_balloon_config config;
	uint32_t have, want, n;

	aerostat_balloon_config_read(balloon, 0, &config, sizeof(config));
	have = le32toh(config.actual);
	want = le32toh(config.num_pages);
	for (; have < want; have += n) {
		n = want - have < LIST_LEN ? want - have : LIST_LEN;
		guest_send(VIRTIO_BALLOON_VQ_INFLATE, FREE_AT / 4096 + have, n);
	}
	for (; have > want; have -= n) {
		n = have - want < LIST_LEN ? have - want : LIST_LEN;
		guest_send(VIRTIO_BALLOON_VQ_DEFLATE, FREE_AT / 4096 + have - n, n);
	}
	config.actual = htole32(have);
	aerostat_balloon_config_write(balloon, 0, &config, sizeof(config));
}

/* The guest's driver has laid out its rings; at DRIVER_OK the transport starts them. */
static void start_driver(void)
{
	const uint64_t features =
		1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_BALLOON_F_MUST_TELL_HOST;

	must(aerostat_balloon_negotiate(balloon, features) == 0, "features");
	for (uint32_t i = 0; i < 2; i++) {
		struct aerostat_ring at = {.size = 16, .desc = RING_AT + i * 0x4000};

		vring_init(&ring[i], at.size, ram + at.desc, 4096);
		at.driver = (uint64_t)((uint8_t *)ring[i].avail - ram);
		at.device = (uint64_t)((uint8_t *)ring[i].used - ram);
		must(aerostat_balloon_start_ring(balloon, i, &at) == 0, "ring");
	}
}

static uint64_t show(const char *when)
{
	struct aerostat_balloon_info info = {.size = sizeof(info)};
	uint64_t resident = 0;

	aerostat_balloon_get_info(balloon, now_ms(), &info);
	aerostat_balloon_get_resident(balloon, &resident);
	printf("%-35s balloon %2u MiB, host memory in use %2u MiB\n", when,
	       (unsigned int)(info.held / MIB), (unsigned int)(resident / MIB));
	return info.freed;
}

int main(void)
{
	static const struct aerostat_balloon_ops ops = {
		.size = sizeof(ops), .config_changed = config_changed, .notify = notify};
	const struct aerostat_balloon_options options = {.size = sizeof(options)};
	struct aerostat_memory_region memory = {.size = RAM, .fd = memfd_create("guest", 0)};

	must(memory.fd >= 0 && ftruncate(memory.fd, RAM) == 0, "guest memory");
	memory.host = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED, memory.fd, 0);
	must(memory.host != MAP_FAILED, "guest memory");
	ram = memory.host;
	must(aerostat_balloon_create(&options, &ops, NULL, &balloon) == 0, "device");
	must(aerostat_balloon_set_memory(balloon, &memory, 1) == 0, "memory table");
	start_driver();

	memset(ram + FREE_AT, 1, RAM - FREE_AT);
	show("the guest has used its memory");
	aerostat_balloon_set_target(balloon, 32 * MIB);
	guest_balloon();
	must(show("the host took 32 MiB") == 32 * MIB, "all of it was freed");
	aerostat_balloon_set_target(balloon, 0);
	guest_balloon();
	memset(ram + FREE_AT, 2, RAM - FREE_AT);
	show("the guest has it again, and uses it");

	aerostat_balloon_destroy(balloon);
	munmap(ram, RAM);
	close(memory.fd);
	return EXIT_SUCCESS;
}
