/* SPDX-License-Identifier: MIT */
/* What races.c (of data), races_tables.c and pauses.c share. */
#ifndef TESTS_SCHEDULE_RACES_H
#define TESTS_SCHEDULE_RACES_H

#include "tests/schedule/world.h"

#define CLUSTER 4096u
#define HALF (CLUSTER / 2)

/* Guest clusters. */
#define A (0 * CLUSTER)
#define B (1 * CLUSTER)
#define C (2 * CLUSTER)
#define D (3 * CLUSTER)

/* Each race runs under the seeds from 0 on. */
#define RACE_SEEDS 12

/* A file_sim_hold.match: writes that begin with the byte at arg. */
bool begins_with(const struct file_sim_op *op, void *arg);

/* For world_prepare(): A is all 0x11. */
co_fn void prepare_a(struct world *world);

void races_add_tables(TCase *tests);
void races_add_sectors(TCase *tests);

#endif
