// SPDX-License-Identifier: MIT
/* libaerostat: guest memory as a VMM declares it, and what is discarded of it. */
#include "embed_helpers.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>

#define INFLATE VIRTIO_BALLOON_VQ_INFLATE
#define DEFLATE VIRTIO_BALLOON_VQ_DEFLATE
#define BOTH    (BIT(INFLATE) | BIT(DEFLATE))
#define MTH     BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define REPORTS BIT(VIRTIO_BALLOON_F_PAGE_REPORTING)

static struct vmm v;

/* Declares one region beside LOW. */
static int declare(struct aerostat_memory_region region)
{
	struct aerostat_memory_region regions[2];

	vmm_regions(&v, regions);
	regions[1] = region;
	return aerostat_balloon_set_memory(v.device, regions, 2);
}

static void wrong_regions(void **state)
{
	struct aerostat_memory_region good, regions[AEROSTAT_MEMORY_REGIONS_MAX + 1];
	int pipe_fds[2], file = memfd_create("other", MFD_CLOEXEC);
	uint8_t *hole, *mapped;

	(void)state;
	vmm_create(&v, 0);
	vmm_regions(&v, regions);
	good = regions[1];
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(ftruncate(file, MIB), 0);
	hole = mmap(NULL, MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mapped = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	assert_true(hole != MAP_FAILED && mapped != MAP_FAILED);
	munmap(hole + MIB / 2, PAGE);
	const struct {
		int error;
		struct aerostat_memory_region region;
	} cases[] = {
		{-EINVAL, {.gpa = HIGH_GPA, .size = 0, .host = v.high, .fd = -1}},
		{-EINVAL, {.gpa = HIGH_GPA, .size = MIB, .host = NULL, .fd = -1}},
		{-EINVAL, {.gpa = HIGH_GPA, .size = MIB, .host = v.high, .fd = -2}},
		{-EINVAL, {.gpa = HIGH_GPA, .size = MIB, .host = v.high, .fd = -1, .flags = 1}},
		{-EINVAL, {.gpa = UINT64_MAX - MIB, .size = 2 * MIB, .host = v.high, .fd = -1}},
		{-EINVAL, {.gpa = HIGH_GPA, .size = UINT64_MAX, .host = v.high, .fd = -1}},
		{-EINVAL,
		 {.gpa = HIGH_GPA, .size = MIB, .host = v.high, .fd = -1, .page_size = 12288}},
		{-EFAULT, {.gpa = HIGH_GPA, .size = MIB, .host = hole, .fd = -1}},
		{-EBADF, {.gpa = HIGH_GPA, .size = MIB, .host = mapped, .fd = 9999}},
		{-EINVAL, {.gpa = HIGH_GPA, .size = MIB, .host = mapped, .fd = pipe_fds[0]}},
		{-EFBIG, {.gpa = HIGH_GPA, .size = MIB + 1, .host = mapped, .fd = file}},
		{-EFBIG,
		 {.gpa = HIGH_GPA, .size = MIB, .host = mapped, .fd = file, .fd_offset = PAGE}},
		{-EINVAL,
		 {.gpa = HIGH_GPA,
		  .size = MIB,
		  .host = mapped,
		  .fd = file,
		  .fd_offset = UINT64_MAX}},
		{-EINVAL,
		 {.gpa = HIGH_GPA, .size = PAGE, .host = mapped, .fd = file, .fd_offset = 512}},
		/* the same memory twice: by address, by the process's address, by the file's */
		{-EEXIST, {.gpa = LOW_BYTES - 1, .size = MIB, .host = v.high, .fd = -1}},
		{-EEXIST, {.gpa = HIGH_GPA, .size = MIB, .host = v.low + MIB, .fd = -1}},
		{-EEXIST, {.gpa = HIGH_GPA, .size = MIB, .host = mapped, .fd = v.fd}},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(declare(cases[i].region), cases[i].error);
		assert_true(vmm_info(&v, 0).memory == LOW_BYTES + HIGH_BYTES);
	}
	for (size_t i = 0; i < ARRAY_SIZE(regions); i++)
		regions[i] = (struct aerostat_memory_region){
			.gpa = i * PAGE, .size = PAGE, .host = v.high + i * PAGE, .fd = -1};
	assert_int_equal(aerostat_balloon_set_memory(v.device, regions, ARRAY_SIZE(regions)),
			 -ENOSPC);
	assert_int_equal(aerostat_balloon_set_memory(v.device, NULL, 1), -EINVAL);
	assert_true(vmm_info(&v, 0).memory == LOW_BYTES + HIGH_BYTES);
	assert_int_equal(
		aerostat_balloon_set_memory(v.device, regions, AEROSTAT_MEMORY_REGIONS_MAX), 0);
	assert_int_equal(aerostat_balloon_set_memory(v.device, NULL, 0), 0);
	assert_true(vmm_info(&v, 0).memory == 0);
	assert_int_equal(declare(good), 0);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	munmap(mapped, MIB);
	munmap(hole, MIB);
	close(file);
	vmm_end(&v);
}

/* Counts this process's descriptors. */
static int descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void descriptors_are_duplicates(void **state)
{
	struct aerostat_memory_region regions[2];
	int before;

	(void)state;
	vmm_create(&v, 0);
	before = descriptors();
	vmm_regions(&v, regions);
	for (int i = 0; i < 3; i++)
		assert_int_equal(aerostat_balloon_set_memory(v.device, regions, 2), 0);
	regions[1].flags = 1;
	for (int i = 0; i < 3; i++)
		assert_int_equal(aerostat_balloon_set_memory(v.device, regions, 2), -EINVAL);
	assert_int_equal(descriptors(), before);
	/* The VMM's own may go. */
	close(v.fd);
	v.fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	vmm_start(&v, V1 | MTH, BOTH);
	memset(v.low + FREE_GPA, 1, MIB);
	vmm_send_pfns(&v, INFLATE, FREE_PFN, 256);
	assert_true(vmm_info(&v, 0).freed == MIB);
	aerostat_balloon_destroy(v.device);
	assert_int_equal(descriptors(), before - 1);
	v.device = NULL;
	vmm_end(&v);
}

/* threats.md, processes, line 17: no descriptor is left for the duplicate. */
static void out_of_descriptors(void **state)
{
	struct rlimit before, few;
	struct aerostat_memory_region regions[2];
	int taken[64], n = 0;

	(void)state;
	vmm_create(&v, 0);
	vmm_regions(&v, regions);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = before;
	few.rlim_cur = 64;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	while (n < 64 && (taken[n] = dup(v.fd)) >= 0)
		n++;
	assert_int_equal(aerostat_balloon_set_memory(v.device, regions, 2), -EMFILE);
	while (n > 0)
		close(taken[--n]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	vmm_start(&v, V1 | MTH, BOTH);
	vmm_send_pfns(&v, INFLATE, FREE_PFN, 1);
	assert_true(vmm_info(&v, 0).held == PAGE && vmm_info(&v, 0).discard_failures == 0);
	vmm_end(&v);
}

static bool bit(const uint64_t *map, uint64_t i)
{
	return map[i / 64] >> i % 64 & 1;
}

/* Page by page, and over any window: what is read out is what was given. */
static void check_held(uint64_t first, uint64_t n)
{
	uint64_t map[8], window;

	for (uint64_t from = first - 70; from < first + n + 70; from += 23) {
		window = 131;
		memset(map, 0xff, sizeof(map));
		assert_int_equal(aerostat_balloon_read_pages(v.device, AEROSTAT_PAGES_HELD, from,
							     window, map),
				 0);
		for (uint64_t i = 0; i < 192; i++)
			assert_int_equal(bit(map, i),
					 i < window && from + i >= first && from + i < first + n);
		assert_true(map[3] == UINT64_MAX); /* not written */
	}
}

static void inflate_and_deflate(uint64_t features)
{
	struct aerostat_balloon_info info;
	uint64_t before;

	vmm_create(&v, 0);
	vmm_start(&v, features, BOTH);
	memset(v.low + vmm_buffer_gpa(0), 0x5a, AEROSTAT_RINGS * PAGE); /* to be there before */
	memset(v.low + FREE_GPA, 0x5a, 4 * MIB);
	memset(v.high, 0x5a, MIB);
	before = vmm_resident(&v);
	for (uint32_t i = 0; i < 4; i++)
		vmm_send_pfns(&v, INFLATE, FREE_PFN + i * 256, 256);
	info = vmm_info(&v, 0);
	assert_true(info.held == 4 * MIB && info.inflated == 4 * MIB);
	assert_true(info.freed == 4 * MIB && before - vmm_resident(&v) == 4 * MIB);
	assert_int_equal(v.low[FREE_GPA], 0);
	assert_int_equal(v.low[FREE_GPA + 4 * MIB - 1], 0);
	check_held(FREE_PFN, 1024);

	before = vmm_resident(&v);
	vmm_send_pfns(&v, INFLATE, HIGH_PFN + 3, 200);
	assert_true(vmm_info(&v, 0).freed == 4 * MIB + 200 * PAGE);
	assert_true(before - vmm_resident(&v) == 200 * PAGE);
	assert_int_equal(v.high[3 * PAGE - 1], 0x5a);
	assert_int_equal(v.high[3 * PAGE], 0);
	assert_int_equal(v.high[203 * PAGE - 1], 0);
	assert_int_equal(v.high[203 * PAGE], 0x5a);
	check_held(HIGH_PFN + 3, 200);

	vmm_send_pfns(&v, DEFLATE, HIGH_PFN + 3, 200);
	for (uint32_t i = 0; i < 4; i++)
		vmm_send_pfns(&v, DEFLATE, FREE_PFN + i * 256, 256);
	info = vmm_info(&v, 0);
	assert_true(info.held == 0 && info.deflated == 4 * MIB + 200 * PAGE);
	assert_true(info.discard_failures == 0);
	vmm_end(&v);
}

static void gives_memory_back(void **state)
{
	(void)state;
	inflate_and_deflate(V1 | MTH);
	inflate_and_deflate(V1 | MTH | PACKED);
	inflate_and_deflate(V1 | MTH | BIT(VIRTIO_F_EVENT_IDX));
	inflate_and_deflate(MTH);
}

/* A page that is declared large goes only as a whole. */
static void large_pages(void **state)
{
	struct aerostat_memory_region region = {
		.gpa = HIGH_GPA, .size = MIB, .fd = -1, .page_size = 64 * PAGE};
	uintptr_t at;

	(void)state;
	vmm_create(&v, 0);
	/* From an address that is aligned like that, and a bit further on. */
	at = ((uintptr_t)v.high + 64 * PAGE - 1) & ~(64 * PAGE - 1);
	region.host = v.high + (at - (uintptr_t)v.high) + 16 * PAGE;
	region.gpa += 16 * PAGE;
	assert_int_equal(declare(region), 0);
	vmm_start(&v, V1 | MTH, BOTH);
	memset(region.host, 1, MIB);
	/* All of one such page but for its last 4 KiB, then that. */
	vmm_send_pfns(&v, INFLATE, HIGH_PFN + 64, 63);
	assert_true(vmm_info(&v, 0).freed == 0 && vmm_info(&v, 0).held == 63 * PAGE);
	vmm_send_pfns(&v, INFLATE, HIGH_PFN + 127, 1);
	assert_true(vmm_info(&v, 0).freed == 64 * PAGE);
	/* What lies before the region is not its own. */
	vmm_send_pfns(&v, INFLATE, HIGH_PFN + 16, 48);
	assert_true(vmm_info(&v, 0).freed == 64 * PAGE);
	vmm_end(&v);
}

/* Memory comes and goes while rings run; what is held of the rest stays held. */
static void hotplug(void **state)
{
	struct aerostat_memory_region regions[2];

	(void)state;
	vmm_create(&v, 0);
	vmm_start(&v, V1 | MTH, BOTH);
	vmm_send_pfns(&v, INFLATE, FREE_PFN, 100);
	vmm_send_pfns(&v, INFLATE, HIGH_PFN, 50);
	vmm_regions(&v, regions);
	assert_int_equal(aerostat_balloon_set_memory(v.device, &regions[1], 1), -EBUSY);
	assert_true(vmm_info(&v, 0).held == 150 * PAGE);
	assert_int_equal(aerostat_balloon_set_memory(v.device, &regions[0], 1), 0);
	assert_true(vmm_info(&v, 0).held == 100 * PAGE);
	vmm_send_pfns(&v, INFLATE, HIGH_PFN, 1);
	assert_true(vmm_error(&v, "pfn-out-of-range") == 1);
	assert_int_equal(aerostat_balloon_set_memory(v.device, regions, 2), 0);
	assert_true(vmm_info(&v, 0).held == 100 * PAGE);
	vmm_send_pfns(&v, INFLATE, HIGH_PFN, 1);
	assert_true(vmm_info(&v, 0).held == 101 * PAGE);
	vmm_end(&v);
}

/* Two regions of one file, as below and above a hole for devices: it is counted once. */
static void file_in_parts(void **state)
{
	struct aerostat_memory_region regions[2];

	(void)state;
	vmm_create(&v, 0);
	vmm_regions(&v, regions);
	regions[1] = regions[0];
	regions[0].size = LOW_BYTES / 2;
	regions[1].size = LOW_BYTES / 2;
	regions[1].fd_offset = LOW_BYTES / 2;
	regions[1].gpa = HIGH_GPA;
	regions[1].host = v.low + LOW_BYTES / 2;
	assert_int_equal(aerostat_balloon_set_memory(v.device, regions, 2), 0);
	memset(v.low, 1, LOW_BYTES);
	assert_true(vmm_resident(&v) == LOW_BYTES);
	vmm_start(&v, V1 | MTH, BOTH);
	vmm_send_pfns(&v, INFLATE, HIGH_PFN, 256);
	assert_true(vmm_info(&v, 0).freed == MIB);
	assert_true(vmm_resident(&v) == LOW_BYTES - MIB);
	assert_int_equal(v.low[LOW_BYTES / 2 - 1], 1);
	assert_int_equal(v.low[LOW_BYTES / 2], 0);
	vmm_end(&v);
}

/* A long buffer takes several turns; a new table and a pause in between do no work twice. */
static void long_buffer(uint64_t features)
{
	const uint32_t entries = 16384;
	struct aerostat_memory_region regions[2];
	struct driver_buf buf = {LOW_BYTES - entries * 4, entries * 4};
	uint32_t base = 0, turns = 1;

	vmm_create(&v, 0);
	vmm_start(&v, features, BOTH);
	for (uint32_t i = 0; i < entries; i++)
		le32_put(v.low + buf.gpa + (size_t)i * 4, FREE_PFN + i % 512);
	assert_true(driver_ring_add(&v.ring[INFLATE], &buf, 1, 1) >= 0);
	assert_int_equal(aerostat_balloon_kick(v.device, INFLATE), 0);
	assert_int_equal(aerostat_balloon_run(v.device, 0), 1);
	assert_true(aerostat_balloon_next_run(v.device) == 0);
	vmm_regions(&v, regions);
	assert_int_equal(aerostat_balloon_set_memory(v.device, regions, 2), 0);
	assert_int_equal(aerostat_balloon_run(v.device, 0), 1);
	assert_int_equal(aerostat_balloon_stop_ring(v.device, INFLATE, &base), 0);
	assert_int_equal(aerostat_balloon_run(v.device, 0), 0);
	assert_int_equal(aerostat_balloon_resume_ring(v.device, INFLATE, &v.where[INFLATE], base),
			 0);
	assert_false(vmm_returned(&v, INFLATE));
	while (aerostat_balloon_run(v.device, 0) == 1)
		turns++;
	assert_true(turns > 1);
	assert_true(vmm_returned(&v, INFLATE));
	assert_false(vmm_returned(&v, INFLATE));
	assert_true(vmm_info(&v, 0).inflated / PAGE + vmm_error(&v, "duplicate-pfn") == entries);
	assert_true(vmm_info(&v, 0).held == 512 * PAGE);
	assert_true(vmm_error(&v, "inflated-twice") + vmm_error(&v, "duplicate-pfn") ==
		    entries - 512);
	vmm_end(&v);
}

static void work_in_turns(void **state)
{
	(void)state;
	long_buffer(V1 | MTH);
	long_buffer(V1 | MTH | PACKED);
}

/* The target follows the memory that is there. */
static void target_and_memory(void **state)
{
	struct aerostat_memory_region regions[2];

	(void)state;
	vmm_create(&v, 0);
	vmm_regions(&v, regions);
	assert_int_equal(aerostat_balloon_set_target(v.device, LOW_BYTES + MIB + 12345), 0);
	assert_true(vmm_info(&v, 0).target == LOW_BYTES + MIB);
	assert_int_equal(vmm_config(&v, 0), (LOW_BYTES + MIB) / PAGE);
	assert_int_equal(vmm_count(&v, CALL_CONFIG, 0), 1);
	assert_int_equal(aerostat_balloon_set_memory(v.device, regions, 1), 0);
	assert_true(vmm_info(&v, 0).target == LOW_BYTES);
	assert_int_equal(vmm_count(&v, CALL_CONFIG, 0), 2);
	assert_int_equal(aerostat_balloon_set_memory(v.device, regions, 2), 0);
	assert_true(vmm_info(&v, 0).target == LOW_BYTES + MIB);
	assert_int_equal(aerostat_balloon_set_target(v.device, UINT64_MAX), 0);
	assert_true(vmm_info(&v, 0).target == LOW_BYTES + HIGH_BYTES);
	vmm_end(&v);
}

static struct {
	uint32_t calls, ranges;
	uint64_t bytes;
} mine;

static uint64_t my_discard(void *opaque, const struct aerostat_range *ranges, uint32_t n)
{
	const struct vmm *vmm = opaque;

	mine.calls++;
	for (uint32_t i = 0; i < n; i++) {
		bool high = ranges[i].gpa >= HIGH_GPA;
		uint64_t offset = ranges[i].gpa - (high ? HIGH_GPA : 0);

		assert_ptr_equal(ranges[i].host, (high ? vmm->high : vmm->low) + offset);
		mine.bytes += ranges[i].len;
	}
	mine.ranges += n;
	return 7;
}

/* The VMM discards by itself; every second page, so that there are many ranges. */
static void own_discard(void **state)
{
	const struct aerostat_balloon_options options = {.size = sizeof(options)};
	struct aerostat_balloon_ops ops = vmm_ops;
	uint8_t raw[512 * 4];

	(void)state;
	ops.discard = my_discard;
	memset(&mine, 0, sizeof(mine));
	vmm_create_with(&v, &options, &ops);
	vmm_start(&v, V1 | MTH, BOTH);
	v.low[FREE_GPA] = 1;
	for (uint32_t i = 0; i < 512; i++)
		le32_put(raw + (size_t)i * 4, (i < 300 ? FREE_PFN : HIGH_PFN) + 2 * i);
	vmm_send_bytes(&v, INFLATE, raw, sizeof(raw), 0);
	assert_true(vmm_returned(&v, INFLATE));
	assert_int_equal(mine.ranges, 512);
	assert_true(mine.bytes == 512 * PAGE);
	assert_true(vmm_info(&v, 0).freed == 7ULL * mine.calls);
	assert_int_equal(v.low[FREE_GPA], 1);
	vmm_end(&v);
}

/* Nothing goes while a reason stands; then all that is held by then does. */
static void inhibitors(void **state)
{
	(void)state;
	vmm_create(&v, 0);
	vmm_start(&v, V1 | MTH, BOTH);
	memset(v.low + FREE_GPA, 1, MIB);
	assert_int_equal(aerostat_balloon_inhibit(v.device, 0), -EINVAL);
	assert_int_equal(aerostat_balloon_inhibit(v.device, 1U << 3), -EINVAL);
	assert_int_equal(aerostat_balloon_inhibit(v.device, AEROSTAT_INHIBIT_PINNED), 0);
	assert_int_equal(aerostat_balloon_inhibit(v.device, AEROSTAT_INHIBIT_USER << 23), 0);
	assert_int_equal(vmm_info(&v, 0).inhibitors, 0x80000001U);
	vmm_send_pfns(&v, INFLATE, FREE_PFN, 256);
	vmm_send_pfns(&v, DEFLATE, FREE_PFN, 100);
	assert_true(vmm_info(&v, 0).freed == 0 && vmm_info(&v, 0).kept == MIB);
	assert_true(vmm_info(&v, 0).held == 156 * PAGE);
	assert_int_equal(aerostat_balloon_uninhibit(v.device, AEROSTAT_INHIBIT_PINNED), 0);
	assert_true(aerostat_balloon_next_run(v.device) == AEROSTAT_NEVER);
	assert_int_equal(aerostat_balloon_run(v.device, 0), 0);
	assert_true(vmm_info(&v, 0).freed == 0);
	assert_int_equal(aerostat_balloon_uninhibit(v.device, AEROSTAT_INHIBIT_USER << 23), 0);
	assert_true(aerostat_balloon_next_run(v.device) == 0);
	while (aerostat_balloon_run(v.device, 0) == 1)
		;
	assert_true(vmm_info(&v, 0).freed == 156 * PAGE);
	assert_int_equal(v.low[FREE_GPA + 100 * PAGE - 1], 1);
	assert_int_equal(v.low[FREE_GPA + 100 * PAGE], 0);
	vmm_end(&v);
}

static void reports(void **state)
{
	const uint32_t ring = VIRTIO_BALLOON_VQ_REPORTING;

	(void)state;
	vmm_create(&v, REPORTS);
	vmm_start(&v, V1 | MTH | REPORTS, BOTH | BIT(ring));
	memset(v.low + FREE_GPA, 1, MIB);
	vmm_send(&v, ring, (struct driver_buf){FREE_GPA + 100, MIB - 100}, false, 0);
	assert_true(vmm_returned(&v, ring));
	assert_true(vmm_info(&v, 0).freed == MIB - PAGE && vmm_info(&v, 0).held == 0);
	assert_true(vmm_info(&v, 0).reported == MIB - 100);
	assert_int_equal(v.low[FREE_GPA + PAGE - 1], 1);
	assert_int_equal(v.low[FREE_GPA + PAGE], 0);
	vmm_end(&v);
}

/* Every page that the device writes is in the log, and no other one. */
static void log_of_writes(uint64_t features)
{
	static uint8_t before[LOW_BYTES];
	uint8_t map[LOW_BYTES / PAGE / 8] = {0};

	vmm_create(&v, 0);
	vmm_start(&v, features, BOTH);
	assert_int_equal(aerostat_balloon_set_dirty_log(v.device, NULL, 1), -EINVAL);
	assert_int_equal(aerostat_balloon_set_dirty_log(v.device, map, sizeof(map)), 0);
	memset(v.low + vmm_buffer_gpa(INFLATE), 0xff, 4);
	assert_true(driver_ring_add(&v.ring[INFLATE],
				    &(struct driver_buf){vmm_buffer_gpa(INFLATE), 4}, 1, 1) >= 0);
	memcpy(before, v.low, LOW_BYTES);
	assert_int_equal(aerostat_balloon_kick(v.device, INFLATE), 0);
	assert_int_equal(aerostat_balloon_run(v.device, 0), 0);
	for (uint64_t page = 0; page < LOW_BYTES / PAGE; page++) {
		bool changed = memcmp(before + page * PAGE, v.low + page * PAGE, PAGE) != 0;

		assert_int_equal(map[page / 8] >> page % 8 & 1, changed);
	}
	assert_true(map[RING_GPA(INFLATE) / PAGE / 8]);
	memset(map, 0, sizeof(map));
	assert_int_equal(aerostat_balloon_set_dirty_log(v.device, NULL, 0), 0);
	vmm_send_pfns(&v, INFLATE, FREE_PFN, 1);
	assert_true(vmm_returned(&v, INFLATE));
	for (size_t i = 0; i < sizeof(map); i++)
		assert_int_equal(map[i], 0);
	vmm_end(&v);
}

static void dirty_log(void **state)
{
	(void)state;
	log_of_writes(V1 | MTH);
	log_of_writes(V1 | MTH | PACKED);
}

/* threats.md, socket, line 14: the VMM's own file may shrink; discarding does not mind. */
static void file_that_shrinks(void **state)
{
	(void)state;
	vmm_create(&v, 0);
	vmm_start(&v, V1 | MTH, BOTH);
	assert_int_equal(ftruncate(v.fd, (off_t)(FREE_GPA + MIB)), 0);
	vmm_send_pfns(&v, INFLATE, FREE_PFN + 512, 256);
	assert_true(vmm_info(&v, 0).freed == 0 && vmm_info(&v, 0).held == MIB);
	vmm_end(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wrong_regions),     cmocka_unit_test(descriptors_are_duplicates),
		cmocka_unit_test(gives_memory_back), cmocka_unit_test(large_pages),
		cmocka_unit_test(hotplug),           cmocka_unit_test(work_in_turns),
		cmocka_unit_test(file_in_parts),     cmocka_unit_test(out_of_descriptors),
		cmocka_unit_test(target_and_memory), cmocka_unit_test(own_discard),
		cmocka_unit_test(inhibitors),        cmocka_unit_test(reports),
		cmocka_unit_test(dirty_log),         cmocka_unit_test(file_that_shrinks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
