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

static int
grow(struct changes *changes, size_t room)
{
	struct change *list = realloc(changes->list, room * sizeof(*list));

	if (!list)
		return -ENOMEM;
	changes->list = list;
	changes->room = room;
	return 0;
}

int
changes_make_room(struct changes *changes)
{
	if (changes->count < changes->room)
		return 0;
	return grow(changes, changes->room ? 2 * changes->room : 16);
}

void
changes_add(struct changes *changes, uint64_t index, uint64_t entry)
{
	assert(changes->count < changes->room);
	changes->list[changes->count++] = (struct change){index, entry};
}

struct changes
changes_take(struct changes *changes)
{
	struct changes taken = *changes;

	*changes = (struct changes){0};
	return taken;
}

int
changes_put_back(struct changes *changes, struct changes *earlier)
{
	int err = 0;

	if (earlier->count == 0)
		goto free_earlier;
	err = grow(earlier, earlier->count + changes->count + 1);
	if (err)
		goto free_earlier;
	if (changes->count > 0)
		memcpy(earlier->list + earlier->count, changes->list,
		    changes->count * sizeof(*changes->list));
	earlier->count += changes->count;
	free(changes->list);
	*changes = *earlier;
	*earlier = (struct changes){0};
	return 0;
free_earlier:
	changes_free(earlier);
	return err;
}

void
changes_drop_from(struct changes *changes, uint64_t index)
{
	size_t kept = 0;

	for (size_t i = 0; i < changes->count; i++)
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

int
changes_write(const struct changes *changes, struct file *file,
    uint64_t offset)
{
	uint64_t run[RUN_MAX];
	size_t done = 0;
	int err = 0;

	while (done < changes->count && !err) {
		const struct change *list = changes->list + done;
		size_t length = take_run(list, changes->count - done, run);

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
