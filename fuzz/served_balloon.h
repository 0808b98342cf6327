/* SPDX-License-Identifier: MIT */
/* A session and the balloon that it speaks for, with everything checked that one asks of another.
 */
#ifndef FUZZ_SERVED_BALLOON_H
#define FUZZ_SERVED_BALLOON_H

#include <stdbool.h>

#include <errno.h>
#include <unistd.h>

#include "balloon/balloon.h"
#include "balloon/snapshot.h"
#include "base/checked.h"
#include "input.h"
#include "vhost_user/session.h"
#include "vhost_user/socket.h"

#define PAGE 4096U

struct fuzz {
	struct input in;
	struct vu_session session;
	struct balloon balloon;
	uint64_t *map;
	uint32_t running; /* bit mask of rings */
	bool large;       /* memory is taken to be made of 64 KiB pages */
	uint64_t now;
	uint8_t state[1 << 16]; /* of the device, as it was saved */
	size_t state_len;
	bool moving, load; /* a transfer has begun, this way */
	bool hold;         /* what was loaded holds for memory that is still to come */
	struct snapshot_reader reader;
	uint64_t *loaded; /* its bitmap */
	int memory;       /* a file that messages offer as guest memory; mapped here too */
	uint8_t *host;
};

static struct fuzz f;

static uint64_t on_discard(void *opaque, const struct balloon_range *ranges, uint32_t n)
{
	(void)opaque;
	require(n > 0);
	for (uint32_t i = 0; i < n; i++) {
		const struct balloon_range *r = &ranges[i];
		const struct guest_region *region = &f.session.memory.mem.region[r->region];

		require(r->region < f.session.memory.mem.n && r->len);
		require(range_within(r->offset, r->len, region->size));
		for (uint64_t at = 0; at < r->len; at += PAGE) {
			uint64_t pages = 1, page;
			uint64_t pfn = (region->gpa + r->offset + at) / PAGE;

			require(pageset_locate(&f.balloon.held, pfn, &pages, &page) ==
				(int)r->region);
			require(pageset_all(&f.balloon.held, r->region, page, 1));
		}
	}
	return 0;
}

static void on_config_changed(void *opaque)
{
	(void)opaque;
	vu_session_config_changed(&f.session);
}

static void on_notify(void *opaque, uint32_t queue)
{
	(void)opaque;
	require(f.running >> queue & 1);
	vu_socket_signal(f.session.ring[queue].call_fd);
}

static void on_broken(void *opaque, uint32_t queue)
{
	(void)opaque;
	require(f.balloon.vq[queue]->st.error != VQ_OK);
	vu_socket_signal(f.session.ring[queue].err_fd);
}

static void on_commit(void *opaque)
{
	(void)opaque;
}

static void on_event(void *opaque, enum balloon_event event)
{
	(void)opaque;
	(void)event;
}

static const struct balloon_ops balloon_ops = {on_discard, on_config_changed, on_notify,
					       on_broken,  on_event,          on_commit};

static uint64_t get_features(void *opaque)
{
	(void)opaque;
	return f.balloon.st.offered;
}

static int set_features(void *opaque, uint64_t features)
{
	(void)opaque;
	return balloon_set_features(&f.balloon, features);
}

static void config_read(void *opaque, uint32_t offset, uint8_t *buf, uint32_t len)
{
	(void)opaque;
	balloon_config_read(&f.balloon, offset, buf, len);
}

static void config_write(void *opaque, uint32_t offset, const uint8_t *buf, uint32_t len)
{
	(void)opaque;
	balloon_config_write(&f.balloon, offset, buf, len);
}

static void reset(void *opaque)
{
	(void)opaque;
	f.hold = false;
	balloon_reset(&f.balloon);
}

static void memory_changing(void *opaque)
{
	(void)opaque;
	balloon_memory_changing(&f.balloon);
}

static int memory_changed(void *opaque)
{
	struct guest_mem *mem = &f.session.memory.mem;
	uint64_t words = pageset_words(mem), *map = calloc(words + 1, sizeof(*map));

	(void)opaque;
	require(map != NULL);
	for (uint32_t i = 0; f.large && i < mem->n; i++)
		mem->region[i].page_size = 16ULL * PAGE;
	if (f.hold)
		snapshot_hold(&f.reader.snap, &f.balloon);
	balloon_memory_changed(&f.balloon, mem, map, NULL);
	free(f.map);
	f.map = map;
	return 0;
}

/* The device's state goes into a buffer and comes out of it: no more than one is on its way. */
static int transfer(void *opaque, bool load, int fd)
{
	static struct snapshot_writer writer;

	(void)opaque;
	require(f.running == 0);
	close(fd);
	f.moving = true;
	f.load = load;
	if (load)
		return 0;
	snapshot_writer_init(&writer, &f.balloon, (struct instant){.mono_ms = f.now});
	f.state_len = snapshot_read(&writer, f.state, sizeof(f.state));
	return 0;
}

static uint64_t *make_words(void *opaque, uint64_t n)
{
	(void)opaque;
	free(f.loaded);
	f.loaded = calloc(n, sizeof(*f.loaded));
	require(f.loaded != NULL);
	return f.loaded;
}

static int transfer_check(void *opaque)
{
	int r;

	if (!f.moving || !f.load)
		return f.moving ? 0 : -ENODATA;
	f.hold = false;
	snapshot_reader_init(&f.reader, (struct instant){.mono_ms = f.now}, make_words, NULL);
	r = snapshot_write(&f.reader, f.state, f.state_len);
	/* What this device has written it can read, unless it did not fit. */
	require(r == 0);
	r = snapshot_finish(&f.reader);
	require(r == 0 || f.state_len == 0 || f.state_len == sizeof(f.state));
	if (r == 0)
		r = snapshot_apply(&f.reader.snap, &f.balloon);
	if (r)
		return r;
	f.hold = true;
	return memory_changed(opaque);
}

static int ring_started(void *opaque, uint32_t index, bool resumed)
{
	(void)opaque;
	f.hold = f.moving = false;
	require(!(f.running >> index & 1) && vq_started(&f.session.ring[index].vq));
	f.running |= 1U << index;
	balloon_queue_started(&f.balloon, index, resumed);
	return 0;
}

static void ring_stopping(void *opaque, uint32_t index)
{
	(void)opaque;
	require(f.running >> index & 1);
	f.running &= ~(1U << index);
	balloon_queue_stopped(&f.balloon, index);
}

static const struct vu_device_ops device_ops = {
	get_features, set_features, config_read, config_write, reset, transfer, transfer_check};
static const struct vu_ring_ops ring_ops = {memory_changing, memory_changed, ring_started,
					    ring_stopping};

#endif
