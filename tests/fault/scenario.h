/* SPDX-License-Identifier: MIT */
/*
 * What the fault tests do to an image: a disk as it is found, and a handful of
 * requests.  The table of them is in scenarios.c.
 *
 * Of every disk the first part is written with FOUND_TOP; what else is there
 * is told by flags.  Steps carry no data: each write has a value of its own.
 */
#ifndef TESTS_FAULT_SCENARIO_H
#define TESTS_FAULT_SCENARIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tests/schedule/world.h"

#define SECTOR 512u

/* Whose bytes are found, and what the first write of a scenario writes. */
#define FOUND_TOP 1
#define FOUND_MIDDLE 2
#define FOUND_BOTTOM 3
#define FIRST_VALUE 4
#define VALUES 32

/* What is special about a disk, or-ed. */
#define LAYOUT_RAW		1u	/* no qcow2 at all */
#define LAYOUT_COMPRESSED	2u	/* the second cluster is */
/* The third is the 9th, 10th and 11th too; two of them nobody may touch. */
#define LAYOUT_SHARED		4u
#define LAYOUT_CHAIN		8u	/* lies over a qcow2 over a raw file */
#define LAYOUT_SNAPSHOT		16u	/* a snapshot has all that is there */
#define LAYOUT_ENCRYPTED	64u	/* the top is */
#define LAYOUT_BITMAP		32u	/* has a bitmap, which becomes a leak */

/* Of a chain; the top has number 0. */
#define LAYERS_MAX 3

struct layout {
	uint64_t cluster_bytes;
	uint64_t disk_bytes;		/* a multiple of 256 KiB */
	uint64_t filled_bytes;		/* from the disk's start on */
	unsigned version;		/* 0: 3 */
	unsigned refcount_bits;		/* 0: 16 */
	uint64_t device_bytes;		/* 0: a regular file */
	uint64_t cache_bytes;		/* 0: enough */
	unsigned flags;
};

/* When the trouble begins. */
enum moment {
	RUNNING,	/* when the image is open and nothing is cached */
	OPENING,	/* before it is opened */
	CLOSING,	/* only when it is closed */
};

/* Flags of a step, beside the IMAGE_... that it is asked with. */
#define STEP_TOGETHER	0x100u	/* on one loop, the next step on another */
#define STEP_PREFETCH	0x200u	/* a read, but into the host's cache */
#define STEP_FLAGS	(STEP_TOGETHER | STEP_PREFETCH)

struct step {
	enum action action;
	uint64_t guest;
	size_t length;
	unsigned flags;
};

#define STEPS_MAX 8

struct scenario {
	const char *name;
	struct layout layout;
	enum moment moment;
	bool lone_fua;		/* the first write is stable by itself */
	unsigned count;
	struct step steps[STEPS_MAX];
};

extern const struct scenario scenarios[];
extern const unsigned scenarios_count;

#endif
