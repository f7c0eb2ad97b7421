/* SPDX-License-Identifier: MIT */
#include "tests/fault/allocator.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

static bool
shall_fail(void)
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

/* ---- what the copies of the libraries call ---- */

void *allocator_malloc(size_t bytes);
void *allocator_calloc(size_t count, size_t bytes);
void *allocator_realloc(void *data, size_t bytes);
void *allocator_aligned_alloc(size_t alignment, size_t bytes);
char *allocator_strdup(const char *text);
char *allocator_strndup(const char *text, size_t length);

void *
allocator_malloc(size_t bytes)
{
	return shall_fail() ? NULL : malloc(bytes);
}

void *
allocator_calloc(size_t count, size_t bytes)
{
	return shall_fail() ? NULL : calloc(count, bytes);
}

void *
allocator_realloc(void *data, size_t bytes)
{
	return shall_fail() ? NULL : realloc(data, bytes);
}

void *
allocator_aligned_alloc(size_t alignment, size_t bytes)
{
	return shall_fail() ? NULL : aligned_alloc(alignment, bytes);
}

char *
allocator_strdup(const char *text)
{
	return shall_fail() ? NULL : strdup(text);
}

char *
allocator_strndup(const char *text, size_t length)
{
	return shall_fail() ? NULL : strndup(text, length);
}
