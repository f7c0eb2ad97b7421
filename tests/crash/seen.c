/* SPDX-License-Identifier: MIT */
#include "tests/crash/seen.h"

#include <stdlib.h>

static bool
insert(struct seen *seen, uint64_t key)
{
	size_t slot = key & (seen->room - 1);

	while (seen->keys[slot] != 0) {
		if (seen->keys[slot] == key)
			return false;
		slot = (slot + 1) & (seen->room - 1);
	}
	seen->keys[slot] = key;
	return true;
}

static void
grow(struct seen *seen)
{
	struct seen larger = {
		.count = seen->count,
		.room = seen->room ? 2 * seen->room : 1024,
	};

	larger.keys = calloc(larger.room, sizeof(*larger.keys));
	if (!larger.keys)
		abort();
	for (size_t i = 0; i < seen->room; i++) {
		if (seen->keys[i])
			insert(&larger, seen->keys[i]);
	}
	free(seen->keys);
	*seen = larger;
}

bool
seen_add(struct seen *seen, uint64_t key)
{
	if (2 * seen->count >= seen->room)
		grow(seen);
	if (!insert(seen, key ? key : 1))
		return false;
	seen->count++;
	return true;
}

void
seen_free(struct seen *seen)
{
	free(seen->keys);
	*seen = (struct seen){0};
}
