// SPDX-License-Identifier: MIT
#include "vhost_user/log.h"

#include <unistd.h>

void vu_log_init(struct vu_log *log)
{
	*log = (struct vu_log){.backing.fd = -1};
}

void vu_log_clear(struct vu_log *log)
{
	if (log->backing.fd >= 0)
		vu_backing_release(&log->backing);
	vu_log_init(log);
}

int vu_log_set(struct vu_log *log, uint64_t offset, uint64_t size, int fd)
{
	struct vu_log fresh = {.backing.fd = fd, .offset = offset, .size = size};
	uint64_t lead;
	int r = vu_backing_map(&fresh.backing, offset, size, &lead);

	/* seccomp: close */
	if (r) {
		close(fd);
		return r;
	}
	fresh.dirty = (struct dirty_log){fresh.backing.map + lead, size};
	vu_log_clear(log);
	*log = fresh;
	return 0;
}
