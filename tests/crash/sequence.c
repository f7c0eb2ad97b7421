/* SPDX-License-Identifier: MIT */
#include "tests/crash/sequence.h"

#include <assert.h>
#include <stdbool.h>
#include "qcow2/create.h"
#include "tests/crash/crew.h"
#include "tests/crash/resizer.h"

enum {
	ALLOCATING_WRITE, OVERWRITE, ZERO, TRIM, FLUSH, FUA_WRITE, KINDS,
};

#define SYMBOLS (KINDS * SEQUENCE_PLACES)

/* The first cluster of a place. */
static uint64_t
first_cluster(unsigned place, uint64_t cluster_bytes, uint64_t disk_bytes)
{
	uint64_t border = cluster_bytes / 8;

	if (place < 2)
		return 2 * place;
	if (border > disk_bytes / cluster_bytes / 2)
		border = disk_bytes / cluster_bytes / 2;
	return border - 1;
}

/* Of the first place the first cluster is empty, of the others the last. */
static bool
is_first_empty(unsigned place)
{
	return place == 0;
}

struct sequence_range
sequence_full_cluster(unsigned place, uint64_t cluster_bytes,
    uint64_t disk_bytes)
{
	uint64_t cluster = first_cluster(place, cluster_bytes, disk_bytes) +
	    is_first_empty(place);

	assert(disk_bytes >= 8 * cluster_bytes);
	return (struct sequence_range){
		cluster * cluster_bytes, cluster_bytes,
	};
}

static void
set_kind(struct record *request, unsigned kind, unsigned place)
{
	static const enum record_kind kinds[KINDS] = {
		[ALLOCATING_WRITE] = RECORD_REQUEST_WRITE,
		[OVERWRITE] = RECORD_REQUEST_WRITE,
		[ZERO] = RECORD_REQUEST_ZERO,
		[TRIM] = RECORD_REQUEST_TRIM,
		[FLUSH] = RECORD_REQUEST_FLUSH,
		[FUA_WRITE] = RECORD_REQUEST_WRITE,
	};

	*request = (struct record){.kind = kinds[kind], .source = place};
	if (kind == FUA_WRITE)
		request->flags = RECORD_FUA;
	/* Both ways to zero are met. */
	if (kind == ZERO && place != 0)
		request->flags = CREW_NO_HOLE;
}

/*
 * A write goes to one of the clusters, at the first place to all of it, else
 * to its second half; with FUA to half of each; all others to both.
 */
static void
set_range(struct record *request, unsigned kind, unsigned place,
    uint64_t cluster_bytes, uint64_t disk_bytes)
{
	uint64_t first = first_cluster(place, cluster_bytes, disk_bytes);
	uint64_t half = cluster_bytes / 2 & ~511ull;
	bool second = is_first_empty(place) != (kind == ALLOCATING_WRITE);

	request->offset = first * cluster_bytes;
	request->length = 2 * cluster_bytes;
	if (kind == FLUSH) {
		request->offset = 0;
		request->length = 0;
	} else if (kind == FUA_WRITE && half > 0) {
		request->offset += half;
		request->length = cluster_bytes;
	} else if (kind == ALLOCATING_WRITE || kind == OVERWRITE) {
		request->offset += second ? cluster_bytes : 0;
		request->length = cluster_bytes;
		if (place != 0) {
			request->offset += half;
			request->length -= half;
		}
	}
}

unsigned
sequence_requests(uint64_t number, uint64_t cluster_bytes,
    uint64_t disk_bytes, struct record requests[SEQUENCE_LENGTH_MAX])
{
	uint64_t of_length = SYMBOLS;
	unsigned count = 1;

	assert(number < SEQUENCE_COUNT);
	while (number >= of_length) {
		number -= of_length;
		of_length *= SYMBOLS;
		count++;
	}
	for (unsigned i = 0; i < count; i++) {
		unsigned symbol = (unsigned)(number % SYMBOLS);
		unsigned kind = symbol / SEQUENCE_PLACES;
		unsigned place = symbol % SEQUENCE_PLACES;

		set_kind(&requests[i], kind, place);
		set_range(&requests[i], kind, place, cluster_bytes,
		    disk_bytes);
		number /= SYMBOLS;
	}
	return count;
}

/* The operation by itself, or with up to two requests. */
static unsigned
sequence_with(const struct record *operation, uint64_t number,
    uint64_t cluster_bytes, uint64_t disk_bytes,
    struct record requests[SEQUENCE_LENGTH_MAX])
{
	uint64_t ways = 1, place = 0;
	unsigned count = 0;

	/* Places among so many requests, for each sequence of these. */
	for (uint64_t sequences = 1; number >= ways * sequences;
	    sequences *= SYMBOLS)
		number -= ways++ * sequences;
	if (ways > 1) {
		place = number % ways;
		number /= ways;
		if (ways > 2)
			number += SYMBOLS;
		count = sequence_requests(number, cluster_bytes, disk_bytes,
		    requests);
	}
	for (unsigned i = count; i > place; i--)
		requests[i] = requests[i - 1];
	requests[place] = *operation;
	return count + 1;
}

unsigned
sequence_with_snapshot(uint64_t number, uint64_t cluster_bytes,
    uint64_t disk_bytes, struct record requests[SEQUENCE_LENGTH_MAX])
{
	struct record operation = {
		.kind = RECORD_REQUEST_OTHER, .source = KEEPER_SOURCE,
		.value = number % KEEPER_OPERATIONS,
	};

	assert(number < SEQUENCE_SNAPSHOT_COUNT);
	return sequence_with(&operation, number / KEEPER_OPERATIONS,
	    cluster_bytes, disk_bytes, requests);
}

unsigned
sequence_with_resize(uint64_t number, uint64_t cluster_bytes,
    uint64_t disk_bytes, struct record requests[SEQUENCE_LENGTH_MAX])
{
	unsigned which = (unsigned)(number % SEQUENCE_RESIZES);
	uint64_t half = cluster_bytes / 2 & ~511ull;
	const struct record resizes[SEQUENCE_RESIZES] = {
		{.offset = 2 * cluster_bytes + half},
		{.offset = 2 * disk_bytes + cluster_bytes + half},
		{.offset = disk_bytes + 5 * cluster_bytes + half,
		    .value = CREATE_METADATA},
		{.offset = disk_bytes + 4 * cluster_bytes,
		    .value = CREATE_FALLOC},
		{.offset = disk_bytes + 3 * cluster_bytes + half,
		    .value = CREATE_FULL},
	};
	struct record operation = resizes[which];

	assert(number < SEQUENCE_RESIZE_COUNT);
	operation.kind = RECORD_REQUEST_OTHER;
	operation.source = RESIZER_SOURCE;
	return sequence_with(&operation, number / SEQUENCE_RESIZES,
	    cluster_bytes, disk_bytes, requests);
}
