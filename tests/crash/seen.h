/* SPDX-License-Identifier: MIT */
/* A set of numbers: the hashes of what was seen.  {0} is empty. */
#ifndef TESTS_CRASH_SEEN_H
#define TESTS_CRASH_SEEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct seen {
	size_t count;
	size_t room;		/* a power of two, or 0 */
	uint64_t *keys;		/* open addressing, 0: free */
};

/* True the first time. */
bool seen_add(struct seen *seen, uint64_t key);

void seen_free(struct seen *seen);

#endif
