// SPDX-License-Identifier: MIT
/* Text is put together piece by piece: printf() is nothing for a part that calls nobody. */
#include "policy/explain.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#define NAME_MAX_SHOWN 64
#define WORTH_TELLING  (64ULL << 10) /* bytes a second of growth */

struct text {
	char *buf;
	size_t len, at; /* at counts on when buf is full */
};

static void put_char(struct text *t, char c)
{
	if (t->at + 1 < t->len)
		t->buf[t->at] = c;
	t->at++;
}

static void put(struct text *t, const char *s)
{
	while (*s)
		put_char(t, *s++);
}

static void put_number(struct text *t, uint64_t value)
{
	char digits[20];
	int n = 0;

	do
		digits[n++] = (char)('0' + value % 10);
	while (value /= 10);
	while (n)
		put_char(t, digits[--n]);
}

/* With one decimal, rounded down, if there is but one digit before it. */
static void put_scaled(struct text *t, uint64_t value, uint64_t unit, const char *name)
{
	put_number(t, value / unit);
	if (value / unit < 10) {
		put_char(t, '.');
		/* Dividing first keeps it below 2^64: a tenth of the smallest unit is 102. */
		put_number(t, value % unit / (unit / 1024) * 10 / 1024);
	}
	put(t, name);
}

static void put_bytes(struct text *t, uint64_t bytes)
{
	if (bytes >= 1ULL << 40)
		put_scaled(t, bytes, 1ULL << 40, " TiB");
	else if (bytes >= 1ULL << 30)
		put_scaled(t, bytes, 1ULL << 30, " GiB");
	else if (bytes >= 1ULL << 20)
		put_scaled(t, bytes, 1ULL << 20, " MiB");
	else if (bytes >= 1ULL << 10)
		put_scaled(t, bytes, 1ULL << 10, " KiB");
	else {
		put_number(t, bytes);
		put(t, " bytes");
	}
}

static void put_seconds(struct text *t, uint64_t ms)
{
	put_number(t, ms / 1000);
	put_char(t, '.');
	put_number(t, ms % 1000 / 100);
	put(t, " s");
}

static void put_name(struct text *t, const char *name)
{
	for (size_t i = 0; i < NAME_MAX_SHOWN && name[i]; i++) {
		unsigned char c = (unsigned char)name[i];

		put_char(t, c < ' ' || c == 127 ? '?' : (char)c);
	}
	put(t, ": ");
}

static size_t finish(struct text *t)
{
	if (t->len)
		t->buf[t->at < t->len ? t->at : t->len - 1] = '\0';
	return t->at;
}

/* Levels of messages about pressure; one that nobody knows is as bad as can be. */
static const char *pressure_words(uint32_t level)
{
	static const char *const words[VIRTIO_BALLOON_PRESSURE_NR] = {
		[VIRTIO_BALLOON_PRESSURE_UNSPECIFIED] = "it did not say how short",
		[VIRTIO_BALLOON_PRESSURE_LOW] = "low pressure",
		[VIRTIO_BALLOON_PRESSURE_MEDIUM] = "medium pressure",
		[VIRTIO_BALLOON_PRESSURE_CRITICAL] = "critical pressure",
	};

	return level < VIRTIO_BALLOON_PRESSURE_NR ? words[level] : "unknown pressure";
}

/* Why, after "because ". */
static const char *const because[] = {
	[REASON_PRESSURE] = "the guest said that memory is short: ",
	[REASON_VERDICT] = "the guest is ",
	[REASON_SILENT_SHORT] = "the guest went silent when it was short of memory",
	[REASON_TOOK_BACK] = "its driver took memory back by itself, as it does before a kill",
	[REASON_GROWTH] = "what it uses is growing",
	[REASON_SHORT] = "little is available in it",
	[REASON_LOW_PRESSURE] = "it begins to reclaim memory",
	[REASON_PLENTY] = "nobody else needs it",
	[REASON_STALLED] = "it could not give more without trouble",
	[REASON_RELEARNED] = "it got into trouble with less",
	[REASON_BOUNDS] = "its bounds are so",
	[REASON_IDLE] = "it does not use it, and others may at any moment",
	[REASON_SCARCE] = "memory is scarce and others need it more",
	[REASON_HOST] = "the host is under memory pressure",
	[REASON_RESERVATION] = "memory was reserved",
	[REASON_SETTLED] = "it has what it should have",
	[REASON_JUST_MOVED] = "it was moved the other way a moment ago",
	[REASON_PENDING] = "it has not reached, or not been measured at, its last target",
	[REASON_EMERGENCY] = "it was in need a moment ago",
	[REASON_LEARNED] = "with less it got into trouble, or it could not give more",
	[REASON_NO_ROOM] = "it should have more and nothing is free yet",
	[REASON_NO_DRIVER] = "no driver is at work",
	[REASON_NO_STATISTICS] = "it sends no statistics",
	[REASON_STALE] = "its statistics are too old",
	[REASON_UNRESPONSIVE] = "it does not respond",
	[REASON_PAUSED] = "it does not run",
	[REASON_UNCOOPERATIVE] = "it does not follow its target",
	[REASON_INHIBITED] = "its balloon cannot be used now",
	[REASON_NO_HOST] = "nothing is known of the host and there is no budget",
};
static_assert(sizeof(because) / sizeof(because[0]) == REASON_COUNT, "a text for each reason");

static void put_move(struct text *t, const struct decision *d)
{
	if (d->action == ACTION_KEEP) {
		put(t, "stays at ");
		put_bytes(t, d->from);
		return;
	}
	if (d->action == ACTION_RELEASE)
		put(t, "released fully, ");
	else
		put(t, d->action == ACTION_TAKE ? "lowered " : "raised ");
	put(t, "from ");
	put_bytes(t, d->from);
	put(t, " to ");
	put_bytes(t, d->to);
}

static void put_reason(struct text *t, const struct decision *d)
{
	put(t, ", because ");
	put(t, because[d->reason]);
	if (d->reason == REASON_PRESSURE)
		put(t, pressure_words(d->pressure));
	else if (d->reason == REASON_VERDICT)
		put(t, verdict_name(d->verdict));
}

/* ", NAME SIZE", or " (NAME SIZE" for the first. */
static void put_known(struct text *t, bool *first, const char *name, uint64_t bytes)
{
	if (bytes == DECISION_UNKNOWN)
		return;
	put(t, *first ? " (" : ", ");
	*first = false;
	put(t, name);
	put_bytes(t, bytes);
}

static void put_numbers(struct text *t, const struct decision *d)
{
	bool first = true;

	put_known(t, &first, "has ", d->actual);
	put_known(t, &first, "uses ", d->used);
	put_known(t, &first, "used of late ", d->working);
	put_known(t, &first, "available ", d->available);
	if (d->growth >= WORTH_TELLING && d->growth != DECISION_UNKNOWN) {
		put_known(t, &first, "grows by ", d->growth);
		put(t, "/s");
	}
	if (d->learned)
		put_known(t, &first, "learned floor ", d->learned);
	put_known(t, &first, "should have ", d->goal);
	put_known(t, &first, "all may have ", d->budget);
	put_known(t, &first, "of that free ", d->room);
	if (d->age_ms != DECISION_UNKNOWN) {
		put(t, first ? " (" : ", ");
		first = false;
		put(t, "statistics ");
		put_seconds(t, d->age_ms);
		put(t, " old");
	}
	if (!first)
		put_char(t, ')');
	put_char(t, '.');
}

size_t explain_decision(const struct decision *d, const char *name, char *buf, size_t len)
{
	struct text t = {buf, len, 0};

	put_name(&t, name);
	put_move(&t, d);
	put_reason(&t, d);
	put_numbers(&t, d);
	return finish(&t);
}

static void put_count(struct text *t, bool *first, uint64_t count, const char *what)
{
	if (!count)
		return;
	put(t, *first ? "" : ", ");
	*first = false;
	put_number(t, count);
	put(t, what);
}

static void put_amount(struct text *t, bool *first, uint64_t bytes, const char *what)
{
	if (!bytes)
		return;
	put(t, *first ? "" : ", ");
	*first = false;
	put_bytes(t, bytes);
	put(t, what);
}

size_t explain_judgement(const struct judgement *j, const char *name, char *buf, size_t len)
{
	const struct verdict_numbers *n = &j->numbers;
	struct text t = {buf, len, 0};
	bool first = true;

	put_name(&t, name);
	put(&t, verdict_name(j->verdict));
	put(&t, ", because ");
	put(&t, verdict_reason_text(j->reason));
	if (j->weak)
		put(&t, "; this guest's kernel does not count stalls, so it may be wrong");
	put(&t, " (");
	put_count(&t, &first, n->kills, " killed");
	put_count(&t, &first, n->stalls, " stalls");
	put_amount(&t, &first, n->scan_direct, " scanned directly");
	put_amount(&t, &first, n->reclaim_direct, " reclaimed directly");
	put_amount(&t, &first, n->scan_async, " scanned in the background");
	put_amount(&t, &first, n->reclaim_async, " reclaimed in the background");
	put_amount(&t, &first, n->swap_in, " swapped in");
	put_amount(&t, &first, n->swap_out, " swapped out");
	put_count(&t, &first, n->major_faults, " major faults");
	put_amount(&t, &first, n->available, " available");
	put_amount(&t, &first, n->total, " in all");
	put(&t, first ? "in " : ", in ");
	put_seconds(&t, n->span_ms);
	put(&t, ").");
	return finish(&t);
}

size_t explain_bytes(uint64_t bytes, char *buf, size_t len)
{
	struct text t = {buf, len, 0};

	put_bytes(&t, bytes);
	return finish(&t);
}
