// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the driver has done, in sysfs: one number a file, in the directory `balloon` of the virtio
 * device.  docs/guest-driver.md lists them.  They are read without locks: each is right by itself,
 * two of them may be from different moments.
 */
#include <linux/device.h>
#include <linux/sysfs.h>

#include "balloon.h"

static struct vb *vb_of(struct device *dev)
{
	return dev_to_virtio(dev)->priv;
}

#define COUNTER(name, field)                                                                     \
	static ssize_t name##_show(struct device *dev, struct device_attribute *attr, char *buf) \
	{                                                                                        \
		return sysfs_emit(buf, "%llu\n", (u64)READ_ONCE(vb_of(dev)->field));             \
	}                                                                                        \
	static DEVICE_ATTR_RO(name)

COUNTER(target, pages.target);
COUNTER(held, pages.held);
COUNTER(actual, pages.actual);
COUNTER(inflated, pages.inflated);
COUNTER(migrated, pages.migrated);
COUNTER(released_target, pages.released[VB_FOR_TARGET]);
COUNTER(released_oom, pages.released[VB_FOR_OOM]);
COUNTER(released_close, pages.released[VB_FOR_CLOSE]);
COUNTER(inflate_failures, pages.inflate_failures);
COUNTER(backoff_ms, pages.backoff_ms);
COUNTER(timeouts, pages.timeouts);
COUNTER(stats_requests, stats.requests);
COUNTER(stats_pushed, stats.pushed);
COUNTER(stats_skipped, stats.skipped);
COUNTER(stats_interval_ms, stats.interval_ms);
COUNTER(messages_low, pressure.messages[VIRTIO_BALLOON_PRESSURE_LOW]);
COUNTER(messages_medium, pressure.messages[VIRTIO_BALLOON_PRESSURE_MEDIUM]);
COUNTER(messages_critical, pressure.messages[VIRTIO_BALLOON_PRESSURE_CRITICAL]);
COUNTER(messages_relieved, pressure.messages[0]);
COUNTER(message_timeouts, pressure.timeouts);
COUNTER(message_wait_us, pressure.wait_us);
COUNTER(hinted, hint.hinted);
COUNTER(hint_shrunk, hint.shrunk);
COUNTER(reported, report.reported);

static ssize_t pressure_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	static const char *const names[] = {"none", "low", "medium", "critical"};

	static_assert(ARRAY_SIZE(names) == VIRTIO_BALLOON_PRESSURE_NR);
	return sysfs_emit(buf, "%s\n", names[READ_ONCE(vb_of(dev)->pressure.level)]);
}
static DEVICE_ATTR_RO(pressure);

static struct attribute *counters[] = {
	&dev_attr_target.attr,
	&dev_attr_held.attr,
	&dev_attr_actual.attr,
	&dev_attr_inflated.attr,
	&dev_attr_migrated.attr,
	&dev_attr_released_target.attr,
	&dev_attr_released_oom.attr,
	&dev_attr_released_close.attr,
	&dev_attr_inflate_failures.attr,
	&dev_attr_backoff_ms.attr,
	&dev_attr_timeouts.attr,
	&dev_attr_stats_requests.attr,
	&dev_attr_stats_pushed.attr,
	&dev_attr_stats_skipped.attr,
	&dev_attr_stats_interval_ms.attr,
	&dev_attr_messages_low.attr,
	&dev_attr_messages_medium.attr,
	&dev_attr_messages_critical.attr,
	&dev_attr_messages_relieved.attr,
	&dev_attr_message_timeouts.attr,
	&dev_attr_message_wait_us.attr,
	&dev_attr_pressure.attr,
	&dev_attr_hinted.attr,
	&dev_attr_hint_shrunk.attr,
	&dev_attr_reported.attr,
	NULL,
};

static const struct attribute_group counter_group = {
	.name = "balloon",
	.attrs = counters,
};

const struct attribute_group *vb_counter_groups[] = {&counter_group, NULL};
