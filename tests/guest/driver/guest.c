// SPDX-License-Identifier: MIT
/*
 * A guest made of lib/driver in a process of its own: real memory, a real connection to the device,
 * and nothing else. It shows what no stock driver can: statistics pushed on a timer, and memory
 * pressure told to the host.
 *
 *     driver-guest SOCKET MIB [POISON]
 *
 * With a POISON, a number of 32 bits, the guest keeps its free pages full of that, and counts those
 * that have lost it as damaged.
 *
 * Each line on standard input is a command; each is answered by one line, "ok NAME=VALUE ..." or
 * "error WHY":
 *
 *     state           what there is, in MiB, and the driver's counters
 *     use MIB         fill so much free memory with data; free MIB gives it up again
 *     hog MIB         need so much memory whatever is free: tells the host of pressure, and waits
 *                     for what the balloon gives back; answered when all is there
 *     pressure LEVEL  1 low, 2 medium, 3 critical; relieved: it is over
 *     oom MIB         take memory out of the balloon without asking
 *     report          offer free pages to the host
 *     check           is all data what it was, and all that is free full of the poison?
 *     quit
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "driver/balloon.h"
#include "frontend.h"

#define PAGE         4096ULL
#define MIB_PAGES    256U
#define LOW_PAGES    1024U /* rings and buffers */
#define HOG_RETRY_MS 1
#define HOG_AGAIN_NS 200000000ULL /* after so long without a page */

enum page { PAGE_FREE, PAGE_DATA, PAGE_AWAY };

struct hog {
	uint64_t need; /* pages; 0: none at work */
	uint64_t start_ns;
	uint64_t pressure_ns; /* when the host was told; 0: not yet */
	uint64_t answered_ns;
	uint64_t first_ns; /* when the first page came back after that, */
	uint64_t last_ns;  /* and when the last one */
};

struct guest {
	struct frontend fe;
	struct driver_balloon driver;
	uint32_t pages; /* all; the first LOW_PAGES are none to be used */
	uint8_t *page;  /* enum page, by number */
	uint32_t cursor;
	uint64_t n_free, n_data;
	bool poison;
	uint32_t poison_page[PAGE / sizeof(uint32_t)]; /* what a free page is full of */
	struct hog hog;
};

static struct guest guest;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static uint64_t now_ms(void)
{
	return now_ns() / 1000000;
}

/* --- memory -------------------------------------------------------------------------------------
 */

static uint8_t *page_at(uint32_t pfn)
{
	return guest.fe.mem + pfn * PAGE;
}

static uint64_t *first_word(uint32_t pfn)
{
	return (uint64_t *)(void *)page_at(pfn);
}

static uint64_t *last_word(uint32_t pfn)
{
	return first_word(pfn) + PAGE / sizeof(uint64_t) - 1;
}

static uint64_t mark(uint32_t pfn)
{
	return pfn * 0x9e3779b97f4a7c15ULL | 1;
}

/* Pages that the system frees. */
static void poison(uint32_t pfn, uint32_t n)
{
	for (uint32_t i = 0; guest.poison && i < n; i++)
		memcpy(page_at(pfn + i), guest.poison_page, PAGE);
}

/* Fills up to n free pages with data; returns how many there were. */
static uint64_t use_pages(uint64_t n)
{
	uint64_t used = 0;

	for (uint32_t pfn = LOW_PAGES; pfn < guest.pages && used < n; pfn++) {
		if (guest.page[pfn] != PAGE_FREE)
			continue;
		guest.page[pfn] = PAGE_DATA;
		*first_word(pfn) = *last_word(pfn) = mark(pfn);
		used++;
	}
	guest.n_free -= used;
	guest.n_data += used;
	return used;
}

static void free_pages(uint64_t n)
{
	for (uint32_t pfn = LOW_PAGES; pfn < guest.pages && n; pfn++) {
		if (guest.page[pfn] != PAGE_DATA)
			continue;
		guest.page[pfn] = PAGE_FREE;
		poison(pfn, 1);
		guest.n_free++;
		guest.n_data--;
		n--;
	}
}

static bool is_damaged(uint32_t pfn)
{
	if (guest.page[pfn] == PAGE_DATA)
		return *first_word(pfn) != mark(pfn) || *last_word(pfn) != mark(pfn);
	return guest.poison && guest.page[pfn] == PAGE_FREE &&
	       memcmp(page_at(pfn), guest.poison_page, PAGE) != 0;
}

static uint64_t damaged_pages(void)
{
	uint64_t n = 0;

	for (uint32_t pfn = LOW_PAGES; pfn < guest.pages; pfn++)
		n += is_damaged(pfn);
	return n;
}

/* --- what the driver asks for ---------------------------------------------------------------- */

static uint32_t take(void *opaque, enum driver_use use, uint32_t max, uint32_t *pfn)
{
	uint32_t span = guest.pages - LOW_PAGES;

	(void)opaque;
	(void)use;
	for (uint32_t i = 0; i < span && guest.n_free; i++) {
		uint32_t at = LOW_PAGES + (guest.cursor + i) % span, n = 0;

		while (n < max && at + n < guest.pages && guest.page[at + n] == PAGE_FREE)
			guest.page[at + n++] = PAGE_AWAY;
		if (!n)
			continue;
		guest.cursor = at + n - LOW_PAGES;
		guest.n_free -= n;
		*pfn = at;
		return n;
	}
	return 0;
}

static void give(void *opaque, enum driver_use use, uint32_t pfn, uint32_t n)
{
	(void)opaque;
	memset(guest.page + pfn, PAGE_FREE, n);
	/* Pages that were only reported are as they were; so the driver has been told. */
	if (use != DRIVER_FOR_REPORT)
		poison(pfn, n);
	guest.n_free += n;
	if (guest.hog.need && guest.hog.pressure_ns) {
		guest.hog.last_ns = now_ns();
		if (!guest.hog.first_ns)
			guest.hog.first_ns = guest.hog.last_ns;
	}
}

static void config_read(void *opaque, uint32_t offset, uint8_t *buf, uint32_t len)
{
	(void)opaque;
	frontend_config_read(&guest.fe, offset, buf, len);
}

static void config_write(void *opaque, uint32_t offset, const uint8_t *buf, uint32_t len)
{
	(void)opaque;
	frontend_config_write(&guest.fe, offset, buf, len);
}

static void kick(void *opaque, uint32_t ring)
{
	(void)opaque;
	frontend_kick(&guest.fe, ring);
}

static void statistics(void *opaque, struct driver_statistics *s)
{
	(void)opaque;
	s->value[VIRTIO_BALLOON_S_MEMFREE] = guest.n_free * PAGE;
	s->value[VIRTIO_BALLOON_S_MEMTOT] = (guest.pages - LOW_PAGES) * PAGE;
	s->value[VIRTIO_BALLOON_S_AVAIL] = guest.n_free * PAGE;
	s->set = 1U << VIRTIO_BALLOON_S_MEMFREE | 1U << VIRTIO_BALLOON_S_MEMTOT |
		 1U << VIRTIO_BALLOON_S_AVAIL;
}

static const struct driver_balloon_ops ops = {take,         give, config_read,
					      config_write, kick, statistics};

static void set_poison(const char *value)
{
	guest.poison = value != NULL;
	for (size_t i = 0; value && i < PAGE / sizeof(uint32_t); i++)
		guest.poison_page[i] = (uint32_t)strtoul(value, NULL, 0);
}

static void start_driver(const char *path, uint32_t mib)
{
	struct driver_balloon_setup setup = {
		.numbering = DRIVER_NUMBERS_NEGOTIATED,
		.first_pfn = LOW_PAGES,
		.ops = &ops,
	};
	struct driver_balloon *d = &guest.driver;

	guest.pages = LOW_PAGES + mib * MIB_PAGES;
	guest.page = calloc(guest.pages, 1);
	setup.pages = guest.pages - LOW_PAGES;
	setup.in_balloon = calloc(bitmap_words(setup.pages), sizeof(uint64_t));
	setup.hinted = calloc(bitmap_words(setup.pages), sizeof(uint64_t));
	if (!guest.page || !setup.in_balloon || !setup.hinted)
		frontend_die("memory");
	guest.n_free = setup.pages;
	frontend_connect(&guest.fe, path, guest.pages * PAGE);
	setup.offered = guest.fe.offered;
	setup.wanted = ~0ULL;
	setup.poison = guest.poison;
	setup.poison_val = guest.poison_page[0];
	poison(LOW_PAGES, setup.pages);
	for (int i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++)
		setup.ring_size[i] = 128;
	errno = EINVAL;
	if (driver_balloon_init(d, &setup) < 0 || driver_balloon_bytes(d) > LOW_PAGES * PAGE)
		frontend_die("driver");
	frontend_set_features(&guest.fe, d->features);
	driver_balloon_prepare(d, guest.fe.mem, 0);
	for (int i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++) {
		if (d->ring_of[i] >= 0)
			frontend_set_ring(&guest.fe, (uint32_t)d->ring_of[i], &d->ring[i],
					  d->ring_gpa[i]);
	}
	frontend_start(&guest.fe);
	driver_balloon_start(d, now_ms());
}

/* --- commands --------------------------------------------------------------------------------- */

static double us(uint64_t from, uint64_t to)
{
	return to > from ? (double)(to - from) / 1000 : 0;
}

/* Tells the host, when it was not told yet or has not helped for a while. */
static void cry_out(struct hog *hog, uint64_t now)
{
	uint64_t last = hog->last_ns > hog->answered_ns ? hog->last_ns : hog->answered_ns;

	if (hog->pressure_ns && (guest.driver.message.out || now < last + HOG_AGAIN_NS))
		return;
	if (driver_balloon_pressure(&guest.driver, VIRTIO_BALLOON_PRESSURE_CRITICAL,
				    now / 1000000) == 0 &&
	    !hog->pressure_ns)
		hog->pressure_ns = now;
}

/* Goes on with a hog: takes what there is, and tells the host when that is not enough. */
static void feed_hog(void)
{
	struct hog *hog = &guest.hog;

	if (!hog->need)
		return;
	if (hog->pressure_ns && !hog->answered_ns && !guest.driver.message.out)
		hog->answered_ns = now_ns();
	hog->need -= use_pages(hog->need);
	if (hog->need) {
		cry_out(hog, now_ns());
		return;
	}
	if (hog->pressure_ns)
		(void)driver_balloon_relieved(&guest.driver, now_ms());
	printf("ok pressure-us=%.0f answered-us=%.0f first-page-us=%.0f all-ms=%.2f\n",
	       us(hog->start_ns, hog->pressure_ns), us(hog->pressure_ns, hog->answered_ns),
	       us(hog->pressure_ns, hog->first_ns), us(hog->start_ns, now_ns()) / 1000);
}

static void answer(int error)
{
	if (error)
		printf("error %s\n", strerror(-error));
	else
		printf("ok\n");
}

static void print_state(uint64_t unused)
{
	const struct driver_balloon *d = &guest.driver;
	const struct driver_message *m = &d->message;

	(void)unused;
	printf("ok features=%#llx free=%.2f data=%.2f balloon=%.2f interval-ms=%u sent=%llu "
	       "skipped=%llu missed=%llu messages=%llu unanswered=%d timeouts=%llu\n",
	       (unsigned long long)d->features, (double)guest.n_free / MIB_PAGES,
	       (double)guest.n_data / MIB_PAGES, (double)d->pages.count / MIB_PAGES,
	       d->stats.interval_ms, (unsigned long long)d->stats.sent,
	       (unsigned long long)d->stats.skipped, (unsigned long long)d->stats.missed,
	       (unsigned long long)m->sent, m->out + (m->pending >= 0) + m->relief,
	       (unsigned long long)m->timeouts);
}

static void on_use(uint64_t mib)
{
	answer(use_pages(mib * MIB_PAGES) == mib * MIB_PAGES ? 0 : -ENOMEM);
}

static void on_free(uint64_t mib)
{
	free_pages(mib * MIB_PAGES);
	answer(0);
}

static void on_hog(uint64_t mib)
{
	if (!mib) {
		answer(-EINVAL);
		return;
	}
	guest.hog = (struct hog){.need = mib * MIB_PAGES, .start_ns = now_ns()};
	feed_hog();
}

static void on_pressure(uint64_t level)
{
	answer(driver_balloon_pressure(&guest.driver, (uint32_t)level, now_ms()));
}

static void on_relieved(uint64_t unused)
{
	(void)unused;
	answer(driver_balloon_relieved(&guest.driver, now_ms()));
}

static void on_oom(uint64_t mib)
{
	answer(driver_balloon_oom(&guest.driver, mib * MIB_PAGES, now_ms()) ? 0 : -ENOMEM);
}

static void on_report(uint64_t unused)
{
	(void)unused;
	answer(driver_balloon_report(&guest.driver) ? 0 : -EBUSY);
}

static void on_check(uint64_t unused)
{
	(void)unused;
	answer(damaged_pages() ? -EIO : 0);
}

static const struct {
	const char *word;
	void (*run)(uint64_t n);
} commands[] = {
	{"state", print_state}, {"use", on_use},           {"free", on_free},
	{"hog", on_hog},        {"pressure", on_pressure}, {"relieved", on_relieved},
	{"oom", on_oom},        {"report", on_report},     {"check", on_check},
};

/* False: the end. */
static bool run_command(char *line)
{
	const char *word = strtok(line, " \n"), *arg = strtok(NULL, " \n");
	size_t i = 0, n = sizeof(commands) / sizeof(commands[0]);

	if (word && strcmp(word, "quit") == 0)
		return false;
	while (i < n && !(word && strcmp(commands[i].word, word) == 0))
		i++;
	if (i < n)
		commands[i].run(arg ? strtoull(arg, NULL, 10) : 0);
	else
		answer(-EINVAL);
	fflush(stdout);
	return true;
}

/* Waits for something, and says whether standard input has a line. */
static bool wait_for_input(void)
{
	struct pollfd p[2 + VIRTIO_BALLOON_VQ_COUNT] = {
		{.fd = STDIN_FILENO, .events = POLLIN},
		{.fd = guest.fe.back, .events = POLLIN},
	};
	uint64_t due = driver_balloon_next_tick(&guest.driver), now = now_ms();
	int timeout = due == UINT64_MAX ? -1 : (int)min_u64(due > now ? due - now : 0, 1000);
	bool used = false;

	if (guest.hog.need && (timeout < 0 || timeout > HOG_RETRY_MS))
		timeout = HOG_RETRY_MS;
	for (int i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++)
		p[2 + i] = (struct pollfd){.fd = guest.fe.call[i], .events = POLLIN};
	(void)poll(p, sizeof(p) / sizeof(p[0]), timeout);
	for (uint32_t i = 0; i < VIRTIO_BALLOON_VQ_COUNT; i++)
		used |= p[2 + i].revents & POLLIN && frontend_called(&guest.fe, i);
	if (frontend_config_changed(&guest.fe))
		driver_balloon_config_changed(&guest.driver, now_ms());
	if (used)
		driver_balloon_used(&guest.driver, now_ms());
	driver_balloon_tick(&guest.driver, now_ms());
	feed_hog();
	fflush(stdout);
	return p[0].revents != 0;
}

int main(int argc, char **argv)
{
	long mib = argc == 3 || argc == 4 ? strtol(argv[2], NULL, 10) : 0;
	char line[256];

	if (mib < 1 || mib > 65536) {
		fprintf(stderr, "usage: driver-guest SOCKET MIB [POISON]\n");
		return EXIT_FAILURE;
	}
	set_poison(argc == 4 ? argv[3] : NULL);
	start_driver(argv[1], (uint32_t)mib);
	setvbuf(stdin, NULL, _IONBF, 0); /* or poll() would not see what fgets() has read already */
	for (;;) {
		if (wait_for_input() && (!fgets(line, sizeof(line), stdin) || !run_command(line)))
			return EXIT_SUCCESS;
	}
}
