/* SPDX-License-Identifier: MIT */
/*
 * How far a long operation is, and whether it shall go on.
 *
 * One that is stopped ends with -ECANCELED, as soon as it can leave the image
 * clean: as it was, or with a part of the work done that it says.
 */
#ifndef QCOW2_IMAGE_PROGRESS_H
#define QCOW2_IMAGE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct image_progress {
	/* Between two pieces: of total, done are done; true: stop. */
	bool (*report)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};

#endif
