/* SPDX-License-Identifier: MIT */
/*
 * Which snapshots there must be, by number (world.h), and what each may hold:
 * sets of values, as in a model.
 */
#ifndef TESTS_FAULT_KEPT_H
#define TESTS_FAULT_KEPT_H

#include <stdbool.h>
#include <stdint.h>
#include "tests/fault/model.h"
#include "tests/schedule/world.h"

#define KEPT_MAX 4

enum kept_state {
	KEPT_GONE,
	KEPT_MAYBE,		/* an operation has failed */
	KEPT_THERE,
};

struct kept {
	enum kept_state states[KEPT_MAX];
	uint32_t *values[KEPT_MAX];
	uint64_t sectors;
	bool failed;		/* an operation has, so far */
};

/* Of a disk of model's length; there are none. */
void kept_create(struct kept *kept, const struct model *model);
void kept_free(struct kept *kept);

static inline bool
kept_is_about(enum action action)
{
	return action >= ACTION_SNAPSHOT_CREATE;
}

/* A request about a snapshot begins; and has ended, with its result. */
void kept_begin(struct kept *kept, const struct model *model,
    const struct request *request);
/* beside: other requests were under way. */
void kept_end(struct kept *kept, struct model *model,
    const struct request *request, bool beside);

/*
 * Asserts that those are in the file that must be, no others, and what they
 * hold.  What is in doubt is settled by that.
 */
co_fn void kept_judge(struct kept *kept, struct world *world);

#endif
