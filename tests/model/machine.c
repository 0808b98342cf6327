// SPDX-License-Identifier: MIT
#include "machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/checked.h"
#include "base/le.h"

#define PAGE       4096ULL
#define HALF       (MACHINE_PAGES / 2)
#define LOW_UADDR  0x10000ULL
#define HIGH_UADDR 0x100000000ULL

/* Low memory, then two regions whose pages do not begin at host page borders, with a gap. */
static const uint64_t gpa_high[2] = {0x2003000, 0x4005000};

/* One process, and the next. Large, for struct balloon's chains. */
static struct balloon processes[2];

uint32_t machine_random(struct machine *m, uint32_t n)
{
	m->random ^= m->random << 13;
	m->random ^= m->random >> 7;
	m->random ^= m->random << 17;
	return (uint32_t)(m->random >> 11) % n;
}

uint32_t machine_pfn(uint32_t page)
{
	return (uint32_t)(gpa_high[page / HALF] / PAGE) + page % HALF;
}

int64_t machine_page(uint32_t pfn)
{
	for (uint32_t half = 0; half < 2; half++) {
		uint64_t first = gpa_high[half] / PAGE;

		if (pfn >= first && pfn < first + HALF)
			return (int64_t)(half * HALF + pfn - first);
	}
	return -1;
}

uint32_t machine_half_end(uint32_t page)
{
	return (page / HALF + 1) * HALF;
}

uint64_t machine_gpa(const struct machine *m, const uint8_t *low)
{
	return MACHINE_LOW_GPA + (uint64_t)(low - m->low);
}

/* The process may die here. */
static void mortal_moment(struct machine *m)
{
	bool dies;

	if (!m->mortal)
		return;
	if (m->die_at)
		dies = --m->die_at == 0;
	else
		dies = m->config.death_in && machine_random(m, m->config.death_in) == 0;
	if (dies)
		longjmp(m->death, 1);
}

static void moment(struct machine *m, enum machine_moment what)
{
	if (m->watch)
		m->watch(m->opaque, what);
	mortal_moment(m);
}

static void guest_goes_on(struct machine *m, bool look)
{
	if (m->guest && (look || machine_random(m, 4) == 0))
		m->guest(m->opaque, look);
}

/* May page i lose its contents now? */
static bool may_discard(const struct machine *m, uint32_t i)
{
	switch (m->page[i]) {
	case PAGE_GIVING:
	case PAGE_HELD:
	case PAGE_REPORTED:
		return true;
	case PAGE_TAKING:
		return m->told; /* the guest waits for the acknowledgement */
	case PAGE_OWNED:
	case PAGE_HINTED:
	default:
		return false;
	}
}

static uint64_t on_discard(void *opaque, const struct balloon_range *ranges, uint32_t n)
{
	struct machine *m = opaque;
	uint64_t bytes = 0;

	moment(m, MOMENT_DISCARD);
	/* What has been returned by now may be in use again. */
	guest_goes_on(m, true);
	assert_false(m->inhibited);
	assert_false(m->poisoned);
	for (uint32_t i = 0; i < n; i++) {
		const struct balloon_range *r = &ranges[i];

		assert_in_range(r->region, 1, 2);
		assert_true(r->len && range_within(r->offset, r->len, HALF * PAGE));
		assert_int_equal((r->offset + m->mem.region[r->region].backing_offset) %
					 m->config.page_size,
				 0);
		assert_int_equal(r->len % m->config.page_size, 0);
		for (uint64_t at = r->offset; at < r->offset + r->len; at += PAGE) {
			uint32_t page = (r->region - 1) * HALF + (uint32_t)(at / PAGE);

			if (!may_discard(m, page))
				fail_msg("page %u is discarded while the guest may use it", page);
			m->discards[page]++;
		}
		bytes += r->len;
	}
	mortal_moment(m);
	return bytes;
}

static void on_config_changed(void *opaque)
{
	struct machine *m = opaque;

	moment(m, MOMENT_CONFIG);
	m->config_news = true;
	m->config_changes++;
	m->told_pages = m->balloon->st.num_pages;
	mortal_moment(m);
}

static void on_notify(void *opaque, uint32_t ring)
{
	struct machine *m = opaque;

	moment(m, MOMENT_NOTIFY);
	m->notified[ring] = true;
	guest_goes_on(m, false);
	mortal_moment(m);
}

static void on_broken(void *opaque, uint32_t ring)
{
	struct machine *m = opaque;

	fail_msg("ring %u broke: %s", ring, vq_error_name(m->vq[ring].st.error));
}

static void on_event(void *opaque, enum balloon_event event)
{
	struct machine *m = opaque;

	(void)event;
	moment(m, MOMENT_EVENT);
	guest_goes_on(m, false);
}

static uint64_t messages(const struct balloon_state *st)
{
	uint64_t n = 0;

	for (uint32_t level = 0; level < VIRTIO_BALLOON_PRESSURE_NR; level++)
		n += st->pressure.messages[level];
	return n;
}

/*
 * A message's buffer is about to be returned: by then the target is what the policy says, and the
 * guest has been told of it.
 */
static void check_answer(const struct machine *m)
{
	const struct balloon_state *st = &m->balloon->st;
	int8_t ring = st->ring_of[VIRTIO_BALLOON_VQ_MESSAGE];
	uint64_t pages = m->balloon->held.count;

	if (ring < 0 || !m->vq[ring].st.pushing || m->vq[ring].st.used == m->saved.vq[ring].used)
		return;
	assert_int_equal(m->told_pages, st->num_pages);
	if (m->policy.on_pressure == BALLOON_PRESSURE_REPORT ||
	    messages(st) == messages(&m->saved.st))
		return;
	if (m->policy.on_pressure == BALLOON_PRESSURE_DEFLATE)
		pages -= min_u64(pages, m->policy.step_pages[st->pressure.level]);
	assert_true(st->num_pages <= pages);
}

/* Figures that are known do not become news by being read again: each set here is another. */
static void check_figures(const struct machine *m)
{
	const struct balloon_stats *now = &m->balloon->st.stats, *was = &m->saved.st.stats;
	const int tag = VIRTIO_BALLOON_S_MEMFREE;

	if (now->ever && was->ever && now->set >> tag & 1 && now->value[tag] == was->value[tag])
		assert_int_equal(now->arrived.mono_ms, was->arrived.mono_ms);
}

size_t machine_map_bytes(const struct machine *m)
{
	return pageset_words(&m->mem) * sizeof(uint64_t);
}

static void save(struct machine *m)
{
	struct machine_saved *to = &m->saved;
	size_t bytes = machine_map_bytes(m);

	to->st = m->balloon->st;
	for (uint32_t i = 0; i < MACHINE_RINGS; i++)
		to->vq[i] = m->vq[i].st;
	memcpy(to->running, m->running, sizeof(to->running));
	to->half = m->half;
	to->held.n = m->balloon->held.at.n;
	to->hints.n = m->balloon->hints.at.n;
	memcpy(to->held.region, m->balloon->held.at.region,
	       to->held.n * sizeof(to->held.region[0]));
	memcpy(to->hints.region, m->balloon->hints.at.region,
	       to->hints.n * sizeof(to->hints.region[0]));
	memcpy(to->held_was, m->held[m->half], bytes);
	memcpy(to->hints_was, m->hints[m->half], bytes);
}

/* The place of a used buffer is written, and the process dies before it says so. */
static void publish_half(const struct vq *vq)
{
	const struct vq_state *st = &vq->st;
	uint32_t used = st->used;
	uint8_t *entry;

	if (!st->pushing)
		return;
	if (!st->packed) {
		entry = vq->device + VRING_USED_RING((used - 1) & (st->size - 1));
		le32_put(entry, st->push_id);
		le32_put(entry + 4, st->push_written);
		return;
	}
	used = used < st->pushing ? used + st->size - st->pushing : used - st->pushing;
	entry = vq->desc + (size_t)used * VRING_DESC_SIZE;
	le32_put(entry + offsetof(struct vring_packed_desc, len), st->push_written);
	le16_put(entry + offsetof(struct vring_packed_desc, id), st->push_id);
}

void machine_commit(void *opaque)
{
	struct machine *m = opaque;

	check_answer(m);
	check_figures(m);
	moment(m, MOMENT_COMMIT);
	save(m);
	m->done = m->finishing;
	guest_goes_on(m, false);
	if (m->mortal && m->config.death_in && machine_random(m, 2 * m->config.death_in) == 0) {
		for (uint32_t i = 0; i < MACHINE_RINGS; i++)
			publish_half(&m->vq[i]);
		longjmp(m->death, 1);
	}
	mortal_moment(m);
}

static const struct balloon_ops ops = {on_discard, on_config_changed, on_notify,
				       on_broken,  on_event,          machine_commit};

void machine_lay_out_memory(struct machine *m)
{
	struct guest_region low = {.gpa = MACHINE_LOW_GPA,
				   .size = m->config.low_bytes,
				   .uaddr = LOW_UADDR,
				   .page_size = PAGE};

	m->mem.n = 0;
	assert_int_equal(guest_mem_add(&m->mem, &low, m->low), 0);
	for (uint32_t i = 0; i < 2; i++) {
		struct guest_region high = {
			.gpa = gpa_high[i],
			.size = HALF * PAGE,
			.uaddr = gpa_high[i] + HIGH_UADDR,
			.page_size = m->config.page_size,
			.backing_offset = gpa_high[i],
		};

		assert_int_equal(guest_mem_add(&m->mem, &high, m->high[i]), 0);
	}
}

/* A process begins, and knows nothing. */
static void begin_process(struct machine *m)
{
	struct balloon *b = m->balloon == &processes[0] ? &processes[1] : &processes[0];

	memset(b, 0xa5, offsetof(struct balloon, chain));
	balloon_init(b, m->config.offered, &ops, m);
	for (uint32_t i = 0; i < MACHINE_RINGS; i++)
		b->vq[i] = &m->vq[i];
	b->policy = m->policy;
	m->balloon = b;
}

static uint64_t *new_map(const struct machine *m)
{
	uint64_t *map = calloc(1, machine_map_bytes(m));

	assert_non_null(map);
	return map;
}

void machine_init(struct machine *m, const struct machine_config *config, uint64_t seed)
{
	memset(m, 0, sizeof(*m));
	m->config = *config;
	m->config.low_bytes = align_up(config->low_bytes, PAGE);
	m->random = seed * 0x9e3779b97f4a7c15ULL + 1;
	m->low = aligned_alloc(PAGE, m->config.low_bytes);
	assert_non_null(m->low);
	for (uint32_t i = 0; i < 2; i++) {
		m->high[i] = mmap(NULL, HALF * PAGE, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		assert_ptr_not_equal(m->high[i], MAP_FAILED);
	}
	machine_lay_out_memory(m);
	for (uint32_t i = 0; i < 2; i++) {
		m->held[i] = new_map(m);
		m->hints[i] = new_map(m);
	}
	m->saved.held_was = new_map(m);
	m->saved.hints_was = new_map(m);
	begin_process(m);
	balloon_memory_changed(m->balloon, &m->mem, m->held[0], m->hints[0]);
	save(m);
}

void machine_free(struct machine *m)
{
	free(m->low);
	for (uint32_t i = 0; i < 2; i++) {
		free(m->held[i]);
		free(m->hints[i]);
		munmap(m->high[i], HALF * PAGE);
	}
	free(m->saved.held_was);
	free(m->saved.hints_was);
}

/* Bits that have changed since they were saved: some had not come to that yet. */
static void leave_bitmap(struct machine *m, uint64_t *map, const uint64_t *was)
{
	for (uint64_t i = 0; i < pageset_words(&m->mem); i++) {
		uint64_t come;

		if (map[i] == was[i])
			continue;
		come = (uint64_t)machine_random(m, 1U << 31) << 33 ^
		       (uint64_t)machine_random(m, 1U << 31) << 11 ^ machine_random(m, 1U << 31);
		map[i] = (map[i] & come) | (was[i] & ~come);
	}
}

/* Another process takes over; the front end and the guest are as they were. */
void machine_take_over(struct machine *m)
{
	const struct machine_saved *from = &m->saved;
	struct pageset held, hints;

	m->deaths++;
	m->half = from->half;
	leave_bitmap(m, m->held[m->half], from->held_was);
	leave_bitmap(m, m->hints[m->half], from->hints_was);
	memset(m->vq, 0, sizeof(m->vq));
	begin_process(m);
	pageset_attach(&held, &from->held, m->held[m->half]);
	pageset_attach(&hints, &from->hints, m->hints[m->half]);
	balloon_restore(m->balloon, &from->st, &m->mem, &held, &hints);
	for (uint32_t i = 0; i < MACHINE_RINGS; i++) {
		m->vq[i].st = from->vq[i];
		m->running[i] = from->running[i];
		if (m->running[i])
			assert_int_equal(vq_recover(&m->vq[i], &m->mem), 0);
	}
	for (uint32_t i = 0; i < MACHINE_RINGS; i++) {
		if (!m->running[i])
			continue;
		(void)balloon_queue_started(m->balloon, i, true);
		m->runnable[i] = true;
		if (vq_should_notify(&m->vq[i]))
			m->notified[i] = true;
	}
	/* What it said of the configuration may not have been what was saved. */
	m->config_news = true;
	m->told_pages = m->balloon->st.num_pages;
	/* The bitmaps stay as they are now. */
	save(m);
}

void machine_set_page(struct machine *m, uint32_t page, enum page_state state)
{
	m->page[page] = state;
	if (state == PAGE_OWNED || state == PAGE_HINTED) {
		m->discards[page] = 0;
		m->excused[page] = false;
	} else if (m->inhibited || m->poisoned) {
		m->excused[page] = true;
	}
}

void machine_swept(struct machine *m, enum page_state state)
{
	if (!m->told || m->inhibited || m->poisoned || m->balloon->st.sweep.active)
		return;
	for (uint32_t i = 0; i < MACHINE_PAGES; i++) {
		if (m->page[i] == state)
			m->excused[i] = false;
	}
}

void machine_check_discarded(const struct machine *m, enum page_state state)
{
	uint32_t per = (uint32_t)(m->config.page_size / PAGE);

	for (uint32_t half = 0; half < 2; half++) {
		uint32_t first = (uint32_t)(gpa_high[half] / PAGE % per);

		/* The first page that begins at a border of host pages. */
		for (uint32_t at = (per - first) % per; at + per <= HALF; at += per) {
			uint32_t n = 0, page = half * HALF + at;

			for (uint32_t i = page; i < page + per; i++)
				n += m->page[i] == state && !m->excused[i];
			if (n == per)
				assert_int_not_equal(m->discards[page], 0);
		}
	}
}

uint64_t machine_host_page(const struct machine *m, uint32_t page, uint32_t *first)
{
	uint32_t per = (uint32_t)(m->config.page_size / PAGE);
	uint32_t at = machine_pfn(page) % per;

	/* Part of one that begins before the region, or ends behind it. */
	if (page % HALF < at || page % HALF - at + per > HALF)
		return 0;
	*first = page - at;
	return per;
}
