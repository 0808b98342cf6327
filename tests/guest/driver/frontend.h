/* SPDX-License-Identifier: MIT */
/*
 * A front end as small as one can be: guest memory in one region from address 0 on, split or packed
 * rings, configuration space, and the device's word that it has changed. For guests made of
 * lib/driver; what goes wrong ends the process with a line on stderr.
 */
#ifndef FRONTEND_H
#define FRONTEND_H

#include <stdbool.h>
#include <stdint.h>

#include "aerostat/virtio_balloon.h"
#include "driver/ring.h"

struct frontend {
	int conn; /* -1: none */
	int back; /* where the device says that the configuration has changed */
	int memory;
	uint8_t *mem;
	uint64_t bytes;
	uint64_t offered;
	int kick[VIRTIO_BALLOON_VQ_COUNT]; /* by ring; -1: not set up */
	int call[VIRTIO_BALLOON_VQ_COUNT];
};

_Noreturn void frontend_die(const char *what);

/* Connects, as soon as somebody listens there; guest memory is `bytes` of zeros. */
void frontend_connect(struct frontend *f, const char *path, uint64_t bytes);

/* Tells the device which features were accepted, and shares memory. */
void frontend_set_features(struct frontend *f, uint64_t features);

/* Sets a ring up that driver_ring_init() has laid out at gpa. */
void frontend_set_ring(struct frontend *f, uint32_t ring, const struct driver_ring *r,
		       uint64_t gpa);

/* Starts those that were set up. Returns when the device has dealt with it. */
void frontend_start(struct frontend *f);

void frontend_config_read(struct frontend *f, uint32_t offset, uint8_t *buf, uint32_t len);
void frontend_config_write(struct frontend *f, uint32_t offset, const uint8_t *buf, uint32_t len);

/* Takes what is on f->back: has the configuration changed? */
bool frontend_config_changed(struct frontend *f);

void frontend_kick(struct frontend *f, uint32_t ring);

/* Takes the device's signal on a ring. False: there was none. */
bool frontend_called(struct frontend *f, uint32_t ring);

/* Waits for it; what takes over 10 s ends the process. */
void frontend_wait(struct frontend *f, uint32_t ring);

/* A connection to a Unix socket, as soon as somebody listens there. */
int frontend_dial(const char *path);

#endif
