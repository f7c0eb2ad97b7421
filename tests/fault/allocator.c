/* SPDX-License-Identifier: MIT */
#include "tests/fault/allocator.h"

#include <errno.h>

static struct {
	bool active;
	bool for_good;
	uint64_t nth;
	uint64_t tried;
	uint64_t failed;
} allocator;

void
allocator_begin(uint64_t nth, bool for_good)
{
	allocator.active = true;
	allocator.for_good = for_good;
	allocator.nth = nth;
	allocator.tried = 0;
	allocator.failed = 0;
}

uint64_t
allocator_end(uint64_t *failedp)
{
	allocator.active = false;
	*failedp = allocator.failed;
	return allocator.tried;
}

bool
allocator_fails(void)
{
	if (!allocator.active)
		return false;
	allocator.tried++;
	if (allocator.nth == 0 || allocator.tried < allocator.nth ||
	    (allocator.tried > allocator.nth && !allocator.for_good))
		return false;
	allocator.failed++;
	errno = ENOMEM;
	return true;
}
