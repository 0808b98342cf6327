// SPDX-License-Identifier: MIT
/*
 * A device as its VMM works it. Every function that changes something turns back when it is called
 * out of a callback: the core is in the middle of a ring then, and what it holds on to would change
 * under it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "embed/embed.h"

#define BIT(n)     (1ULL << (n))
#define PAGE_SHIFT VIRTIO_BALLOON_PFN_SHIFT

static_assert(AEROSTAT_PRESSURE_LEVELS == VIRTIO_BALLOON_PRESSURE_NR, "a step for every level");

/* What a VMM may choose to offer. */
#define FEATURES                                                                       \
	(BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST) | BIT(VIRTIO_BALLOON_F_STATS_VQ) |       \
	 BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) | BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT) | \
	 BIT(VIRTIO_BALLOON_F_PAGE_POISON) | BIT(VIRTIO_BALLOON_F_PAGE_REPORTING) |    \
	 BIT(VIRTIO_BALLOON_F_STATS_PUSH) | BIT(VIRTIO_BALLOON_F_MESSAGE_VQ))

#define INHIBITORS                                                                         \
	(AEROSTAT_INHIBIT_PINNED | AEROSTAT_INHIBIT_POSTCOPY | AEROSTAT_INHIBIT_SNAPSHOT | \
	 ~(AEROSTAT_INHIBIT_USER - 1U))

/* Ranges that go to a VMM's own discard at once. */
#define RANGES 64U

const char *aerostat_version(void)
{
	return AEROSTAT_VERSION;
}

static int from_hint_action(enum aerostat_hint_action action, enum balloon_hint_action *core)
{
	static const enum balloon_hint_action actions[] = {
		[AEROSTAT_HINT_START] = BALLOON_HINT_START,
		[AEROSTAT_HINT_STOP] = BALLOON_HINT_STOP,
		[AEROSTAT_HINT_DONE] = BALLOON_HINT_FINISH,
	};
	static_assert(sizeof(actions) / sizeof(actions[0]) == BALLOON_HINT_ACTIONS,
		      "a name for every action");

	if ((uint32_t)action >= BALLOON_HINT_ACTIONS)
		return -EINVAL;
	*core = actions[action];
	return 0;
}

/* The VMM's own discard, which knows no regions by number. */
static uint64_t discard_outside(struct aerostat_balloon *a, const struct balloon_range *ranges,
				uint32_t n)
{
	struct aerostat_range out[RANGES];
	uint64_t freed = 0;
	uint32_t filled = 0;

	for (uint32_t i = 0; i < n; i++) {
		const struct balloon_range *r = &ranges[i];

		out[filled++] = (struct aerostat_range){
			.gpa = a->memory.mem.region[r->region].gpa + r->offset,
			.len = r->len,
			.host = a->memory.mem.host[r->region] + r->offset,
		};
		if (filled == RANGES || i + 1 == n) {
			freed += a->ops.discard(a->opaque, out, filled);
			filled = 0;
		}
	}
	return freed;
}

static uint64_t on_discard(void *opaque, const struct balloon_range *ranges, uint32_t n)
{
	struct aerostat_balloon *a = opaque;
	uint64_t freed;

	if (!a->ops.discard)
		return memory_discard(&a->memory, ranges, n);
	a->inside = true;
	freed = discard_outside(a, ranges, n);
	a->inside = false;
	return freed;
}

static void on_config_changed(void *opaque)
{
	struct aerostat_balloon *a = opaque;

	a->inside = true;
	a->ops.config_changed(a->opaque);
	a->inside = false;
}

static void on_notify(void *opaque, uint32_t ring)
{
	struct aerostat_balloon *a = opaque;

	a->inside = true;
	a->ops.notify(a->opaque, ring);
	a->inside = false;
}

static void on_queue_broken(void *opaque, uint32_t ring)
{
	struct aerostat_balloon *a = opaque;

	if (!a->ops.broken)
		return;
	a->inside = true;
	a->ops.broken(a->opaque, ring, vq_error_name(a->vq[ring].st.error));
	a->inside = false;
}

static void on_event(void *opaque, enum balloon_event event)
{
	struct aerostat_balloon *a = opaque;
	enum aerostat_event out;

	switch (event) {
	case BALLOON_EVENT_ACTUAL:
		out = AEROSTAT_EVENT_ACTUAL;
		break;
	case BALLOON_EVENT_STATS:
		out = AEROSTAT_EVENT_STATS;
		break;
	case BALLOON_EVENT_PRESSURE:
		out = AEROSTAT_EVENT_PRESSURE;
		break;
	case BALLOON_EVENT_HINT:
		out = AEROSTAT_EVENT_HINT;
		break;
	default: /* none that VMMs are told of */
		return;
	}
	if (!a->ops.event)
		return;
	a->inside = true;
	a->ops.event(a->opaque, out);
	a->inside = false;
}

/* The device ends with its VMM: nobody could go on. */
static void on_commit(void *opaque)
{
	(void)opaque;
}

static const struct balloon_ops core_ops = {
	.discard = on_discard,
	.config_changed = on_config_changed,
	.notify = on_notify,
	.queue_broken = on_queue_broken,
	.event = on_event,
	.commit = on_commit,
};

static int check_options(const struct aerostat_balloon_options *o)
{
	if (o->features & ~FEATURES || o->on_pressure > AEROSTAT_PRESSURE_DEFLATE)
		return -EINVAL;
	if (o->features & BIT(VIRTIO_BALLOON_F_STATS_PUSH) &&
	    !(o->features & BIT(VIRTIO_BALLOON_F_STATS_VQ)))
		return -EINVAL;
	return 0;
}

static void set_policy(struct balloon_policy *policy, const struct aerostat_balloon_options *o)
{
	static const enum balloon_pressure_policy policies[] = {
		[AEROSTAT_PRESSURE_REPORT] = BALLOON_PRESSURE_REPORT,
		[AEROSTAT_PRESSURE_HOLD] = BALLOON_PRESSURE_HOLD,
		[AEROSTAT_PRESSURE_DEFLATE] = BALLOON_PRESSURE_DEFLATE,
	};

	policy->on_pressure = policies[o->on_pressure];
	policy->messages_per_second = o->messages_per_second;
	for (uint32_t i = 0; i < AEROSTAT_PRESSURE_LEVELS; i++)
		policy->step_pages[i] = o->pressure_step[i] >> PAGE_SHIFT;
}

int aerostat_balloon_create(const struct aerostat_balloon_options *options,
			    const struct aerostat_balloon_ops *ops, void *opaque,
			    struct aerostat_balloon **device)
{
	struct aerostat_balloon_options o;
	struct aerostat_balloon_ops own;
	struct aerostat_balloon *a;
	int err;

	if (!options || !ops || !device)
		return -EINVAL;
	err = embed_take(&o, sizeof(o), sizeof(o), options, options->size);
	if (!err)
		err = embed_take(&own, sizeof(own), sizeof(own), ops, ops->size);
	if (!err)
		err = check_options(&o);
	if (!err && (!own.config_changed || !own.notify))
		err = -EINVAL;
	if (err)
		return err;
	/* Megabytes, of which most are never touched: zeroed by the kernel page by page. */
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->ops = own;
	a->opaque = opaque;
	memory_init(&a->memory);
	balloon_init(&a->b, o.features, &core_ops, a);
	set_policy(&a->b.policy, &o);
	for (uint32_t i = 0; i < AEROSTAT_RINGS; i++) {
		a->vq[i].log = &a->log;
		a->b.vq[i] = &a->vq[i];
	}
	balloon_memory_changed(&a->b, &a->memory.mem, NULL, NULL);
	*device = a;
	return 0;
}

void aerostat_balloon_destroy(struct aerostat_balloon *device)
{
	if (!device)
		return;
	memory_release(&device->memory);
	free(device);
}

/* Would every ring that runs find its memory in another table? */
static bool rings_fit(const struct aerostat_balloon *a, const struct guest_mem *mem)
{
	for (uint32_t i = 0; i < AEROSTAT_RINGS; i++) {
		struct vq copy = a->vq[i];

		if (vq_started(&copy) && vq_start(&copy, mem) < 0)
			return false;
	}
	return true;
}

int aerostat_balloon_set_memory(struct aerostat_balloon *device,
				const struct aerostat_memory_region *regions, uint32_t n)
{
	struct aerostat_balloon *a = device;
	struct memory fresh, old;
	int err;

	if (!a || (n && !regions))
		return -EINVAL;
	if (a->inside)
		return -EBUSY;
	err = memory_build(&fresh, regions, n);
	if (!err && !rings_fit(a, &fresh.mem)) {
		memory_release(&fresh);
		err = -EBUSY;
	}
	if (err)
		return err;
	balloon_memory_changing(&a->b);
	old = a->memory;
	a->memory = fresh;
	for (uint32_t i = 0; i < AEROSTAT_RINGS; i++) {
		if (vq_started(&a->vq[i]))
			(void)vq_remap(&a->vq[i]); /* has just been tried */
	}
	balloon_memory_changed(&a->b, &a->memory.mem, a->memory.held.words, a->memory.hints.words);
	a->failed_before += memory_failures(&old);
	memory_release(&old);
	balloon_update_target(&a->b);
	return 0;
}

int aerostat_balloon_set_dirty_log(struct aerostat_balloon *device, void *bitmap, uint64_t bytes)
{
	if (!device || (!bitmap && bytes))
		return -EINVAL;
	if (device->inside)
		return -EBUSY;
	device->log = (struct dirty_log){bitmap, bytes};
	return 0;
}

int aerostat_balloon_negotiate(struct aerostat_balloon *device, uint64_t features)
{
	if (!device)
		return -EINVAL;
	if (device->inside)
		return -EBUSY;
	for (uint32_t i = 0; i < AEROSTAT_RINGS; i++) {
		if (vq_started(&device->vq[i]))
			return -EBUSY;
	}
	return balloon_set_features(&device->b, features);
}

int aerostat_balloon_config_write(struct aerostat_balloon *device, uint32_t offset, const void *buf,
				  uint32_t len)
{
	if (!device || (len && !buf))
		return -EINVAL;
	if (device->inside)
		return -EBUSY;
	balloon_config_write(&device->b, offset, buf, len);
	return 0;
}

static int begin_ring(struct aerostat_balloon *a, uint32_t ring, const struct aerostat_ring *where,
		      uint32_t base, bool resumed)
{
	struct vq *vq = &a->vq[ring];
	int err;

	vq_set_features(vq, a->b.st.negotiated);
	vq_set_base(vq, base);
	vq->st.size = where->size;
	vq->st.desc_uaddr = where->desc;
	vq->st.driver_uaddr = where->driver;
	vq->st.device_uaddr = vq->st.log_gpa = where->device;
	vq->st.log_used = true; /* if there is a log */
	err = vq_start(vq, &a->memory.mem);
	if (err)
		return err;
	/* The driver begins anew and knows of no balloon: to go by the old one would be a guess. */
	if (!resumed && a->used >> ring & 1)
		balloon_reset(&a->b);
	a->used |= 1U << ring;
	a->ready |= balloon_queue_started(&a->b, ring, resumed);
	return 0;
}

static int check_ring(const struct aerostat_balloon *a, uint32_t ring,
		      const struct aerostat_ring *where)
{
	if (!a || ring >= AEROSTAT_RINGS || !where)
		return -EINVAL;
	return a->inside || vq_started(&a->vq[ring]) ? -EBUSY : 0;
}

static bool is_packed(const struct aerostat_balloon *a)
{
	return a->b.st.negotiated >> VIRTIO_F_RING_PACKED & 1;
}

int aerostat_balloon_start_ring(struct aerostat_balloon *device, uint32_t ring,
				const struct aerostat_ring *where)
{
	int err = check_ring(device, ring, where);

	if (err)
		return err;
	return begin_ring(device, ring, where, vq_fresh_base(is_packed(device)), false);
}

int aerostat_balloon_resume_ring(struct aerostat_balloon *device, uint32_t ring,
				 const struct aerostat_ring *where, uint32_t base)
{
	int err = check_ring(device, ring, where);

	if (!err && !is_packed(device) && base > UINT16_MAX)
		err = -EINVAL;
	return err ? err : begin_ring(device, ring, where, base, true);
}

static void end_ring(struct aerostat_balloon *a, uint32_t ring)
{
	balloon_queue_stopped(&a->b, ring);
	vq_stop(&a->vq[ring]);
	a->ready &= ~(1U << ring);
}

int aerostat_balloon_stop_ring(struct aerostat_balloon *device, uint32_t ring, uint32_t *base)
{
	if (!device || ring >= AEROSTAT_RINGS)
		return -EINVAL;
	if (device->inside)
		return -EBUSY;
	if (!vq_started(&device->vq[ring]))
		return -ENOENT;
	end_ring(device, ring);
	if (base)
		*base = vq_base(&device->vq[ring]);
	return 0;
}

int aerostat_balloon_reset(struct aerostat_balloon *device)
{
	if (!device)
		return -EINVAL;
	if (device->inside)
		return -EBUSY;
	for (uint32_t i = 0; i < AEROSTAT_RINGS; i++) {
		if (vq_started(&device->vq[i]))
			end_ring(device, i);
		memset(&device->vq[i].st, 0, sizeof(device->vq[i].st));
	}
	device->used = 0;
	balloon_reset(&device->b);
	return balloon_set_features(&device->b, 0);
}

int aerostat_balloon_kick(struct aerostat_balloon *device, uint32_t ring)
{
	if (!device || ring >= AEROSTAT_RINGS)
		return -EINVAL;
	if (device->inside)
		return -EBUSY;
	balloon_queue_kicked(&device->b, ring);
	device->ready |= 1U << ring;
	return 0;
}

int aerostat_balloon_run(struct aerostat_balloon *device, uint64_t now_ms)
{
	const struct instant now = {.mono_ms = now_ms};
	uint32_t ready;

	if (!device)
		return -EINVAL;
	if (device->inside)
		return -EBUSY;
	ready = device->ready | balloon_tick(&device->b, now);
	device->ready = 0;
	for (uint32_t i = 0; i < AEROSTAT_RINGS; i++) {
		if (ready >> i & 1 && balloon_queue_run(&device->b, i, now))
			device->ready |= 1U << i;
	}
	return aerostat_balloon_next_run(device) == 0;
}

uint64_t aerostat_balloon_next_run(const struct aerostat_balloon *device)
{
	if (!device)
		return AEROSTAT_NEVER;
	return device->ready ? 0 : balloon_next_tick(&device->b);
}

int aerostat_balloon_set_target(struct aerostat_balloon *device, uint64_t bytes)
{
	if (!device)
		return -EINVAL;
	if (device->inside)
		return -EBUSY;
	balloon_set_target(&device->b, bytes >> PAGE_SHIFT);
	return 0;
}

int aerostat_balloon_request_stats(struct aerostat_balloon *device)
{
	if (!device)
		return -EINVAL;
	return device->inside ? -EBUSY : balloon_request_stats(&device->b);
}

int aerostat_balloon_poll_stats(struct aerostat_balloon *device, uint64_t interval_ms,
				uint64_t now_ms)
{
	uint64_t first;

	/* The next time must be one. */
	if (!device || !checked_add(now_ms, interval_ms, &first))
		return -EINVAL;
	if (device->inside)
		return -EBUSY;
	balloon_set_poll_interval(&device->b, interval_ms, (struct instant){.mono_ms = now_ms});
	return 0;
}

int aerostat_balloon_push_stats(struct aerostat_balloon *device, uint32_t interval_ms)
{
	if (!device)
		return -EINVAL;
	if (device->inside)
		return -EBUSY;
	if (interval_ms && !(device->b.st.offered & BIT(VIRTIO_BALLOON_F_STATS_PUSH)))
		return -ENOTSUP;
	return balloon_set_push_interval(&device->b, interval_ms);
}

static int change_inhibitors(struct aerostat_balloon *a, uint32_t reasons, bool set)
{
	if (!a || !reasons || reasons & ~INHIBITORS)
		return -EINVAL;
	if (a->inside)
		return -EBUSY;
	a->inhibitors = set ? a->inhibitors | reasons : a->inhibitors & ~reasons;
	balloon_set_inhibited(&a->b, a->inhibitors);
	return 0;
}

int aerostat_balloon_inhibit(struct aerostat_balloon *device, uint32_t reasons)
{
	return change_inhibitors(device, reasons, true);
}

int aerostat_balloon_uninhibit(struct aerostat_balloon *device, uint32_t reasons)
{
	return change_inhibitors(device, reasons, false);
}

int aerostat_balloon_hint(struct aerostat_balloon *device, enum aerostat_hint_action action)
{
	enum balloon_hint_action core;
	int err;

	if (!device)
		return -EINVAL;
	if (device->inside)
		return -EBUSY;
	err = from_hint_action(action, &core);
	return err ? err : balloon_hint(&device->b, core);
}
