/* SPDX-License-Identifier: MIT */
/*
 * The quarantine: host clusters that lost a reference and may not be touched.
 *
 * A cluster leaves it when the metadata that dropped it is stable (O3) and
 * every request that may still meet it has ended.  Only then is it punched,
 * its refcount lowered and, if that makes it free, the cluster reused; until
 * then the refcount in RAM stays what it was.
 *
 * In the image's monitor.
 */
#ifndef QCOW2_QUARANTINE_H
#define QCOW2_QUARANTINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "runtime/co.h"
#include "runtime/loop.h"

struct image;

/* Past either, or with runs this old, the image starts a barrier by itself. */
#define QUARANTINE_RUNS_MAX (64u * 1024)
#define QUARANTINE_BYTES_MAX (1024ull * 1024 * 1024)
#define QUARANTINE_AGE_NS 5000000000ull

struct quarantine_run {
	uint64_t cluster;
	uint64_t count;
	uint64_t cut;		/* of the barrier that makes its loss stable */
	uint64_t epoch;		/* in which it was still to be met */
	uint64_t since_ns;
};

/* Oldest first, in a ring. */
struct quarantine {
	struct quarantine_run *runs;
	size_t first, count, room;	/* room is a power of two */
	uint64_t clusters;
	uint64_t asked_ns;	/* when its age last asked for a barrier */
	/* Looks at it when nobody else does; on the loop that armed it. */
	struct timer timer;
	struct loop *timer_loop;	/* NULL: not armed */
	struct co_start timer_start;
};

/* Makes room for count more entries, so that adding cannot fail.  -ENOMEM. */
int quarantine_make_room(struct image *image, size_t count);

/* Takes in clusters that lose one reference each, by a change just made. */
void quarantine_add(struct image *image, uint64_t cluster, uint64_t count);

/* The same for whatever host clusters an L2 entry pointed to, if any. */
void quarantine_add_entry(struct image *image, uint64_t entry);

/*
 * Whether it is full or old enough for a barrier of its own.  Age asks once in
 * QUARANTINE_AGE_NS: what a request in flight holds is not let out by haste.
 */
bool quarantine_wants_barrier(struct image *image);

/* Sees to it that a barrier comes even if no request does, if one is due. */
void quarantine_watch(struct image *image);

/* Ends the watching, for closing; the barrier is idle. */
co_fn void quarantine_unwatch(struct image *image);

/*
 * Takes one reference off each of the clusters: at once, so their loss must be
 * stable already, and nobody may meet those that this frees.
 */
co_fn void quarantine_let_out(struct image *image, uint64_t cluster,
    uint64_t count);

/* Lets out whoever may go.  Called by the barrier. */
co_fn void quarantine_release(struct image *image);

void quarantine_free(struct quarantine *quarantine);

#endif
