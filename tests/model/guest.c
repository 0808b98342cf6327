// SPDX-License-Identifier: MIT
#include "guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/checked.h"
#include "base/le.h"

#define PAGE      4096ULL
#define RING_SIZE 64U

/* Room for rings and buffers at their largest. */
#define LOW_BYTES (256U << 10)
#define ARRAY_MAX 4096U

#define BIT(n) (1ULL << (n))

/* The page's index, which must be there. */
static uint32_t page_of(uint32_t pfn)
{
	int64_t page = machine_page(pfn);

	assert_true(page >= 0);
	return (uint32_t)page;
}

/* A run of pages that are the guest's: from *page on, at most max. */
static uint32_t find_free(struct guest *g, uint32_t max, uint32_t *page)
{
	struct machine *m = &g->m;
	uint32_t at = machine_random(m, MACHINE_PAGES), n = 0;

	for (uint32_t i = 0; i < MACHINE_PAGES; i++) {
		*page = (at + i) % MACHINE_PAGES;
		if (m->page[*page] == PAGE_OWNED)
			break;
	}
	while (*page + n < machine_half_end(*page) && n < max && m->page[*page + n] == PAGE_OWNED)
		n++;
	return n;
}

static uint32_t on_take(void *opaque, enum driver_use use, uint32_t max, uint32_t *pfn)
{
	static const enum page_state state[] = {
		[DRIVER_FOR_BALLOON] = PAGE_GIVING,
		[DRIVER_FOR_HINT] = PAGE_HINTED,
		[DRIVER_FOR_REPORT] = PAGE_REPORTED,
	};
	struct guest *g = opaque;
	uint32_t page, n, wish = 1 + machine_random(&g->m, machine_random(&g->m, 2) ? 40 : 600);

	if (use == DRIVER_FOR_BALLOON && g->generous)
		wish = max;
	else if (machine_random(&g->m, use == DRIVER_FOR_BALLOON ? 16 : 5) == 0)
		return 0;
	n = find_free(g, (uint32_t)min_u64(wish, max), &page);
	if (!n)
		return 0;
	for (uint32_t i = 0; i < n; i++) {
		machine_set_page(&g->m, page + i, state[use]);
		if (use == DRIVER_FOR_HINT)
			g->hint_id[page + i] = g->d.hint.id;
	}
	*pfn = machine_pfn(page);
	if (use == DRIVER_FOR_BALLOON)
		g->done.inflated += n;
	else if (use == DRIVER_FOR_REPORT)
		g->done.reported += n;
	return n;
}

/* Is it in the balloon as the device sees it? */
static bool is_held(const struct guest *g, uint32_t pfn)
{
	const struct pageset *held = &g->m.balloon->held;
	uint64_t n = 1, page;
	int region = pageset_locate(held, pfn, &n, &page);

	return region >= 0 && pageset_all(held, (uint32_t)region, page, 1);
}

/* A report has come back: whole host pages in it are gone, if nothing spoke against it. */
static void check_reported(const struct guest *g, uint32_t page, uint32_t n)
{
	const struct machine *m = &g->m;

	for (uint32_t i = page; i < page + n;) {
		uint32_t first, per = (uint32_t)machine_host_page(m, i, &first);
		bool excused = false;

		if (!per || first < page || first + per > page + n) {
			i++;
			continue;
		}
		for (uint32_t j = first; j < first + per; j++)
			excused = excused || m->excused[j];
		if (!excused)
			assert_int_not_equal(m->discards[first], 0);
		i = first + per;
	}
}

static void on_give(void *opaque, enum driver_use use, uint32_t pfn, uint32_t n)
{
	struct guest *g = opaque;
	uint32_t page = page_of(pfn);

	assert_int_equal(page_of(pfn + n - 1), page + n - 1);
	if (use == DRIVER_FOR_REPORT && !g->resetting)
		check_reported(g, page, n);
	for (uint32_t i = 0; i < n; i++) {
		enum page_state was = g->m.page[page + i];

		switch (use) {
		case DRIVER_FOR_BALLOON:
			if (!g->resetting) {
				assert_int_equal(was, PAGE_GIVING);
				/* It was not to be used before the device knew. */
				if (g->m.told)
					assert_false(is_held(g, pfn + i));
				g->done.deflated++;
			}
			break;
		case DRIVER_FOR_HINT:
			assert_true(g->resetting || was == PAGE_HINTED);
			break;
		case DRIVER_FOR_REPORT:
		default:
			assert_true(g->resetting || was == PAGE_REPORTED);
			break;
		}
		machine_set_page(&g->m, page + i, PAGE_OWNED);
	}
}

static void on_config_read(void *opaque, uint32_t offset, uint8_t *buf, uint32_t len)
{
	machine_read_config(&((struct guest *)opaque)->m, offset, buf, len);
}

static void on_config_write(void *opaque, uint32_t offset, const uint8_t *buf, uint32_t len)
{
	struct guest *g = opaque;
	uint32_t value;

	assert_int_equal(len, sizeof(value));
	value = le32_get(buf);
	if (offset == offsetof(struct virtio_balloon_config, actual))
		machine_write_actual(&g->m, value);
	else if (offset == offsetof(struct virtio_balloon_config, poison_val))
		machine_write_poison(&g->m, value);
	else
		fail_msg("the driver writes at %u", offset);
}

static void on_kick(void *opaque, uint32_t ring)
{
	machine_kick(&((struct guest *)opaque)->m, ring);
}

/* Figures that tell how many there were before. */
static void on_statistics(void *opaque, struct driver_statistics *s)
{
	struct guest *g = opaque;

	g->done.statistics++;
	s->value[VIRTIO_BALLOON_S_MEMFREE] = g->done.statistics;
	s->value[VIRTIO_BALLOON_S_MEMTOT] = ~g->done.statistics;
	s->set = BIT(VIRTIO_BALLOON_S_MEMFREE) | BIT(VIRTIO_BALLOON_S_MEMTOT);
}

static const struct driver_balloon_ops ops = {on_take,         on_give, on_config_read,
					      on_config_write, on_kick, on_statistics};

/* On another processor, in the middle of the device's work. */
static void goes_on(void *opaque, bool look)
{
	struct guest *g = opaque;
	struct machine *m = &g->m;

	if (g->in_driver || !g->d.running)
		return;
	g->in_driver = true;
	driver_balloon_used(&g->d, m->now.mono_ms);
	if (!look && machine_random(m, 8) == 0)
		(void)driver_balloon_report(&g->d);
	if (!look && machine_random(m, 16) == 0)
		(void)driver_balloon_oom(&g->d, machine_random(m, 300), m->now.mono_ms);
	if (!look && machine_random(m, 8) == 0)
		(void)driver_balloon_pressure(&g->d, machine_random(m, VIRTIO_BALLOON_PRESSURE_NR),
					      m->now.mono_ms);
	g->in_driver = false;
}

void guest_init(struct guest *g, const struct guest_config *config, uint64_t seed)
{
	const struct machine_config machine = {
		.offered = config->offered,
		.page_size = config->page_size,
		.low_bytes = LOW_BYTES,
		.death_in = config->death_in,
	};

	memset(g, 0, sizeof(*g));
	g->config = *config;
	machine_init(&g->m, &machine, seed);
	g->m.guest = goes_on;
	g->m.opaque = g;
}

void guest_free(struct guest *g)
{
	machine_free(&g->m);
}

/* Rings are set up in some order. */
static void start_rings(struct guest *g)
{
	uint32_t todo = 0;

	for (uint32_t queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++)
		todo |= g->d.ring_of[queue] >= 0 ? 1U << queue : 0;
	while (todo) {
		uint32_t queue = machine_random(&g->m, VIRTIO_BALLOON_VQ_COUNT);
		const struct driver_ring *ring = &g->d.ring[queue];
		struct machine_ring at = {.size = ring->size, .desc = g->d.ring_gpa[queue]};

		if (!(todo >> queue & 1))
			continue;
		todo &= ~(1U << queue);
		at.driver = at.desc + driver_ring_driver_offset(ring->size);
		at.device = at.desc + driver_ring_device_offset(ring->packed, ring->size);
		machine_start_ring(&g->m, (uint32_t)g->d.ring_of[queue], &at);
		machine_run(&g->m, machine_random(&g->m, MACHINE_RINGS));
	}
}

void guest_start(struct guest *g, const struct guest_driver *driver)
{
	struct driver_balloon_setup setup = {
		.offered = g->m.balloon->st.offered,
		.wanted = driver->wanted,
		.numbering = driver->numbering,
		.array_pfns = driver->array_pfns,
		.poison = driver->poison,
		.poison_val = driver->poison_val,
		.first_pfn = machine_pfn(0),
		.pages = GUEST_SPAN,
		.in_balloon = g->in_balloon,
		.hinted = g->hinted,
		.ops = &ops,
		.opaque = g,
	};

	for (uint32_t queue = 0; queue < VIRTIO_BALLOON_VQ_COUNT; queue++)
		setup.ring_size[queue] = RING_SIZE;
	assert_true(machine_pfn(MACHINE_PAGES - 1) - machine_pfn(0) < GUEST_SPAN);
	assert_true(!driver->array_pfns || driver->array_pfns <= ARRAY_MAX);
	g->driver = *driver;
	assert_int_equal(driver_balloon_init(&g->d, &setup), 0);
	assert_true(driver_balloon_bytes(&g->d) <= LOW_BYTES);
	memset(g->m.low, 0, LOW_BYTES);
	machine_set_features(&g->m, g->d.features);
	memset(&g->done, 0, sizeof(g->done));
	memset(g->hint_id, 0, sizeof(g->hint_id));
	g->in_driver = true;
	driver_balloon_prepare(&g->d, g->m.low, MACHINE_LOW_GPA);
	/* The device may take the first statistics while rings are started. */
	g->base = g->m.balloon->st;
	g->lost_id = 0;
	start_rings(g);
	driver_balloon_start(&g->d, g->m.now.mono_ms);
	g->in_driver = false;
}

void guest_stop(struct guest *g, bool politely)
{
	if (politely) {
		g->in_driver = true;
		driver_balloon_close(&g->d, g->m.now.mono_ms);
		g->in_driver = false;
		guest_settle(g);
		assert_true(driver_balloon_closed(&g->d));
		assert_int_equal(balloon_held_bytes(g->m.balloon), 0);
		assert_int_equal(g->m.balloon->st.actual, 0);
	}
	g->in_driver = true;
	machine_reset(&g->m);
	g->resetting = true;
	driver_balloon_reset(&g->d);
	g->resetting = g->in_driver = false;
	for (uint32_t i = 0; i < GUEST_SPAN / BITMAP_WORD_BITS; i++)
		assert_int_equal(g->in_balloon[i] | g->hinted[i], 0);
}

static bool was_notified(struct machine *m)
{
	bool any = false;

	for (uint32_t i = 0; i < MACHINE_RINGS; i++) {
		any = any || m->notified[i];
		m->notified[i] = false;
	}
	return any;
}

void guest_work(struct guest *g)
{
	struct machine *m = &g->m;
	uint64_t now = m->now.mono_ms;

	g->in_driver = true;
	if (was_notified(m))
		driver_balloon_used(&g->d, now);
	if (m->config_news) {
		m->config_news = false;
		driver_balloon_config_changed(&g->d, now);
	}
	if (driver_balloon_next_tick(&g->d) <= now)
		driver_balloon_tick(&g->d, now);
	g->in_driver = false;
}

/* Is anything under way that comes to an end by itself? Statistics on time do not. */
static bool unsettled(const struct guest *g)
{
	const struct machine *m = &g->m;
	const struct driver_balloon *d = &g->d;
	const struct balloon_state *st = &m->balloon->st;

	for (uint32_t i = 0; i < MACHINE_RINGS; i++) {
		if (m->runnable[i] || m->notified[i])
			return true;
	}
	return m->config_news || st->sweep.active || st->message_due_ms || d->pages.inflate.out ||
	       d->pages.deflate.out || d->pages.retry_ms || d->message.out ||
	       d->message.pending >= 0 || d->message.relief || d->report.out || d->hint.id ||
	       d->hint.out || d->hint.start_out || d->hint.stop_out ||
	       (d->stats.interval_ms && d->stats.out);
}

void guest_settle(struct guest *g)
{
	struct machine *m = &g->m;
	uint32_t rounds = 0;

	g->generous = true;
	do {
		for (uint32_t ring = 0; ring < MACHINE_RINGS; ring++)
			machine_run(m, ring);
		guest_work(g);
		/* Rather than to be short of memory. */
		if (g->d.pages.retry_ms)
			(void)driver_balloon_take_hinted(&g->d, MACHINE_PAGES);
		if (balloon_next_tick(m->balloon) <= m->now.mono_ms)
			machine_tick(m);
		/* Time goes on if nothing else does. */
		m->now.mono_ms += rounds % 8 == 7 ? 5 : 0;
		if (rounds++ > 200000)
			fail_msg("no end: something is forgotten");
	} while (unsettled(g));
	g->generous = false;
	machine_swept(m, PAGE_GIVING);
}

static void check_pages(const struct guest *g)
{
	const struct machine *m = &g->m;
	const struct balloon_state *st = &m->balloon->st;
	uint64_t given = 0;

	for (uint32_t i = 0; i < MACHINE_PAGES; i++) {
		given += m->page[i] == PAGE_GIVING;
		assert_int_not_equal(m->page[i], PAGE_REPORTED);
	}
	assert_int_equal(g->d.pages.count, given);
	assert_int_equal(st->actual, given);
	assert_int_equal(balloon_held_bytes(m->balloon), given * PAGE);
	assert_int_equal(st->inflated_pages - g->base.inflated_pages, g->done.inflated);
	assert_int_equal(st->deflated_pages - g->base.deflated_pages, g->done.deflated);
	assert_int_equal(st->reported_bytes - g->base.reported_bytes, g->done.reported * PAGE);
	for (int i = BALLOON_ERR_PFN; i < BALLOON_ERR_COUNT; i++) {
		/* The driver may begin a command that has just been replaced. */
		if (i != BALLOON_ERR_MESSAGE_FLOOD && i != BALLOON_ERR_HINT_ID)
			assert_int_equal(st->errors[i], g->base.errors[i]);
	}
	/* Nothing keeps the driver from the target but that it was short of memory once. */
	if (!g->d.closing && !g->d.pages.oom_pause)
		assert_int_equal(given, st->num_pages);
	if (m->told || m->config.page_size == PAGE)
		machine_check_discarded(m, PAGE_GIVING);
}

static void check_stats(const struct guest *g)
{
	const struct driver_stats *s = &g->d.stats;
	const struct balloon_state *st = &g->m.balloon->st;
	const int queue = VIRTIO_BALLOON_VQ_STATS;
	/* Legacy: the first one said nothing. */
	uint64_t least = driver_balloon_has(&g->d, VIRTIO_F_VERSION_1) ? 1 : 2;

	if (!driver_balloon_has(&g->d, VIRTIO_BALLOON_F_STATS_VQ) || g->d.closing)
		return;
	assert_int_equal(s->sent, g->done.statistics);
	assert_int_equal(st->buffers[queue] - g->base.buffers[queue], s->sent);
	/* One at the device to be asked with; none while they are pushed. */
	assert_int_equal(s->out, !s->interval_ms);
	assert_int_equal(st->stats_held, s->out);
	assert_int_equal(s->interval_ms != 0, balloon_pushing(g->m.balloon));
	if (s->sent < least)
		return;
	assert_true(st->stats.ever);
	assert_int_equal(st->stats.value[VIRTIO_BALLOON_S_MEMFREE], s->sent);
	assert_int_equal(st->stats.value[VIRTIO_BALLOON_S_MEMTOT], ~s->sent);
	if (!s->interval_ms)
		assert_false(st->stats_awaited);
}

static uint64_t all_messages(const struct balloon_state *st)
{
	uint64_t n = st->pressure.relieved;

	for (uint32_t level = 0; level < VIRTIO_BALLOON_PRESSURE_NR; level++)
		n += st->pressure.messages[level];
	return n;
}

static void check_messages(const struct guest *g)
{
	const struct balloon_state *st = &g->m.balloon->st;
	const int queue = VIRTIO_BALLOON_VQ_MESSAGE;

	assert_int_equal(all_messages(st) - all_messages(&g->base), g->d.message.sent);
	assert_int_equal(st->buffers[queue] - g->base.buffers[queue], g->d.message.sent);
	assert_false(g->d.message.waiting);
	assert_int_equal(g->d.message.timeouts, 0);
}

/* The bitmap is what was hinted under the command's id, or less if it was cut short. */
static void check_hints(const struct guest *g)
{
	const struct balloon *b = g->m.balloon;
	const struct balloon_hint *h = &b->st.hint;
	bool all = h->id != g->lost_id && h->state == BALLOON_HINT_FINISHED;

	/* The driver has done what it was asked to. */
	if (driver_balloon_has(&g->d, VIRTIO_BALLOON_F_FREE_PAGE_HINT) && !g->d.closing)
		assert_true(h->state != BALLOON_HINT_REQUESTED && h->state != BALLOON_HINT_HINTING);

	for (uint32_t i = 0; i < MACHINE_PAGES; i++) {
		uint64_t n = 1, page;
		int region = pageset_locate(&b->hints, machine_pfn(i), &n, &page);
		bool marked = pageset_all(&b->hints, (uint32_t)region, page, 1);
		bool hinted = h->id && g->hint_id[i] == h->id;

		if (marked)
			assert_true(hinted);
		if (all && hinted)
			assert_true(marked);
	}
}

void guest_check(struct guest *g)
{
	check_pages(g);
	check_stats(g);
	check_messages(g);
	check_hints(g);
}

static void operate(struct guest *g)
{
	static const uint32_t intervals[] = {0, 0, 10, 25, 100};
	static const enum balloon_hint_action actions[] = {
		BALLOON_HINT_START, BALLOON_HINT_START, BALLOON_HINT_START,
		BALLOON_HINT_START, BALLOON_HINT_STOP,  BALLOON_HINT_FINISH,
	};
	struct machine *m = &g->m;

	switch (machine_random(m, 9)) {
	case 0:
	case 1:
		machine_set_target(m, machine_random(m, MACHINE_PAGES * 3 / 4));
		break;
	case 2:
		machine_request_stats(m);
		break;
	case 3:
		machine_set_poll(m, machine_random(m, 2) ? 0 : 20 + machine_random(m, 100));
		break;
	case 4:
		machine_set_push(m, intervals[machine_random(m, 5)]);
		break;
	case 5:
	case 6:
	case 7:
		machine_hint(m, actions[machine_random(m, 6)]);
		break;
	default:
		if (machine_random(m, 2) == 0)
			machine_inhibit(m, !m->inhibited);
		break;
	}
}

static void press(struct guest *g)
{
	struct machine *m = &g->m;
	uint64_t now = m->now.mono_ms;

	g->in_driver = true;
	switch (machine_random(m, 5)) {
	case 0:
		(void)driver_balloon_pressure(&g->d, machine_random(m, VIRTIO_BALLOON_PRESSURE_NR),
					      now);
		break;
	case 1:
		(void)driver_balloon_relieved(&g->d, now);
		break;
	case 2:
		(void)driver_balloon_oom(&g->d, machine_random(m, 600), now);
		break;
	case 3:
		(void)driver_balloon_report(&g->d);
		break;
	default:
		(void)driver_balloon_take_hinted(&g->d, machine_random(m, 200));
		break;
	}
	g->in_driver = false;
}

void guest_live(struct guest *g)
{
	struct machine *m = &g->m;

	switch (machine_random(m, 16)) {
	case 0:
		machine_resume(m, machine_random(m, MACHINE_RINGS));
		break;
	case 1:
		if (machine_random(m, 4) == 0) {
			g->lost_id = m->balloon->st.hint.id;
			machine_remap(m);
		}
		break;
	case 2:
	case 3:
		operate(g);
		break;
	case 4:
	case 5:
		press(g);
		break;
	case 6:
		m->now.mono_ms += machine_random(m, 60);
		break;
	case 7:
		machine_tick(m);
		break;
	case 8:
	case 9:
	case 10:
		guest_work(g);
		break;
	case 11:
		if (machine_random(m, 6) == 0) {
			guest_settle(g);
			guest_check(g);
		}
		break;
	default:
		machine_run(m, machine_random(m, MACHINE_RINGS));
		break;
	}
}
