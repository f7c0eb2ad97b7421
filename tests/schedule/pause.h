/* SPDX-License-Identifier: MIT */
/*
 * Named pause points: where a test may hold a request.
 *
 * Between two suspensions the engine is atomic (DESIGN.md, section 3), so a
 * request can be overtaken exactly where it waits: for the disk, for another
 * request, for the network.  Who waits for another request is held by holding
 * the other.  So operations of the disk, told apart by what they are for, name
 * every step, and the engine needs no hooks:
 *
 *	a write			TABLE_LOAD, TABLE_NEW, COPY, DATA, LINK
 *	a write in place	TABLE_LOAD, DATA, LINK
 *	a read			TABLE_LOAD, READ
 *	a flush			CUT, FIRST_SYNC, BETWEEN_SYNCS, LAST_SYNC,
 *				STABLE
 *	what a discard frees	PUNCH, REUSE
 *
 * What stands still in monitor_enter() is drawn by the seed; see sim.h.  On
 * the network there are two points more, before a request has arrived and
 * before its reply has: sim_hold_arrivals().
 */
#ifndef TESTS_SCHEDULE_PAUSE_H
#define TESTS_SCHEDULE_PAUSE_H

#include "tests/schedule/world.h"

enum pause_point {
	/* Before the L2 table of guest is read.  A write has its claim. */
	PAUSE_TABLE_LOAD,
	/* Before a new L2 table or refcount block is written as zeros; its
	 * cluster is taken, the claim is held. */
	PAUSE_TABLE_NEW,
	/* Before old content of guest is read; a write that needs it for its
	 * copy has its claim and its new cluster. */
	PAUSE_COPY,
	/* Before the data of value is written: the cluster is allocated under
	 * a claim, or it is in place, and the epoch is entered. */
	PAUSE_DATA,
	/* After it was written, before the entry is linked to it; in place,
	 * before the epoch is left. */
	PAUSE_LINK,
	/* Before the data of guest is read; the epoch is entered. */
	PAUSE_READ,
	/* After the barrier's cut, before the refcounts are written. */
	PAUSE_CUT,
	/* After that, before the sync that orders them before the entries. */
	PAUSE_FIRST_SYNC,
	/* Between the syncs: before the first entry or table is written. */
	PAUSE_BETWEEN_SYNCS,
	/* After that, before the sync that makes all of it stable. */
	PAUSE_LAST_SYNC,
	/* All is stable, and the barrier does not know it yet. */
	PAUSE_STABLE,
	/* Before what was freed is punched out of the file. */
	PAUSE_PUNCH,
	/* After that, before it may be reused. */
	PAUSE_REUSE,
	PAUSE_POINTS,
};

/* One request, or the barrier, held at a point; the test's memory. */
struct pause {
	struct world *world;
	enum pause_point point;
	uint8_t value;
	uint64_t host;		/* of the table or the data, if it matters */
	bool entries_written;	/* since the last sync */
	struct file_sim_hold hold;
};

/*
 * Holds what comes to point from now on, the first of it only.  guest and
 * value choose whose it is, where the list above names them; guest's mapping
 * must be on disk then, and value must not be 0.
 */
void pause_begin(struct pause *pause, struct world *world,
    enum pause_point point, uint64_t guest, uint8_t value);

/* Until it is held there. */
co_fn void pause_await(struct pause *pause);

/* Lets it go on. */
void pause_end(struct pause *pause);

const char *pause_name(enum pause_point point);

#endif
