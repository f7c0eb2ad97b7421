/* SPDX-License-Identifier: MIT */
/* What the tests of opening anew share. */
#ifndef TESTS_SCHEDULE_REOPENING_H
#define TESTS_SCHEDULE_REOPENING_H

#include "tests/schedule/world.h"

#define CLUSTER 4096u
#define OLD 5
#define NEW 6

/* Where the incompatible features stand. */
#define FEATURES 72

/* image_reopen() and image_invalidate() of the world's image. */
co_fn int reopen(struct world *world, bool writable);
co_fn void must_reopen(struct world *world, bool writable);
co_fn int invalidate(struct world *world);

/* What a write says to the first sector. */
co_fn int write_fails(struct world *world);

void reopening_add_reading_on(TCase *tests);

#endif
