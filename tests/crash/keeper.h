/* SPDX-License-Identifier: MIT */
/*
 * A keeper: who makes, deletes and applies the snapshots of a crew's image,
 * beside the clients, and knows which there must be.
 *
 * Making one is a read of the whole disk, some time between its beginning and
 * its return: the snapshot must hold what such a read may have returned, for
 * as long as it is there.  Applying one is a write of all that to the disk.
 * Each operation is a RECORD_REQUEST_OTHER in the record: value says which it
 * is, offset is the index of the snapshot.
 */
#ifndef TESTS_CRASH_KEEPER_H
#define TESTS_CRASH_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "runtime/co.h"

struct crew;
struct file;

/* That one run ever has. */
#define KEEPER_SNAPSHOTS_MAX 64
#define KEEPER_OPERATIONS_MAX 64

/* What the record has as its source. */
#define KEEPER_SOURCE 999

enum keeper_operation {
	KEEPER_CREATE,
	KEEPER_DELETE,
	KEEPER_APPLY,
	KEEPER_OPERATIONS,
};

/* Numbers of the record; 0: it never began. */
struct kept_event {
	uint64_t received;
	uint64_t replied;	/* or RECORD_NEVER */
	int err;
};

struct kept {
	char name[32];
	struct kept_event creation;	/* of one that was there: 0 and 1 */
	struct kept_event deletion;
};

struct keeper {
	/* Of all operations, when they were under way. */
	struct kept_event spans[KEEPER_OPERATIONS_MAX];
	unsigned spans_count;
	struct kept list[KEEPER_SNAPSHOTS_MAX];
	unsigned count;
	unsigned running;	/* operations, and resizes */
	unsigned begun;		/* so far */
	unsigned done;		/* operations that worked */
	unsigned refused;	/* those that the refcounts cannot count */
};

/*
 * Learns which snapshots the crew's image has.  They hold what the disk holds
 * at the beginning.
 */
void keeper_begin(struct crew *crew);

/* Operations at random, as many as the crew's options say. */
co_fn void keeper_work(struct crew *crew);

/* Creates one more; or deletes or applies the oldest, if there is any. */
co_fn void keeper_do(struct crew *crew, enum keeper_operation operation);

/*
 * Holds the snapshots of a disk against what must be there after a crash at
 * point (RECORD_NEVER: now), and what they hold.  0, or -EIO with a sentence
 * in failure.
 */
co_fn int keeper_judge(struct crew *crew, struct file *disk, uint64_t point,
    char *failure, size_t size);

/* A number that follows from what keeper_judge() would ask for there. */
uint64_t keeper_allowed(const struct crew *crew, uint64_t point);

/* Whether an operation was under way in a crash at point. */
bool keeper_is_busy(const struct crew *crew, uint64_t point);

const char *keeper_operation_name(enum keeper_operation operation);

#endif
