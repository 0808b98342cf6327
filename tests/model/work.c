// SPDX-License-Identifier: MIT
/*
 * What the device's process is given to do: the front end's messages, the operator's commands, the
 * rings' turns. All of it may end in the process's death.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/le.h"
#include "machine.h"

/* For what a guest reads in the middle of the process's work. */
static struct balloon as_saved;

struct work {
	void (*run)(struct machine *m, const struct work *w);
	uint32_t ring;
	uint64_t value;
	const struct machine_ring *at;
};

/* True if it was done; if not the process has died. Then the next one is there in any case. */
static bool attempt(struct machine *m, const struct work *w)
{
	m->busy = true;
	m->done = m->finishing = false;
	if (setjmp(m->death)) {
		m->mortal = m->busy = false;
		machine_take_over(m);
		return m->done;
	}
	m->mortal = true;
	w->run(m, w);
	m->finishing = true;
	machine_commit(m);
	m->mortal = m->busy = false;
	return true;
}

static void run_write_actual(struct machine *m, const struct work *w)
{
	uint8_t raw[sizeof(uint32_t)];

	le32_put(raw, (uint32_t)w->value);
	balloon_config_write(m->balloon, offsetof(struct virtio_balloon_config, actual), raw,
			     sizeof(raw));
}

/* What the guest wrote while the process was at work. */
static void catch_up(struct machine *m)
{
	while (m->actual_waits) {
		struct work w = {.run = run_write_actual, .value = m->actual};

		m->actual_waits = false;
		if (!attempt(m, &w))
			m->actual_waits = true;
	}
}

static void once(struct machine *m, const struct work *w)
{
	(void)attempt(m, w);
	catch_up(m);
}

static void repeat(struct machine *m, const struct work *w)
{
	while (!attempt(m, w))
		;
	catch_up(m);
}

void machine_write_actual(struct machine *m, uint32_t actual)
{
	m->actual = actual;
	m->actual_waits = true;
	if (!m->busy)
		catch_up(m);
}

static void run_write_poison(struct machine *m, const struct work *w)
{
	uint8_t raw[sizeof(uint32_t)];

	le32_put(raw, (uint32_t)w->value);
	balloon_config_write(m->balloon, offsetof(struct virtio_balloon_config, poison_val), raw,
			     sizeof(raw));
}

void machine_write_poison(struct machine *m, uint32_t value)
{
	struct work w = {.run = run_write_poison, .value = value};

	repeat(m, &w);
	m->poisoned = value && m->features >> VIRTIO_BALLOON_F_PAGE_POISON & 1;
}

static void run_set_features(struct machine *m, const struct work *w)
{
	assert_int_equal(balloon_set_features(m->balloon, w->value), 0);
}

void machine_set_features(struct machine *m, uint64_t features)
{
	struct work w = {.run = run_set_features, .value = features};

	repeat(m, &w);
	m->features = features;
	m->told = features >> VIRTIO_BALLOON_F_MUST_TELL_HOST & 1;
}

static void wake(struct machine *m, uint32_t rings)
{
	for (uint32_t i = 0; i < MACHINE_RINGS; i++)
		m->runnable[i] = m->runnable[i] || rings >> i & 1;
}

static void run_start_ring(struct machine *m, const struct work *w)
{
	struct vq *vq = &m->vq[w->ring];

	vq_set_features(vq, m->features);
	vq->st.size = w->at->size;
	vq->st.desc_uaddr = w->at->desc;
	vq->st.driver_uaddr = w->at->driver;
	vq->st.device_uaddr = w->at->device;
	vq_set_base(vq, vq_fresh_base(vq->st.packed));
	assert_int_equal(vq_start(vq, &m->mem), 0);
	m->running[w->ring] = true;
	wake(m, balloon_queue_started(m->balloon, w->ring, false));
}

void machine_start_ring(struct machine *m, uint32_t ring, const struct machine_ring *at)
{
	struct work w = {.run = run_start_ring, .ring = ring, .at = at};

	repeat(m, &w);
}

static void stop_ring(struct machine *m, uint32_t ring)
{
	balloon_queue_stopped(m->balloon, ring);
	vq_stop(&m->vq[ring]);
	m->running[ring] = false;
}

static void run_pause(struct machine *m, const struct work *w)
{
	stop_ring(m, w->ring);
}

static void run_go_on(struct machine *m, const struct work *w)
{
	struct vq *vq = &m->vq[w->ring];

	vq_set_base(vq, vq_base(vq));
	assert_int_equal(vq_start(vq, &m->mem), 0);
	m->running[w->ring] = true;
	wake(m, balloon_queue_started(m->balloon, w->ring, true));
}

void machine_resume(struct machine *m, uint32_t ring)
{
	struct work pause = {.run = run_pause, .ring = ring};
	struct work go_on = {.run = run_go_on, .ring = ring};

	if (!m->running[ring])
		return;
	repeat(m, &pause);
	repeat(m, &go_on);
}

static void run_remap(struct machine *m, const struct work *w)
{
	uint32_t other = !m->half;

	(void)w;
	balloon_memory_changing(m->balloon);
	machine_lay_out_memory(m);
	for (uint32_t i = 0; i < MACHINE_RINGS; i++) {
		if (m->running[i])
			assert_int_equal(vq_remap(&m->vq[i]), 0);
	}
	memset(m->held[other], 0, machine_map_bytes(m));
	memset(m->hints[other], 0, machine_map_bytes(m));
	balloon_memory_changed(m->balloon, &m->mem, m->held[other], m->hints[other]);
	m->half = other;
}

void machine_remap(struct machine *m)
{
	struct work w = {.run = run_remap};

	repeat(m, &w);
	/* What was in hand has gone back to its ring. */
	for (uint32_t i = 0; i < MACHINE_RINGS; i++)
		m->runnable[i] = m->running[i];
}

static void run_reset(struct machine *m, const struct work *w)
{
	(void)w;
	for (uint32_t i = 0; i < MACHINE_RINGS; i++) {
		if (m->running[i])
			stop_ring(m, i);
		m->runnable[i] = m->notified[i] = false;
	}
	balloon_reset(m->balloon);
}

void machine_reset(struct machine *m)
{
	struct work w = {.run = run_reset};

	repeat(m, &w);
	for (uint32_t i = 0; i < MACHINE_RINGS; i++)
		m->runnable[i] = m->notified[i] = false;
	memset(m->page, 0, sizeof(m->page));
	memset(m->discards, 0, sizeof(m->discards));
	memset(m->excused, 0, sizeof(m->excused));
	m->poisoned = false;
}

static void run_set_target(struct machine *m, const struct work *w)
{
	balloon_set_target(m->balloon, w->value);
}

void machine_set_target(struct machine *m, uint64_t pages)
{
	struct work w = {.run = run_set_target, .value = pages};

	repeat(m, &w);
}

static void run_inhibit(struct machine *m, const struct work *w)
{
	balloon_set_inhibited(m->balloon, w->value);
}

void machine_inhibit(struct machine *m, bool inhibited)
{
	struct work w = {.run = run_inhibit, .value = inhibited};

	if (!inhibited)
		m->inhibited = false;
	repeat(m, &w);
	m->inhibited = inhibited;
	for (uint32_t i = 0; inhibited && i < MACHINE_PAGES; i++) {
		if (m->page[i] == PAGE_GIVING || m->page[i] == PAGE_REPORTED)
			m->excused[i] = true;
	}
}

static void run_request_stats(struct machine *m, const struct work *w)
{
	(void)w;
	(void)balloon_request_stats(m->balloon);
}

void machine_request_stats(struct machine *m)
{
	struct work w = {.run = run_request_stats};

	repeat(m, &w);
}

static void run_set_poll(struct machine *m, const struct work *w)
{
	balloon_set_poll_interval(m->balloon, w->value, m->now);
}

void machine_set_poll(struct machine *m, uint64_t interval_ms)
{
	struct work w = {.run = run_set_poll, .value = interval_ms};

	repeat(m, &w);
}

static void run_set_push(struct machine *m, const struct work *w)
{
	(void)balloon_set_push_interval(m->balloon, (uint32_t)w->value);
}

void machine_set_push(struct machine *m, uint32_t interval_ms)
{
	struct work w = {.run = run_set_push, .value = interval_ms};

	repeat(m, &w);
}

static void run_hint(struct machine *m, const struct work *w)
{
	(void)balloon_hint(m->balloon, (enum balloon_hint_action)w->value);
}

void machine_hint(struct machine *m, enum balloon_hint_action action)
{
	struct work w = {.run = run_hint, .value = action};

	repeat(m, &w);
}

static void run_ring(struct machine *m, const struct work *w)
{
	if (balloon_queue_run(m->balloon, w->ring, m->now))
		m->runnable[w->ring] = true;
}

void machine_run(struct machine *m, uint32_t ring)
{
	struct work w = {.run = run_ring, .ring = ring};

	if (!m->runnable[ring])
		return;
	m->runnable[ring] = false;
	once(m, &w);
}

static void run_tick(struct machine *m, const struct work *w)
{
	(void)w;
	wake(m, balloon_tick(m->balloon, m->now));
}

void machine_tick(struct machine *m)
{
	struct work w = {.run = run_tick};

	once(m, &w);
}

void machine_read_config(struct machine *m, uint32_t offset, uint8_t *buf, uint32_t len)
{
	if (!m->busy) {
		balloon_config_read(m->balloon, offset, buf, len);
		return;
	}
	as_saved.st = m->saved.st;
	balloon_config_read(&as_saved, offset, buf, len);
}

void machine_kick(struct machine *m, uint32_t ring)
{
	balloon_queue_kicked(m->balloon, ring);
	m->runnable[ring] = true;
}
