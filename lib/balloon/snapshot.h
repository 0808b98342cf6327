/* SPDX-License-Identifier: MIT */
/*
 * The state of a balloon device as a stream of bytes, for a guest that moves to another host: what
 * the driver has been told and has said, and what the balloon holds.
 *
 * The writer is asked for bytes, the reader is given them, both in pieces of any size. Neither
 * waits, allocates or touches a descriptor. The reader believes nothing, and nothing of what it
 * reads has an effect before snapshot_apply().
 *
 * The stream, all numbers little-endian:
 *
 *   8 bytes  "AEROSTAT"
 *   u32      version: SNAPSHOT_VERSION
 *   u32      0
 *   then sections: u32 kind, u32 length of what follows, and that many bytes.
 *
 * Sections come in rising order of their kind's lower 31 bits; all are there, each once, but HELD
 * as often as it takes, and COUNTERS may be missing. A reader passes over sections that it does not
 * know if bit 31 of their kind is set, and refuses the stream if not. What is added later comes in
 * such sections, or with another version.
 *
 *   1 DEVICE    u64 negotiated features, u64 target (pages), u32 what of it the driver was told,
 *               u32 actual, u32 actual as far as a legacy driver has written it, u32 poison value,
 *               u32 push interval (ms), u32 0, u64 poll interval (ms), u64 until the next poll (ms)
 *   2 QUEUES    u32 rings that are new to their queue (bit mask), u32 n; for each queue by the
 *               standard's number: u32 ring or 2^32-1, u32 0, u64 bytes of its next buffer that are
 *               done already
 *   3 STATS     u32 flags (1 there are figures; 2 some are awaited; 4 the next buffer holds none),
 *               u32 n, u64 age (ms), s64 arrival (us since 1970), u64 which are set (bit mask),
 *               n times u64 by tag
 *   4 HINT      u32 state (enum balloon_hint_state), u32 id of the last command, u32 id that the
 *               driver's hints are under, u32 0
 *   5 PRESSURE  u32 flags (1 there was a message), u32 its type, u32 its level, u32 0, u64 age
 *               (ms), s64 arrival (us since 1970), u64 until the next message is taken, plus 1
 *               (ms; 0: at once)
 *   6 REGIONS   u32 n, u32 0; n times, rising and apart from each other: u64 first page, u64 pages
 *   7 HELD      u32 region, u32 form, u64 first word, u64 n; form 1: then n times u64. Bit b of
 *               word w of a region stands for its page 64 w + b; form 0 says that all bits of the
 *               n words are set. Rising by region and word; what is in none is clear.
 *   8 COUNTERS  (0x80000008) u32 errors, u32 queues, u32 levels, u32 0; so many u64 each: errors by
 *               kind, buffers by queue, messages by level; then u64 messages that said that
 *               pressure is over, unknown messages, unknown tags, pages inflated, pages deflated,
 *               bytes reported, hinted, kept, freed
 *   END         (0x7fffffff) u64 pages held, u32 CRC-32 of everything before it
 *
 * Pages are of 4 KiB, by guest physical address; none is above SNAPSHOT_PFN_END. Only regions of
 * which something is held are listed. What belongs to the host that the guest leaves stays behind:
 * inhibitors, free page hints, rate limits.
 */
#ifndef BALLOON_SNAPSHOT_H
#define BALLOON_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

#include "balloon/balloon.h"

#define SNAPSHOT_VERSION 1U

/* Behind the last page that a page frame number of 32 bits can name: 16 TiB. */
#define SNAPSHOT_PFN_END (1ULL << 32)

/* Words of bitmap in one HELD section of form 1. */
#define SNAPSHOT_WORDS_MAX 512U

/* The longest section of those that are known, with its kind and length: bytes. */
#define SNAPSHOT_SECTION_MAX (8U + 24U + 8U * SNAPSHOT_WORDS_MAX)

struct snapshot_writer {
	const struct balloon *b;
	struct balloon_state st;
	struct instant now;
	uint32_t step; /* which section is next */
	uint32_t crc;

	/* The bitmap: where the next HELD section begins. By the device's own regions. */
	uint32_t region;
	uint64_t word;
	uint32_t listed[GUEST_MEM_MAX_REGIONS]; /* what a region is called in the stream */

	uint32_t have; /* bytes in buf, and how many of them are out */
	uint32_t sent;
	uint8_t buf[SNAPSHOT_SECTION_MAX];
};

/*
 * Begins with the state of b as it is `now`, while all its rings stand still. Until the stream is
 * out, or given up, b must not move, and no ring may start.
 */
void snapshot_writer_init(struct snapshot_writer *w, const struct balloon *b, struct instant now);

/* The next bytes of the stream, at most len. Returns how many; less than len: that is its end. */
size_t snapshot_read(struct snapshot_writer *w, uint8_t *buf, size_t len);

/* What a stream says. */
struct snapshot {
	struct balloon_state st; /* what is not in the stream is 0 */
	struct pageset held;
};

/*
 * The reader asks for room for a bitmap: n words, not 0, all zero. NULL: there is none. They belong
 * to whoever gives them, and must be there as long as snapshot.held is used.
 */
typedef uint64_t *(*snapshot_words)(void *opaque, uint64_t n);

enum snapshot_phase {
	SNAPSHOT_HEAD,    /* magic and version are next */
	SNAPSHOT_SECTION, /* ... a section's kind and length */
	SNAPSHOT_BODY,    /* ... its contents, which go to buf */
	SNAPSHOT_SKIP,    /* ... contents that are passed over */
	SNAPSHOT_DONE,    /* all is there and good */
	SNAPSHOT_FAILED,
};

struct snapshot_reader {
	struct snapshot snap; /* complete when snapshot_finish() says so */
	const char *error;    /* what is wrong with the stream; static text, NULL: nothing yet */
	int result;

	struct instant now;
	snapshot_words words;
	void *opaque;
	enum snapshot_phase phase;
	uint32_t crc;
	uint32_t next; /* the first kind, by its place in the order, that may come now */
	uint32_t row;  /* the one that is being read */
	uint32_t want; /* bytes of what is being read, and how many are here */
	uint32_t have;

	uint32_t region; /* the bitmap: where the next HELD section may begin */
	uint64_t word;
	uint8_t buf[SNAPSHOT_SECTION_MAX];
};

/* now: ages in the stream count from here. */
void snapshot_reader_init(struct snapshot_reader *r, struct instant now, snapshot_words words,
			  void *opaque);

/*
 * Takes the next len bytes of the stream. 0; -EBADMSG: it is no such stream, or damaged;
 * -EPROTONOSUPPORT: of a version, or with a section, that is not known; -ENOMEM: no words. After an
 * error there is no going on.
 */
int snapshot_write(struct snapshot_reader *r, const uint8_t *buf, size_t len);

/* The stream is at its end. 0: it is whole and good; else as above. */
int snapshot_finish(struct snapshot_reader *r);

/*
 * Puts what a stream said in the place of b's own state, while all rings stand still, and then does
 * what snapshot_hold() does. -ENOTSUP, and nothing done: the driver has features that this device
 * does not offer; -EINVAL: others than those that were negotiated here.
 */
int snapshot_apply(const struct snapshot *s, struct balloon *b);

/*
 * b holds what the stream said, of memory that is not known yet: balloon_memory_changed() must
 * follow before anything else is done with b. To be called again before each further
 * balloon_memory_changed() until a ring starts: a front end may build its table up piece by piece.
 * What is held then goes back to the host once more, as it may have come along with the guest.
 */
void snapshot_hold(const struct snapshot *s, struct balloon *b);

#endif
