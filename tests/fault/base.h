/* SPDX-License-Identifier: MIT */
/*
 * The disks a scenario finds: made once, and copied for every run.
 */
#ifndef TESTS_FAULT_BASE_H
#define TESTS_FAULT_BASE_H

#include "tests/fault/model.h"
#include "tests/fault/scenario.h"

struct base {
	const struct layout *layout;
	unsigned layers;		/* of the chain, the top first */
	struct file *disks[LAYERS_MAX];	/* in plain mode */
	struct model model;		/* of what the guest sees */
};

void base_create(struct base *base, const struct layout *layout);
void base_free(struct base *base);

/* How layer is opened. */
enum image_format base_format(const struct layout *layout, unsigned layer);

/* Asserts that nothing a guest wrote is in the file of an encrypted disk. */
void base_judge_encrypted(struct world *world);

/* Asserts that the snapshot of a disk that has one is as it was made. */
void base_judge_snapshot(struct world *world);

#endif
