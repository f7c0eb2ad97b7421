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

/* In the order they were made; all zeros is none. */
struct changes {
	struct change *list;
	size_t count, room;
};

/* Makes room for one more, so that adding cannot fail.  -ENOMEM. */
int changes_make_room(struct changes *changes);
void changes_add(struct changes *changes, uint64_t index, uint64_t entry);

/* Takes all of them, leaving none. */
struct changes changes_take(struct changes *changes);

/*
 * Puts earlier, which changes_take() took, back before what came since.
 * -ENOMEM: it could not; either way earlier is none afterwards.
 */
int changes_put_back(struct changes *changes, struct changes *earlier);

/* Forgets changes of entries at index and above. */
void changes_drop_from(struct changes *changes, uint64_t index);

/* Writes the entries into the table at offset, neighbours in one go. */
co_fn int changes_write(const struct changes *changes, struct file *file,
    uint64_t offset);

void changes_free(struct changes *changes);

#endif
