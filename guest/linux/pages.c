// SPDX-License-Identifier: GPL-2.0-only
/*
 * The balloon: inflation, deflation, and what happens when memory is short.
 *
 * One work item does both, for about VB_TURN_MS at a time.  It fills array after array and does not
 * wait for the host in between (ring.c), so the host discards the last pages while the next ones
 * are taken.  Pages count as held when the host has returned their array, and only then can they be
 * deflated or migrated: a host that served its queues in another order than they were filled would
 * otherwise discard a page that is in use again.
 *
 * After a failed allocation inflation pauses, longer each time; after an OOM it rests until the
 * host changes its wish.  Otherwise the balloon and the OOM killer would play against each other.
 */
#include <linux/jiffies.h>
#include <linux/moduleparam.h>
#include <linux/sched.h>

#include "balloon.h"

#define VB_TURN_MS        100
#define VB_BACKOFF_MIN_MS 200
#define VB_BACKOFF_MAX_MS 10000
#define VB_OOM_WAIT_MS    500
#define VB_OOM_COMING_MS  200
/* Emptying the balloon takes no longer: a reset does it too. */
#define VB_CLOSE_MS 60000
/* OOMs within this time are one shortage: each gets twice what the last one got. */
#define VB_OOM_BURST_MS  1000
#define VB_OOM_BURST_MAX 6

static unsigned int oom_pages = VB_ARRAY;
module_param(oom_pages, uint, 0644);
MODULE_PARM_DESC(oom_pages, "4 KiB pages to release at first when memory runs out (256)");

enum vb_step {
	VB_STEP_DONE,  /* nothing to do, or not before something happens that queues the work */
	VB_STEP_MORE,  /* go on */
	VB_STEP_SHORT, /* no memory */
	VB_STEP_LATER, /* pages are elsewhere at the moment: try again soon */
};

void vb_pages_kick(struct vb *vb)
{
	vb_queue_now(vb, &vb->pages.work);
}

static void used(struct vb *vb, struct vb_ring *ring)
{
	vb_ring_collect(ring);
	wake_up_all(&ring->wait);
	if (READ_ONCE(ring->late))
		vb_pages_kick(vb);
}

void vb_inflate_used(struct virtqueue *vq)
{
	struct vb *vb = vq->vdev->priv;

	used(vb, &vb->pages.inflate);
}

void vb_deflate_used(struct virtqueue *vq)
{
	struct vb *vb = vq->vdev->priv;

	used(vb, &vb->pages.deflate);
}

static unsigned long in_ms(unsigned int ms)
{
	return jiffies + msecs_to_jiffies(ms);
}

static void release(struct list_head *pages)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, pages, lru) {
		list_del(&page->lru);
		put_page(page);
	}
}

static void settle_deflated(struct vb_pages *p, struct vb_array *array)
{
	vb_list_freed(&array->pages, p->adjust);
	release(&array->pages);
	p->released[array->cause] += array->n;
	vb_ring_unclaim(&p->deflate, array);
}

static void settle(struct vb *vb)
{
	struct vb_pages *p = &vb->pages;
	struct vb_array *array;
	bool released = false;

	lockdep_assert_held(&p->lock);
	while ((array = vb_ring_returned(&p->inflate))) {
		vb_list_put(&p->list, &array->pages, p->adjust);
		p->held += array->n;
		p->inflating -= array->n;
		p->inflated += array->n;
		vb_ring_unclaim(&p->inflate, array);
	}
	while ((array = vb_ring_returned(&p->deflate))) {
		settle_deflated(p, array);
		released = true;
	}
	vb_migrate_settle(vb);
	if (released)
		wake_up_all(&p->released_wait);
}

/*
 * An array to fill, waiting for the host if all are with it.  NULL: it does not return any.  Not
 * under the lock: nobody holds that while he waits for the host, as an OOM needs it.
 */
static struct vb_array *claim(struct vb *vb, struct vb_ring *ring)
{
	struct vb_array *array;

	for (;;) {
		mutex_lock(&vb->pages.lock);
		settle(vb);
		array = vb_ring_claim(ring);
		mutex_unlock(&vb->pages.lock);
		if (array)
			return array;
		if (!vb_ring_wait(ring, ring->arrays - 1, in_ms(VB_PATIENCE_MS), VB_PATIENCE_MS)) {
			vb->pages.timeouts++;
			return NULL;
		}
	}
}

/* May the balloon grow? */
static bool may_inflate(struct vb *vb)
{
	return !READ_ONCE(vb->closing) && !READ_ONCE(vb->pages.oom_pause) && !vb_pressure_waits(vb);
}

/* Puts up to `want` pages of the system into an array; false if memory was short. */
static bool fill(struct vb *vb, struct vb_array *array, unsigned int want)
{
	struct vb_pages *p = &vb->pages;

	for (unsigned int i = min_t(unsigned int, want, VB_ARRAY_PAGES); i; i--) {
		struct page *page;

		/* Each of them may take long when it has to be reclaimed. */
		if (!may_inflate(vb))
			return true;
		page = vb_supply_take(p, want--);
		if (!page)
			return false;
		vb_array_add(&p->inflate, array, page);
		list_add_tail(&page->lru, &array->pages);
	}
	return true;
}

static enum vb_step inflate(struct vb *vb, unsigned int want)
{
	struct vb_pages *p = &vb->pages;
	struct vb_array *array;
	bool enough, stale;
	int r = -EAGAIN;

	if (!may_inflate(vb) || READ_ONCE(p->inflate.late) || vb_ring_is_broken(&p->inflate) ||
	    (p->backoff_ms && time_before(jiffies, p->retry_at)))
		return VB_STEP_DONE;
	array = claim(vb, &p->inflate);
	if (!array)
		return VB_STEP_DONE;
	enough = fill(vb, array, want / VB_PER_PAGE);
	mutex_lock(&p->lock);
	/* The host may have answered a message meanwhile, and wish something else. */
	stale = test_bit(VB_TARGET_STALE, &p->flags);
	/* Under pressure the system needs them now. */
	if (array->n && !stale && may_inflate(vb))
		r = vb_ring_submit(&p->inflate, array);
	if (!r) {
		p->inflating += array->n;
	} else {
		release(&array->pages);
		vb_ring_unclaim(&p->inflate, array);
	}
	mutex_unlock(&p->lock);
	if (!enough)
		return VB_STEP_SHORT;
	return r && !stale ? VB_STEP_DONE : VB_STEP_MORE;
}

/* How long deflate() may take. */
struct limits {
	unsigned long end;     /* jiffies */
	unsigned int renew_ms; /* so long from each answer of the host, if not 0 */
};

/* Who is out of memory waits for the lock no longer than for the host. */
static bool lock_within(struct vb_pages *p, const struct limits *limits)
{
	if (limits->renew_ms) {
		mutex_lock(&p->lock);
		return true;
	}
	while (!mutex_trylock(&p->lock)) {
		if (time_after(jiffies, limits->end))
			return false;
		schedule_timeout_idle(1);
	}
	return true;
}

/*
 * Sends arrays of pages out of the balloon until n are on their way, or all arrays are.  Under the
 * lock.  Returns how many were sent.
 */
static unsigned int send_deflate(struct vb *vb, unsigned int n, enum vb_cause cause)
{
	struct vb_pages *p = &vb->pages;
	unsigned int total = 0;

	lockdep_assert_held(&p->lock);
	while (total < n && p->held && !vb_migrate_open(vb) && !vb_ring_is_broken(&p->deflate)) {
		struct vb_array *array = vb_ring_claim(&p->deflate);
		struct page *page;
		size_t want;

		if (!array)
			break;
		want = min_t(size_t, DIV_ROUND_UP(min(n - total, p->held), VB_PER_PAGE),
			     VB_ARRAY_PAGES);
		vb_list_take(&p->list, &array->pages, want);
		list_for_each_entry(page, &array->pages, lru)
			vb_array_add(&p->deflate, array, page);
		if (!array->n) {
			vb_ring_unclaim(&p->deflate, array);
			break;
		}
		array->cause = cause;
		p->held -= array->n;
		total += array->n;
		/* What was taken off the list cannot go back onto it: others may look at it. */
		if (vb_ring_submit(&p->deflate, array))
			vb_ring_lose(&p->deflate, array);
	}
	return total;
}

/*
 * Takes up to n pages out of the balloon and tells the host.  They are the system's again when the
 * host has answered, which this waits for.  Returns how many were sent.
 */
static unsigned int deflate(struct vb *vb, unsigned int n, enum vb_cause cause,
			    struct limits limits)
{
	struct vb_pages *p = &vb->pages;
	unsigned int total = 0, sent;
	bool answered;

	do {
		if (!lock_within(p, &limits))
			return total;
		settle(vb);
		sent = send_deflate(vb, n - total, cause);
		mutex_unlock(&p->lock);
		total += sent;
		/* The next ones are sent as soon as half of these are back. */
		answered = vb_ring_wait(&p->deflate, total < n && sent ? p->deflate.arrays / 2 : 0,
					limits.end, limits.renew_ms);
		if (!answered)
			p->timeouts++;
		else if (limits.renew_ms)
			limits.end = in_ms(limits.renew_ms);
	} while (total < n && sent && answered);
	if (lock_within(p, &limits)) {
		settle(vb);
		mutex_unlock(&p->lock);
	}
	return total;
}

static void read_target(struct vb *vb)
{
	struct vb_pages *p = &vb->pages;
	u64 target =
		vb_config_read(vb, offsetof(struct virtio_balloon_config, num_pages), p->target);

	/* Whole pages of the system: else inflation and deflation would chase each other. */
	target = min_t(u64, ALIGN(target, VB_PER_PAGE), ALIGN_DOWN(U32_MAX, VB_PER_PAGE));
	if (target == p->target)
		return;
	p->target = target;
	p->backoff_ms = 0;
	p->oom_burst = 0;
	WRITE_ONCE(p->oom_pause, false);
}

static s64 distance(const struct vb_pages *p)
{
	return (s64)p->target - p->held - p->inflating;
}

static enum vb_step step(struct vb *vb)
{
	struct vb_pages *p = &vb->pages;
	unsigned int n;
	s64 diff;

	if (test_and_clear_bit(VB_TARGET_STALE, &p->flags))
		read_target(vb);
	diff = distance(p);
	if (diff > 0)
		return inflate(vb, diff);
	if (!diff)
		return VB_STEP_DONE;
	if (READ_ONCE(p->deflate.late) || vb_ring_is_broken(&p->deflate))
		return VB_STEP_DONE;
	/* As much as one turn of the rings, so that a change is seen soon. */
	n = deflate(vb, min_t(s64, -diff, VB_ARRAYS * VB_ARRAY), VB_FOR_TARGET,
		    (struct limits){in_ms(VB_PATIENCE_MS), VB_PATIENCE_MS});
	if (n)
		return VB_STEP_MORE;
	return READ_ONCE(p->deflate.late) ? VB_STEP_DONE : VB_STEP_LATER;
}

static void memory_is_short(struct vb *vb, bool progress)
{
	struct vb_pages *p = &vb->pages;

	p->inflate_failures++;
	if (!p->backoff_ms)
		dev_info_ratelimited(&vb->vdev->dev,
				     "out of memory with %u of %u MiB in the balloon, will retry\n",
				     p->held >> 8, p->target >> 8);
	if (!p->backoff_ms || progress)
		p->backoff_ms = VB_BACKOFF_MIN_MS;
	else
		p->backoff_ms = min(p->backoff_ms * 2, (unsigned int)VB_BACKOFF_MAX_MS);
	p->retry_at = jiffies + msecs_to_jiffies(p->backoff_ms);
}

static void write_actual(struct vb *vb)
{
	struct vb_pages *p = &vb->pages;
	unsigned int held = READ_ONCE(p->held);

	if (!test_and_clear_bit(VB_ACTUAL_STALE, &p->flags) && held == p->actual)
		return;
	vb_config_write(vb, offsetof(struct virtio_balloon_config, actual), held);
	p->actual = held;
}

/*
 * Waits for what is on its way into the balloon, unless the host was silent before; false if
 * anything is left with it.
 */
static bool drain(struct vb *vb)
{
	struct vb_pages *p = &vb->pages;
	unsigned int patience_ms = READ_ONCE(p->inflate.late) ? 0 : VB_PATIENCE_MS;
	bool done;

	done = vb_ring_wait(&p->inflate, 0, in_ms(patience_ms), patience_ms);
	if (!done && patience_ms)
		p->timeouts++;
	done &= vb_ring_wait(&p->deflate, 0, jiffies, 0);
	mutex_lock(&p->lock);
	settle(vb);
	mutex_unlock(&p->lock);
	return done;
}

static void size_work(struct work_struct *work)
{
	struct vb *vb = container_of(to_delayed_work(work), struct vb, pages.work);
	struct vb_pages *p = &vb->pages;
	unsigned long end = jiffies + msecs_to_jiffies(VB_TURN_MS);
	enum vb_step last = VB_STEP_MORE;
	bool silent;
	u64 before;

	WRITE_ONCE(p->worker, current);
	silent = !drain(vb);
	before = p->inflated;
	vb_supply_begin(p);
	/* Who answers nothing does not answer what its configuration is, and some wait for that. */
	if (!vb_pressure_unanswered(vb))
		set_bit(VB_TARGET_STALE, &p->flags);
	while (!silent && last == VB_STEP_MORE && time_before(jiffies, end) &&
	       !READ_ONCE(vb->closing))
		last = step(vb);
	if (silent)
		last = VB_STEP_DONE;
	vb_supply_end(p);
	if (drain(vb) && !vb_pressure_unanswered(vb))
		write_actual(vb);
	WRITE_ONCE(p->worker, NULL);
	/* Who waits for what is coming looks whether it still is. */
	wake_up_all(&p->released_wait);

	if (distance(p) <= 0)
		p->backoff_ms = 0;
	if (last == VB_STEP_SHORT)
		memory_is_short(vb, p->inflated - before >= VB_ARRAY);
	if (last == VB_STEP_MORE)
		vb_queue_later(vb, &p->work, 0);
	else if (last == VB_STEP_LATER)
		vb_queue_later(vb, &p->work, msecs_to_jiffies(VB_POLL_MS));
	else if (p->backoff_ms && distance(p) > 0 && !READ_ONCE(p->oom_pause))
		vb_queue_later(vb, &p->work, max_t(long, p->retry_at - jiffies, 1));
	if (last != VB_STEP_MORE)
		vb_relax(vb, VB_AWAKE_SIZE);
}

int vb_pages_init(struct vb *vb)
{
	struct vb_pages *p = &vb->pages;
	int r;

	mutex_init(&p->lock);
	init_waitqueue_head(&p->released_wait);
	INIT_DELAYED_WORK(&p->work, size_work);
	p->adjust = !vb_has(vb, VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
	vb_list_init(&p->list, p->adjust);
	vb_migrate_init(vb);
	r = vb_ring_init(&p->inflate, vb->vdev);
	return r ?: vb_ring_init(&p->deflate, vb->vdev);
}

void vb_pages_free(struct vb *vb)
{
	vb_ring_free(&vb->pages.inflate);
	vb_ring_free(&vb->pages.deflate);
	mutex_destroy(&vb->pages.lock);
}

void vb_pages_start(struct vb *vb, struct virtqueue *inflate, struct virtqueue *deflate)
{
	struct vb_pages *p = &vb->pages;

	vb_ring_start(&p->inflate, inflate);
	vb_ring_start(&p->deflate, deflate);
	p->target = 0;
	p->backoff_ms = 0;
	WRITE_ONCE(p->oom_pause, false);
	/* A reset has taken the host's knowledge of it. */
	set_bit(VB_ACTUAL_STALE, &p->flags);
}

static void oom_deflate(struct vb *vb)
{
	struct vb_pages *p = &vb->pages;

	if (p->oom_pause && time_before(jiffies, p->oom_at + msecs_to_jiffies(VB_OOM_BURST_MS)))
		p->oom_burst = min(p->oom_burst + 1, (unsigned int)VB_OOM_BURST_MAX);
	else
		p->oom_burst = 0;
	WRITE_ONCE(p->oom_pause, true);
	deflate(vb, clamp(READ_ONCE(oom_pages), VB_PER_PAGE, 1U << 20) << p->oom_burst, VB_FOR_OOM,
		(struct limits){in_ms(VB_OOM_WAIT_MS)});
	p->oom_at = jiffies;
}

static u64 released(struct vb_pages *p)
{
	return READ_ONCE(p->released[VB_FOR_TARGET]) + READ_ONCE(p->released[VB_FOR_OOM]);
}

/*
 * Is the host giving way?  It has been told of pressure and has not answered, or what it answered
 * has not been read yet, or not all is here that it has granted.
 */
static bool is_coming(struct vb *vb)
{
	struct vb_pages *p = &vb->pages;
	unsigned int held = READ_ONCE(p->held);

	if (!held)
		return false;
	if (READ_ONCE(p->target) < held || vb_pressure_unanswered(vb))
		return true;
	return READ_ONCE(vb->pressure.level) && test_bit(VB_TARGET_STALE, &p->flags);
}

unsigned long vb_pages_coming(struct vb *vb)
{
	struct vb_pages *p = &vb->pages;
	u64 before = released(p);

	if (is_coming(vb))
		wait_event_idle_timeout(p->released_wait, released(p) != before || !is_coming(vb),
					msecs_to_jiffies(VB_OOM_COMING_MS));
	return (released(p) - before) / VB_PER_PAGE;
}

unsigned long vb_pages_oom(struct vb *vb, unsigned long free)
{
	struct vb_pages *p = &vb->pages;
	u64 before = released(p), freed;

	if (vb_has(vb, VIRTIO_BALLOON_F_DEFLATE_ON_OOM))
		oom_deflate(vb);
	else if (READ_ONCE(p->held))
		/* The host knows by now, and may wish a smaller balloon: the work item obeys. */
		wait_event_idle_timeout(p->released_wait, released(p) != before,
					msecs_to_jiffies(VB_OOM_WAIT_MS));
	freed = (released(p) - before) / VB_PER_PAGE;
	/*
	 * While the host was waited for, here or for what was coming, others may have gone, the
	 * last victim of an OOM above all: the system does not look again before it chooses, and
	 * panics if nobody is left.
	 */
	if (!freed && global_zone_page_state(NR_FREE_PAGES) > free + totalram_pages() / 64)
		freed = 1;
	vb_pages_kick(vb);
	return freed;
}

void vb_pages_barrier(struct vb *vb)
{
	mutex_lock(&vb->pages.lock);
	mutex_unlock(&vb->pages.lock);
}

bool vb_pages_close(struct vb *vb)
{
	struct vb_pages *p = &vb->pages;
	/* A host that did not answer before need not be waited for again. */
	unsigned int patience_ms = p->inflate.late || p->deflate.late ? 100 : VB_PATIENCE_MS;
	unsigned long most = in_ms(VB_CLOSE_MS), end = in_ms(patience_ms);
	bool closed, alive;

	vb_pages_barrier(vb);
	do {
		unsigned int sent;

		alive = vb_ring_wait(&p->inflate, 0, in_ms(patience_ms), patience_ms);
		sent = deflate(vb, VB_ARRAYS * VB_ARRAY, VB_FOR_CLOSE,
			       (struct limits){in_ms(patience_ms), patience_ms});
		if (sent)
			end = in_ms(patience_ms);
		/* Broken: removed behind a shutdown, or torn out; there is no host any more. */
		alive = alive && vb_ring_wait(&p->deflate, 0, jiffies, 0) &&
			!vb_ring_is_broken(&p->deflate);
		closed = alive && !p->held;
		/* Compaction has some of them in its hands for a moment. */
		if (!closed && alive && !sent)
			schedule_timeout_idle(1);
	} while (!closed && alive && time_before(jiffies, end) && time_before(jiffies, most));
	if (closed)
		write_actual(vb);
	return closed;
}

void vb_pages_cut(struct vb *vb)
{
	vb_pages_barrier(vb);
	vb_ring_cut(&vb->pages.inflate);
	vb_ring_cut(&vb->pages.deflate);
}

void vb_pages_drop(struct vb *vb)
{
	struct vb_pages *p = &vb->pages;
	struct vb_array *array;
	LIST_HEAD(pages);

	vb_ring_stop(&p->inflate);
	vb_ring_stop(&p->deflate);
	mutex_lock(&p->lock);
	while ((array = vb_ring_returned(&p->inflate))) {
		release(&array->pages);
		p->inflating -= array->n;
		vb_ring_unclaim(&p->inflate, array);
	}
	while ((array = vb_ring_returned(&p->deflate)))
		settle_deflated(p, array);
	vb_migrate_settle(vb);
	for (;;) {
		size_t n = vb_list_take(&p->list, &pages, p->held / VB_PER_PAGE);

		vb_list_freed(&pages, p->adjust);
		release(&pages);
		p->held -= n * VB_PER_PAGE;
		p->released[VB_FOR_CLOSE] += n * VB_PER_PAGE;
		if (!p->held)
			break;
		/* Those that compaction has isolated come back in a moment. */
		mutex_unlock(&p->lock);
		schedule_timeout_idle(1);
		mutex_lock(&p->lock);
	}
	mutex_unlock(&p->lock);
}
