// SPDX-License-Identifier: MIT
#include "virtio/dirty_log.h"

#include "base/checked.h"

void dirty_log_mark(const struct dirty_log *log, uint64_t gpa, uint64_t len)
{
	uint64_t page = gpa >> DIRTY_LOG_PAGE_SHIFT, end;

	if (!log || !log->map || !len)
		return;
	if (!checked_add(gpa, len - 1, &end))
		end = UINT64_MAX;
	end >>= DIRTY_LOG_PAGE_SHIFT;
	/*
	 * The bit is set even where it seems to be set already: the front end may just be taking it
	 * out, to read the page as it was before. Release: who takes the bit sees what was written.
	 */
	for (; page <= end && page / 8 < log->bytes; page++)
		__atomic_fetch_or(&log->map[page / 8], (uint8_t)(1U << page % 8), __ATOMIC_RELEASE);
}
