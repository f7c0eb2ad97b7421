/* SPDX-License-Identifier: MIT */
/*
 * Moves: tables that get another place, to which the header is to point.
 *
 * The refcount table moves when it grows, the L1 table when the disk changes
 * its length or becomes that of a snapshot, the snapshot table whenever it
 * changes.  Whoever moves one takes clusters for it, adds them to the index of
 * metadata, changes the table in RAM and notes the move here.  The next barrier
 * writes the table there as a whole, with all that it points to, switches the
 * header once that is stable, and puts the old place into quarantine once that
 * is, too (O5).
 *
 * In the image's monitor.
 */
#ifndef QCOW2_MOVES_H
#define QCOW2_MOVES_H

#include <stdbool.h>
#include <stdint.h>
#include "runtime/co.h"

struct image;

struct move {
	bool wanted;
	uint64_t host;		/* the new place; 0: there is no table now */
	uint32_t count;		/* clusters, entries, snapshots */
};

struct moves {
	struct move refcount_table;
	struct move l1;		/* together with the length of the disk */
	bool size;		/* the length alone */
	/* Its mover has written the table already. */
	struct move snapshots;
	uint64_t snapshots_bytes;
};

/* What a cut took of them. */
struct moves_cut {
	struct moves moves;
	uint64_t size_bytes;
	uint64_t *refcount_table;	/* copies, as they stand on disk */
	uint64_t *l1;
};

/* Whether any is wanted. */
bool moves_any(const struct moves *moves);

/* Takes all for a cut.  -ENOMEM: none was taken. */
int moves_take(struct image *image, struct moves_cut *cut);

/* Writes what was taken to its new places. */
co_fn int moves_write(struct image *image, const struct moves_cut *cut);

/* Points the header there; what was written is stable. */
co_fn int moves_hook(struct image *image, const struct moves_cut *cut);

/* The switch is stable: the old places go to quarantine.  Frees the copies. */
void moves_finish(struct image *image, struct moves_cut *cut);

/*
 * A table of so many bytes has left a place, as of the next barrier: nobody may
 * be in it any more.  0 bytes are fine.
 */
void moves_leave_place(struct image *image, uint64_t host, uint64_t bytes);

/* The cut failed: they are wanted again, if nothing newer is. */
void moves_put_back(struct image *image, struct moves_cut *cut);

#endif
