/* SPDX-License-Identifier: MIT */
/*
 * Every sequence of one to three out of eighteen requests: six kinds (a write
 * that allocates, an overwrite, zeros, a trim, a flush, a write with FUA) at
 * three places.
 *
 * A place is two clusters beside each other, of which one is empty at first
 * and the other full.  Two places are neighbours; the third lies across the
 * border of two L2 tables, if the disk is that long.  Requests of one place
 * come from one client.
 */
#ifndef TESTS_CRASH_SEQUENCE_H
#define TESTS_CRASH_SEQUENCE_H

#include <stdint.h>
#include "runtime/record.h"

#define SEQUENCE_PLACES 3
#define SEQUENCE_LENGTH_MAX 3

/* 18 of one request, 324 of two, 5,832 of three; in this order. */
#define SEQUENCE_COUNT 6174u

struct sequence_range {
	uint64_t offset;
	uint64_t length;
};

/* Of a disk of eight clusters at least. */
struct sequence_range sequence_full_cluster(unsigned place,
    uint64_t cluster_bytes, uint64_t disk_bytes);

/* The requests of the sequence with this number; how many. */
unsigned sequence_requests(uint64_t number, uint64_t cluster_bytes,
    uint64_t disk_bytes, struct record requests[SEQUENCE_LENGTH_MAX]);

/*
 * One operation on snapshots (keeper.h) by itself, and before, between or
 * behind one request or two: 3, 108 and 2,916, in this order.
 */
#define SEQUENCE_SNAPSHOT_COUNT 3027u

unsigned sequence_with_snapshot(uint64_t number, uint64_t cluster_bytes,
    uint64_t disk_bytes, struct record requests[SEQUENCE_LENGTH_MAX]);

/*
 * The same with one change of length (resizer.h): into the middle of a cluster
 * of the second place; to more than twice the length; a few clusters more, set
 * aside or filled.
 */
#define SEQUENCE_RESIZES 5
#define SEQUENCE_RESIZE_COUNT (SEQUENCE_SNAPSHOT_COUNT / 3 * SEQUENCE_RESIZES)

unsigned sequence_with_resize(uint64_t number, uint64_t cluster_bytes,
    uint64_t disk_bytes, struct record requests[SEQUENCE_LENGTH_MAX]);

#endif
