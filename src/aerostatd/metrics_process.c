// SPDX-License-Identifier: MIT
#include "metrics_process.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static const struct metrics_family cpu = {"process_cpu_seconds", METRICS_COUNTER, "seconds",
					  "CPU time that aerostatd has used"};
static const struct metrics_family virtual_bytes = {"process_virtual_memory_bytes", METRICS_GAUGE,
						    "bytes", "Address space of aerostatd"};
static const struct metrics_family resident_bytes = {"process_resident_memory_bytes", METRICS_GAUGE,
						     "bytes", "Memory that aerostatd has"};
static const struct metrics_family start_time = {"process_start_time_seconds", METRICS_GAUGE,
						 "seconds",
						 "When aerostatd was started, since the epoch"};
static const struct metrics_family open_fds = {"process_open_fds", METRICS_GAUGE, NULL,
					       "File descriptors that aerostatd has open"};
static const struct metrics_family max_fds = {"process_max_fds", METRICS_GAUGE, NULL,
					      "File descriptors that aerostatd may have open"};

static void gauge(struct metrics_text *t, const struct metrics_family *family, uint64_t value,
		  unsigned int decimals)
{
	metrics_family(t, family);
	metrics_sample(t, "", 0);
	metrics_value(t, false, value, decimals);
}

static void memory(struct metrics_text *t)
{
	FILE *file = fopen("/proc/self/statm", "re");
	long page = sysconf(_SC_PAGESIZE);
	char text[128], *end;
	uint64_t size, resident;

	if (!file)
		return;
	if (page > 0 && fgets(text, sizeof(text), file)) {
		size = strtoull(text, &end, 10);
		resident = strtoull(end, NULL, 10);
		gauge(t, &virtual_bytes, size * (uint64_t)page, 0);
		gauge(t, &resident_bytes, resident * (uint64_t)page, 0);
	}
	fclose(file);
}

static void descriptors(struct metrics_text *t)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *entry;
	struct rlimit limit;
	uint64_t n = 0;

	if (dir) {
		while ((entry = readdir(dir)))
			n += entry->d_name[0] != '.';
		closedir(dir);
		gauge(t, &open_fds, n - 1, 0); /* without the one that looks */
	}
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		gauge(t, &max_fds, limit.rlim_cur, 0);
}

void metrics_process(struct metrics_text *t, int64_t started_wall_us)
{
	struct timespec used;

	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) == 0)
		gauge(t, &cpu, (uint64_t)used.tv_sec * 1000000 + (uint64_t)used.tv_nsec / 1000, 6);
	memory(t);
	if (started_wall_us > 0)
		gauge(t, &start_time, (uint64_t)started_wall_us / 1000, 3);
	descriptors(t);
}
