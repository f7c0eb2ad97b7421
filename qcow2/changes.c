/* SPDX-License-Identifier: MIT */
#include "qcow2/changes.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/entry.h"
#include "runtime/file.h"

/* Entries that go out in one write: a sector, so no entry is ever torn. */
#define RUN_MAX 64

int
changes_make_room(struct changes *changes, size_t count)
{
	size_t room = changes->room ? changes->room : 16;
	struct change *list;

	while (room < changes->count + count)
		room *= 2;
	if (room == changes->room)
		return 0;
	list = realloc(changes->list, room * sizeof(*list));
	if (!list)
		return -ENOMEM;
	changes->list = list;
	changes->room = room;
	return 0;
}

void
changes_add(struct changes *changes, uint64_t index, uint64_t entry)
{
	assert(changes->count < changes->room);
	changes->list[changes->count++] = (struct change){index, entry};
}

void
changes_take(struct changes *changes)
{
	assert(changes->taken == 0);
	changes->taken = changes->count;
}

void
changes_drop_taken(struct changes *changes)
{
	changes->count -= changes->taken;
	if (changes->count > 0)
		memmove(changes->list, changes->list + changes->taken,
		    changes->count * sizeof(*changes->list));
	changes->taken = 0;
}

void
changes_put_back(struct changes *changes)
{
	changes->taken = 0;
}

void
changes_drop_from(struct changes *changes, uint64_t index)
{
	size_t kept = changes->taken;

	for (size_t i = kept; i < changes->count; i++)
		if (changes->list[i].index < index)
			changes->list[kept++] = changes->list[i];
	changes->count = kept;
}

/* How many changes from the first of list on are of neighbouring entries. */
static size_t
take_run(const struct change *list, size_t count, uint64_t *run)
{
	size_t length = 0;

	while (length < count && length < RUN_MAX &&
	    list[length].index == list[0].index + length) {
		run[length] = htobe64(list[length].entry);
		length++;
	}
	return length;
}

/* The list may move while a run of it is written. */
int
changes_write(const struct changes *changes, struct file *file,
    uint64_t offset)
{
	uint64_t run[RUN_MAX];
	size_t done = 0;
	int err = 0;

	while (done < changes->taken && !err) {
		const struct change *list = changes->list + done;
		size_t length = take_run(list, changes->taken - done, run);

		err = file_pwrite(file, run, length * ENTRY_BYTES,
		    offset + list[0].index * ENTRY_BYTES, 0);
		done += length;
	}
	return err;
}

void
changes_free(struct changes *changes)
{
	free(changes->list);
	*changes = (struct changes){0};
}
