/* SPDX-License-Identifier: MIT */
/*
 * Changes to a table that is in RAM as a whole (L1, refcount table): which
 * entries the next barrier has to write, and with which value.
 *
 * In the image's monitor.
 */
#ifndef QCOW2_CHANGES_H
#define QCOW2_CHANGES_H

#include <stddef.h>
#include <stdint.h>
#include "runtime/co.h"

struct file;

struct change {
	uint64_t index;
	uint64_t entry;
};

/*
 * In the order they were made; all zeros is none.  The first of them may be
 * taken by a barrier, which writes them and then drops them or puts them back.
 */
struct changes {
	struct change *list;
	size_t count, room;
	size_t taken;
};

/* Those that no barrier has taken yet. */
static inline size_t
changes_waiting(const struct changes *changes)
{
	return changes->count - changes->taken;
}

/* Makes room for count more, so that adding cannot fail.  -ENOMEM. */
int changes_make_room(struct changes *changes, size_t count);
void changes_add(struct changes *changes, uint64_t index, uint64_t entry);

/* Takes all of them; none is taken yet. */
void changes_take(struct changes *changes);

/* Writes those taken into the table at offset, neighbours in one go. */
co_fn int changes_write(const struct changes *changes, struct file *file,
    uint64_t offset);

/* Those taken are stable, or wait again. */
void changes_drop_taken(struct changes *changes);
void changes_put_back(struct changes *changes);

/* Forgets changes of entries at index and above that are not taken. */
void changes_drop_from(struct changes *changes, uint64_t index);

void changes_free(struct changes *changes);

#endif
