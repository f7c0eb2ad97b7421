/* SPDX-License-Identifier: MIT */
/*
 * Work on a whole disk, piece by piece: many coroutines on several loops take
 * pieces in the order of the disk and work on them at the same time.
 *
 * Whoever takes a piece looks at what comes next, which tells where the piece
 * ends; so what is empty costs one piece, however long it is.
 */
#ifndef SERVER_WALK_H
#define SERVER_WALK_H

#include <stdbool.h>
#include <stdint.h>
#include "runtime/loop.h"
#include "runtime/monitor.h"

struct walk_piece {
	uint64_t guest;
	uint64_t length;
	bool is_empty;		/* for look() to tell work() */
};

struct walk {
	uint64_t size_bytes;
	unsigned coroutines;		/* on each loop */
	/*
	 * Sets the length, at least 1, of the piece that begins at guest; one
	 * call at a time, in order.  A co_fn, like work().
	 */
	int (*look)(void *arg, struct walk_piece *piece);
	int (*work)(void *arg, const struct walk_piece *piece);
	/* Bytes that are done so far; on the first loop.  Or NULL. */
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;

	/* Private; guarded by the monitor. */
	struct monitor monitor;
	bool looking;
	struct wait_queue looked;
	uint64_t next, end, done;
	unsigned running;
	struct wait_queue ended;
	int err;
};

/*
 * Walks through the disk; the calling coroutine is on the first of the loops.
 * Returns, after all work that had begun, the first error of look() or work().
 */
co_fn int walk_run(struct walk *walk, struct loop *const *loops,
    unsigned loops_count);

/* Takes no piece any more that begins at guest or behind it. */
co_fn void walk_end_at(struct walk *walk, uint64_t guest);

#endif
