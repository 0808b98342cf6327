/* SPDX-License-Identifier: MIT */
/* Snapshots for tests: a stream as a block of bytes, written and read in pieces of any size. */
#ifndef TEST_SNAPSHOT_HELPERS_H
#define TEST_SNAPSHOT_HELPERS_H

#include "helpers.h"

#include <errno.h>

#include "balloon/snapshot.h"
#include "base/bitmap.h"
#include "base/crc32.h"

#define STREAM_MAX 0x80000U

struct stream {
	uint8_t bytes[STREAM_MAX];
	size_t len;
};

/* A reader, and the room that it was given for its bitmap. */
struct load {
	struct snapshot_reader r;
	uint64_t *map;
	uint64_t words;
	bool refuse; /* there is no room */
};

static inline void stream_save(struct stream *s, const struct balloon *b, struct instant now,
			       size_t piece)
{
	static struct snapshot_writer w;
	size_t n;

	snapshot_writer_init(&w, b, now);
	s->len = 0;
	do {
		assert_true(s->len + piece <= sizeof(s->bytes));
		n = snapshot_read(&w, s->bytes + s->len, piece);
		s->len += n;
	} while (n == piece);
	assert_int_equal(snapshot_read(&w, s->bytes, piece), 0);
}

static inline uint64_t *load_words(void *opaque, uint64_t n)
{
	struct load *l = opaque;

	assert_null(l->map);
	assert_true(n > 0);
	if (l->refuse)
		return NULL;
	l->map = calloc(n, sizeof(*l->map));
	assert_non_null(l->map);
	l->words = n;
	return l->map;
}

static inline void load_free(struct load *l)
{
	free(l->map);
	l->map = NULL;
}

/* Reads it in pieces; what the reader says at the end. load_free() when done. */
static inline int stream_load(const struct stream *s, struct load *l, struct instant now,
			      size_t piece)
{
	int r = 0;

	l->map = NULL;
	snapshot_reader_init(&l->r, now, load_words, l);
	for (size_t at = 0; !r && at < s->len; at += piece) {
		size_t n = min_u64(piece, s->len - at);
		uint8_t *copy = malloc(n); /* reading past it shows */

		assert_non_null(copy);
		memcpy(copy, s->bytes + at, n);
		r = snapshot_write(&l->r, copy, n);
		free(copy);
	}
	assert_int_equal(r ? r : snapshot_finish(&l->r), snapshot_finish(&l->r));
	assert_int_equal(snapshot_finish(&l->r) != 0, l->r.error != NULL);
	return snapshot_finish(&l->r);
}

/* Where the nth section of a kind begins, with its head; 0: there is none. */
static inline size_t stream_find(const struct stream *s, uint32_t kind, uint32_t nth)
{
	for (size_t at = 16; at + 8 <= s->len; at += 8 + le32_get(s->bytes + at + 4)) {
		if (le32_get(s->bytes + at) == kind && nth-- == 0)
			return at;
	}
	return 0;
}

static inline size_t stream_section_len(const struct stream *s, size_t at)
{
	return 8 + le32_get(s->bytes + at + 4);
}

/* Makes the checksum right. */
static inline void stream_seal(struct stream *s)
{
	le32_put(s->bytes + s->len - 4, crc32_add(0, s->bytes, s->len - 4));
}

/* Takes `old` bytes at a place out and puts `len` others there. */
static inline void stream_splice(struct stream *s, size_t at, size_t old, const void *bytes,
				 size_t len)
{
	assert_true(s->len - old + len <= sizeof(s->bytes));
	memmove(s->bytes + at + len, s->bytes + at + old, s->len - at - old);
	if (len)
		memcpy(s->bytes + at, bytes, len);
	s->len = s->len - old + len;
}

#endif
