/* SPDX-License-Identifier: MIT */
/* What the files of the balloon's driver share among themselves: one of them for each queue. */
#ifndef DRIVER_PARTS_H
#define DRIVER_PARTS_H

#include "driver/balloon.h"

/* Does whatever is due now. Every event ends with it. */
void driver_balloon_step(struct driver_balloon *d, uint64_t now_ms);

/* Notifies the device of what was added to a queue, if it wants to know. */
void driver_kick(struct driver_balloon *d, enum virtio_balloon_queue queue);

/* A field of the configuration, by its offset. */
uint32_t driver_config_get(const struct driver_balloon *d, size_t field);
void driver_config_put(const struct driver_balloon *d, size_t field, uint32_t value);

/*
 * By part: _used() takes a buffer's return in, _step() does what is due, _next() says when
 * something is due by time, and _reset() gives back what it has after the device was reset.
 */
void driver_pages_used(struct driver_balloon *d, enum virtio_balloon_queue queue);
void driver_pages_config_changed(struct driver_balloon *d);
void driver_pages_step(struct driver_balloon *d, uint64_t now_ms);
uint64_t driver_pages_next(const struct driver_balloon *d);
void driver_pages_reset(struct driver_balloon *d);

void driver_stats_prepare(struct driver_balloon *d);
void driver_stats_start(struct driver_balloon *d, uint64_t now_ms);
void driver_stats_used(struct driver_balloon *d, uint64_t now_ms);
void driver_stats_config_changed(struct driver_balloon *d, uint64_t now_ms);
void driver_stats_step(struct driver_balloon *d, uint64_t now_ms);
uint64_t driver_stats_next(const struct driver_balloon *d);

/* Bytes of the statistics buffer. */
#define DRIVER_STATS_BYTES (VIRTIO_BALLOON_S_NR * sizeof(struct virtio_balloon_stat))

void driver_message_init(struct driver_balloon *d);
void driver_message_used(struct driver_balloon *d);
void driver_message_step(struct driver_balloon *d, uint64_t now_ms);
uint64_t driver_message_next(const struct driver_balloon *d);

void driver_hint_used(struct driver_balloon *d, uint16_t id);
void driver_hint_config_changed(struct driver_balloon *d);
void driver_hint_step(struct driver_balloon *d);
void driver_hint_reset(struct driver_balloon *d);

void driver_report_used(struct driver_balloon *d);
void driver_report_reset(struct driver_balloon *d);

#endif
