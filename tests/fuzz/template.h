/* SPDX-License-Identifier: MIT */
/*
 * Small sound images, made in memory by nothing but the format's rules: what
 * inputs of fuzz_image damage.
 */
#ifndef TESTS_FUZZ_TEMPLATE_H
#define TESTS_FUZZ_TEMPLATE_H

#include <stdint.h>

struct file;

#define TEMPLATE_COUNT 10u

/* What lies where in the file, for damage that hits something. */
enum template_region {
	TEMPLATE_HEADER,
	TEMPLATE_REFCOUNT_TABLE,
	TEMPLATE_REFCOUNT_BLOCK,
	TEMPLATE_L1,
	TEMPLATE_L2,
	TEMPLATE_L2_LAST,
	TEMPLATE_SNAPSHOTS,	/* 0 if there are none; so is the next */
	TEMPLATE_SNAPSHOT_L1,
	TEMPLATE_COMPRESSED,
	TEMPLATE_REGIONS,
};

struct template {
	struct file *file;	/* in plain mode */
	uint32_t cluster_bytes;
	uint64_t clusters;	/* of the file */
	uint64_t host[TEMPLATE_REGIONS];
};

/* The template of an index below TEMPLATE_COUNT; made once, kept for ever. */
const struct template *template_get(unsigned index);

#endif
