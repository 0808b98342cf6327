// SPDX-License-Identifier: MIT
/*
 * A table of families. Those of VMs are written one after the other for all VMs, as the format
 * wants it; what a figure needs of a VM is looked up once for each scrape, in a row. A figure that
 * is not known has no sample, and a family without samples is not there.
 */
#include "metrics.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "fleet_events.h"
#include "host.h"
#include "metrics_process.h"
#include "metrics_text.h"

#define PAGE_BYTES 4096 /* that scans and reclaims are counted in, whatever the guest's are */

/* One VM, as this scrape sees it. */
struct row {
	const struct fleet_vm *vm;
	const struct endpoint_view *view;
	const struct manager_vm *managed; /* NULL: it is not, nor is balance there */
	const struct balance_vm *balance;
	struct instant now;
	size_t len;                                              /* of labels */
	char labels[METRICS_ESCAPED_MAX(ENDPOINT_NAME_MAX) + 8]; /* {vm="name" */
};

/* A figure of a VM; arg is what the table has. False: it is not known. */
typedef bool get_figure(const struct row *row, unsigned int arg, uint64_t *value);

/* --- figures ---------------------------------------------------------------------------------- */

static bool known(uint64_t from, uint64_t *value)
{
	*value = from;
	return from != MANAGER_UNKNOWN;
}

/* Its process is there, as far as one can see: what it told last may be shown still. */
static bool there(const struct row *row)
{
	return row->managed || row->view->phase == ENDPOINT_SERVING;
}

/* A machine without a balloon is not down. */
static bool get_up(const struct row *row, unsigned int arg, uint64_t *value)
{
	(void)arg;
	*value = row->view->phase == ENDPOINT_SERVING;
	return row->view->absence != ENDPOINT_NO_BALLOON;
}

/* What is in the balloon when the VM keeps so much. */
static bool balloon_of(const struct row *row, uint64_t keeps, uint64_t *value)
{
	*value = row->view->size - keeps;
	return there(row) && row->view->ready && keeps <= row->view->size;
}

static bool get_target(const struct row *row, unsigned int arg, uint64_t *value)
{
	(void)arg;
	return balloon_of(row, row->balance ? row->balance->target : row->view->target, value);
}

static bool get_actual(const struct row *row, unsigned int arg, uint64_t *value)
{
	(void)arg;
	return balloon_of(row, row->view->actual, value);
}

static bool get_max(const struct row *row, unsigned int arg, uint64_t *value)
{
	(void)arg;
	return row->balance && known(row->balance->ceiling, value);
}

static bool get_min(const struct row *row, unsigned int arg, uint64_t *value)
{
	(void)arg;
	return row->balance && known(row->balance->floor, value);
}

/* arg: where it stands in what the device tells. */
static bool get_device(const struct row *row, unsigned int arg, uint64_t *value)
{
	if (!row->view->device.known || !there(row))
		return false;
	memcpy(value, (const char *)&row->view->device + arg, sizeof(*value));
	return true;
}

static bool get_error(const struct row *row, unsigned int arg, uint64_t *value)
{
	*value = row->view->device.errors[arg];
	return row->view->device.known && there(row) && (row->view->device.errors_known >> arg & 1);
}

/* arg: the tag. */
static bool get_stat(const struct row *row, unsigned int arg, uint64_t *value)
{
	*value = stats_get(&row->view->stats, arg);
	return there(row) && stats_has(&row->view->stats, arg);
}

static bool get_pages(const struct row *row, unsigned int arg, uint64_t *value)
{
	bool has = get_stat(row, arg, value);

	*value /= PAGE_BYTES;
	return has;
}

/* By the wall clock, in milliseconds. */
static bool get_stats_time(const struct row *row, unsigned int arg, uint64_t *value)
{
	const struct guest_stats *stats = &row->view->stats;
	uint64_t age_ms = row->now.mono_ms > stats->at_ms ? row->now.mono_ms - stats->at_ms : 0;
	uint64_t now_ms = row->now.wall_us > 0 ? (uint64_t)row->now.wall_us / 1000 : 0;

	(void)arg;
	*value = now_ms - age_ms;
	return there(row) && stats->known && age_ms < now_ms;
}

static bool get_health(const struct row *row, unsigned int arg, uint64_t *value)
{
	*value = row->managed && row->managed->health == arg;
	return row->managed;
}

static bool get_verdict(const struct row *row, unsigned int arg, uint64_t *value)
{
	*value = row->managed && row->managed->judgement.verdict == arg;
	return row->managed;
}

/* Only drivers that send messages have a number of them. */
static bool get_messages(const struct row *row, unsigned int arg, uint64_t *value)
{
	*value = row->vm->messages[arg];
	return there(row) && (*value || (row->view->device.known && row->view->device.messages));
}

/* --- labels ----------------------------------------------------------------------------------- */

typedef void add_labels(struct metrics_text *t, unsigned int arg);

static void add_health(struct metrics_text *t, unsigned int arg)
{
	metrics_label(t, false, "state", health_state_name(arg));
}

static void add_verdict(struct metrics_text *t, unsigned int arg)
{
	metrics_label(t, false, "verdict", verdict_name(arg));
}

static void add_level(struct metrics_text *t, unsigned int arg)
{
	metrics_label(t, false, "level", pressure_name(arg));
}

static void add_kind(struct metrics_text *t, unsigned int arg)
{
	bool direct = arg == VIRTIO_BALLOON_S_SCAN_DIRECT || arg == VIRTIO_BALLOON_S_RECLAIM_DIRECT;

	metrics_label(t, false, "kind", direct ? "direct" : "async");
}

static void add_error(struct metrics_text *t, unsigned int arg)
{
	metrics_label(t, false, "queue", endpoint_error_queue(arg));
	metrics_label(t, false, "reason", endpoint_error_name(arg));
}

/* --- families of VMs -------------------------------------------------------------------------- */

struct vm_family {
	struct metrics_family family;
	get_figure *get;
	unsigned int first, last; /* arguments, of which each makes a series */
	add_labels *labels;       /* NULL: no more than the VM */
	unsigned int decimals;
};

/* clang-format off */
#define ONE(name, type, unit, help, get, arg) \
	{{name, METRICS_##type, unit, help}, get, arg, arg, NULL, 0}
#define DEVICE(name, type, help, member) \
	ONE(name, type, "bytes", help, get_device, offsetof(struct endpoint_device, member))
#define MEMORY(name, help, tag) ONE(name, GAUGE, "bytes", help, get_stat, VIRTIO_BALLOON_S_##tag)
#define COUNT(name, unit, help, tag) ONE(name, COUNTER, unit, help, get_stat, VIRTIO_BALLOON_S_##tag)

static const struct vm_family vm_families[] = {
	ONE("aerostat_vm_up", GAUGE, NULL, "Whether the VM's monitor is served", get_up, 0),
	ONE("aerostat_balloon_target_bytes", GAUGE, "bytes",
	    "What is wanted in the balloon", get_target, 0),
	ONE("aerostat_balloon_actual_bytes", GAUGE, "bytes",
	    "What is in the balloon, by the guest", get_actual, 0),
	ONE("aerostat_vm_memory_max_bytes", GAUGE, "bytes",
	    "What the VM may keep at most", get_max, 0),
	ONE("aerostat_vm_memory_min_bytes", GAUGE, "bytes",
	    "What the VM keeps in any case", get_min, 0),
	DEVICE("aerostat_vm_memory_resident_bytes", GAUGE,
	       "Memory of the host behind the guest's", resident),
	MEMORY("aerostat_guest_memory_total_bytes", "What the guest's kernel has", MEMTOT),
	MEMORY("aerostat_guest_memory_free_bytes", "Not used for anything in the guest", MEMFREE),
	MEMORY("aerostat_guest_memory_available_bytes",
	       "To be had in the guest without swapping", AVAIL),
	MEMORY("aerostat_guest_memory_caches_bytes", "File caches of the guest", CACHES),
	{{"aerostat_guest_stats_timestamp_seconds", METRICS_GAUGE, "seconds",
	  "When the guest's statistics were taken, since the epoch"}, get_stats_time, 0, 0, NULL, 3},
	{{"aerostat_guest_health", METRICS_GAUGE, NULL, "1 for the state that the guest is in"},
	 get_health, 0, HEALTH_STATE_COUNT - 1, add_health, 0},
	{{"aerostat_guest_verdict", METRICS_GAUGE, NULL,
	  "1 for how badly the guest wants memory"},
	 get_verdict, 0, VERDICT_COUNT - 1, add_verdict, 0},
	COUNT("aerostat_guest_swap_in_bytes", "bytes", "Swapped in by the guest", SWAP_IN),
	COUNT("aerostat_guest_swap_out_bytes", "bytes", "Swapped out by the guest", SWAP_OUT),
	COUNT("aerostat_guest_major_faults", NULL,
	      "Page faults of the guest that needed its disk", MAJFLT),
	COUNT("aerostat_guest_minor_faults", NULL,
	      "Page faults of the guest; Linux counts the major ones here, too", MINFLT),
	COUNT("aerostat_guest_oom_kills", NULL,
	      "Times that the guest has killed for want of memory", OOM_KILL),
	COUNT("aerostat_guest_alloc_stalls", NULL,
	      "Allocations in the guest that had to reclaim", ALLOC_STALL),
	{{"aerostat_guest_scan_pages", METRICS_COUNTER, "pages",
	  "Pages of 4 KiB that the guest has scanned for some to reclaim"},
	 get_pages, VIRTIO_BALLOON_S_SCAN_ASYNC, VIRTIO_BALLOON_S_SCAN_DIRECT, add_kind, 0},
	{{"aerostat_guest_reclaim_pages", METRICS_COUNTER, "pages",
	  "Pages of 4 KiB that the guest has reclaimed"},
	 get_pages, VIRTIO_BALLOON_S_RECLAIM_ASYNC, VIRTIO_BALLOON_S_RECLAIM_DIRECT, add_kind, 0},
	COUNT("aerostat_guest_hugetlb_alloc", NULL, "Huge pages that the guest has allocated",
	      HTLB_PGALLOC),
	COUNT("aerostat_guest_hugetlb_fail", NULL, "Huge pages that the guest could not allocate",
	      HTLB_PGFAIL),
	DEVICE("aerostat_balloon_inflated_bytes", COUNTER, "Put into the balloon", inflated),
	DEVICE("aerostat_balloon_deflated_bytes", COUNTER, "Taken out of the balloon", deflated),
	DEVICE("aerostat_balloon_reported_bytes", COUNTER, "Reported as free by the guest",
	       reported),
	DEVICE("aerostat_balloon_freed_bytes", COUNTER, "Given back to the host's kernel", freed),
	{{"aerostat_guest_pressure_messages", METRICS_COUNTER, NULL,
	  "Messages of the guest that its memory is short"},
	 get_messages, 0, VIRTIO_BALLOON_PRESSURE_NR - 1, add_level, 0},
	{{"aerostat_device_errors", METRICS_COUNTER, NULL,
	  "What the guest's driver did against the rules"},
	 get_error, 0, ENDPOINT_ERROR_COUNT - 1, add_error, 0},
};
/* clang-format on */
static_assert(VIRTIO_BALLOON_S_SCAN_DIRECT == VIRTIO_BALLOON_S_SCAN_ASYNC + 1 &&
		      VIRTIO_BALLOON_S_RECLAIM_DIRECT == VIRTIO_BALLOON_S_RECLAIM_ASYNC + 1,
	      "one family each, and nothing else between");

static void write_vm_family(struct metrics_text *t, const struct vm_family *f,
			    const struct row *rows, size_t n)
{
	metrics_family(t, &f->family);
	for (size_t i = 0; i < n; i++) {
		for (unsigned int arg = f->first; arg <= f->last; arg++) {
			uint64_t value;

			if (!f->get(&rows[i], arg, &value))
				continue;
			metrics_sample(t, rows[i].labels, rows[i].len);
			if (f->labels)
				f->labels(t, arg);
			metrics_value(t, true, value, f->decimals);
		}
	}
}

static void write_info(struct metrics_text *t, const struct row *rows, size_t n)
{
	static const struct metrics_family family = {"aerostat_vm", METRICS_INFO, NULL,
						     "What the VM is"};
	char uuid[METRICS_ESCAPED_MAX(ENDPOINT_UUID_MAX)];

	metrics_family(t, &family);
	for (size_t i = 0; i < n; i++) {
		const struct endpoint_view *view = rows[i].view;

		metrics_sample(t, rows[i].labels, rows[i].len);
		metrics_label(t, false, "kind", endpoint_kind_name(view->kind));
		if (metrics_escape(view->uuid, uuid))
			metrics_label(t, false, "uuid", uuid);
		metrics_value(t, true, 1, 0);
	}
}

/* --- the host and this program ---------------------------------------------------------------- */

static void write_build(struct metrics_text *t)
{
	static const struct metrics_family family = {"aerostat_build", METRICS_INFO, NULL,
						     "What aerostatd is"};

	metrics_family(t, &family);
	metrics_sample(t, "", 0);
	metrics_label(t, true, "version", AEROSTAT_VERSION);
	metrics_value(t, true, 1, 0);
}

static void write_host(struct metrics_text *t, const struct fleet *fleet)
{
	static const struct metrics_family available = {"aerostat_host_memory_available_bytes",
							METRICS_GAUGE, "bytes",
							"To be had on the host without swapping"};
	static const struct metrics_family waiting = {
		"aerostat_host_pressure_waiting_seconds", METRICS_COUNTER, "seconds",
		"Time in which tasks of the host have waited for memory"};
	uint64_t us;

	if (fleet->host_known) {
		metrics_family(t, &available);
		metrics_sample(t, "", 0);
		metrics_value(t, false, fleet->host.available, 0);
	}
	if (host_waited_us("/proc", &us)) {
		metrics_family(t, &waiting);
		metrics_sample(t, "", 0);
		metrics_value(t, false, us, 6);
	}
}

static void write_decisions(struct metrics_text *t, const struct fleet_counts *counts)
{
	static const struct metrics_family family = {"aerostat_decisions", METRICS_COUNTER, NULL,
						     "Targets that were moved, and why"};

	metrics_family(t, &family);
	for (unsigned int action = 0; action < ACTION_COUNT; action++) {
		for (unsigned int reason = 0; reason < REASON_COUNT; reason++) {
			if (!counts->decisions[action][reason])
				continue; /* most pairs cannot be */
			metrics_sample(t, "", 0);
			metrics_label(t, true, "action", action_name(action));
			metrics_label(t, false, "reason", reason_name(reason));
			metrics_value(t, true, counts->decisions[action][reason], 0);
		}
	}
}

static void write_latencies(struct metrics_text *t, const struct fleet_counts *counts)
{
	static const struct metrics_family families[] = {
		{"aerostat_qmp_request_duration_seconds", METRICS_HISTOGRAM, "seconds",
		 "From a command to a monitor until its answer"},
		{"aerostat_reclaim_duration_seconds", METRICS_HISTOGRAM, "seconds",
		 "From a lower target until the guest keeps no more than that"},
		{"aerostat_pressure_relief_seconds", METRICS_HISTOGRAM, "seconds",
		 "From a message about pressure until the guest keeps more"},
	};
	const struct latency *const latencies[] = {&counts->requests, &counts->reclaims,
						   &counts->reliefs};

	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
		metrics_family(t, &families[i]);
		metrics_histogram(t, latencies[i]);
	}
}

/* --- all of it -------------------------------------------------------------------------------- */

static void fill_row(struct row *row, const struct fleet *fleet, uint32_t slot, struct instant now)
{
	static const char label[] = "{vm=\"";
	const struct fleet_vm *vm = &fleet->vms[slot];
	size_t len = sizeof(label) - 1;

	row->vm = vm;
	row->view = endpoint_view(vm->endpoint);
	row->managed = vm->managed ? manager_vm(&fleet->manager, slot) : NULL;
	row->balance = row->managed ? manager_balance(&fleet->manager, slot) : NULL;
	row->now = now;
	memcpy(row->labels, label, len);
	len += metrics_escape(vm->name, row->labels + len);
	row->labels[len++] = '"';
	row->len = len;
}

char *metrics_text(const struct fleet *fleet, struct instant now, bool openmetrics)
{
	struct metrics_text t = {.openmetrics = openmetrics};
	struct row *rows = calloc((size_t)fleet->used + 1, sizeof(*rows));
	size_t n = 0;

	if (!rows)
		return NULL;
	for (uint32_t slot = 0; slot < fleet->used; slot++) {
		if (fleet->vms[slot].endpoint)
			fill_row(&rows[n++], fleet, slot, now);
	}
	write_info(&t, rows, n);
	for (size_t i = 0; i < sizeof(vm_families) / sizeof(vm_families[0]); i++)
		write_vm_family(&t, &vm_families[i], rows, n);
	free(rows);
	write_decisions(&t, &fleet->counts);
	write_latencies(&t, &fleet->counts);
	write_host(&t, fleet);
	write_build(&t);
	metrics_process(&t, fleet->started_wall_us);
	return metrics_end(&t);
}
