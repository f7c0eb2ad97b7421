/* SPDX-License-Identifier: MIT */
/*
 * A snapshot table that all can read, from one with entries that lack what
 * version 3 has in them, or have more extra data than anybody takes: of that
 * the first part is kept, as qemu-img does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/repair_internal.h"
#include "qcow2/snapshot.h"
#include "qcow2/window.h"

/* The length of the VM state and that of the disk. */
#define EXTRA_V3_BYTES 16u
/* An entry that is made here, without its id and name. */
#define FIXED_BYTES_MAX (SNAPSHOT_HEAD_BYTES + SNAPSHOT_EXTRA_BYTES_MAX)

/* The table as it grows. */
struct renewal {
	struct check *check;
	struct window window;
	uint8_t *table;
	size_t bytes;
	size_t room;
};

static int
make_room(struct renewal *renewal, size_t more)
{
	size_t room = renewal->bytes + more;
	uint8_t *table;

	if (room > SNAPSHOT_TABLE_BYTES_MAX)
		return -EFBIG;
	if (room <= renewal->room)
		return 0;
	room *= 2;
	table = realloc(renewal->table, room);
	if (!table)
		return -ENOMEM;
	renewal->table = table;
	renewal->room = room;
	return 0;
}

/* Fields that are missing have the values that they stand for. */
static void
complete(struct renewal *renewal, uint8_t *entry, uint32_t *extra_bytesp)
{
	const struct header *header = &renewal->check->header;

	if (header->version < 3 || *extra_bytesp >= EXTRA_V3_BYTES)
		return;
	if (*extra_bytesp < 8)
		bytes_put64(entry + SNAPSHOT_HEAD_BYTES,
		    bytes_get32(entry + 32));
	bytes_put64(entry + SNAPSHOT_HEAD_BYTES + 8, header->size_bytes);
	*extra_bytesp = EXTRA_V3_BYTES;
}

/* Takes an entry up to its extra data, of which the first part is kept. */
co_fn static int
take_fixed(struct renewal *renewal, uint8_t *entry, size_t *bytesp)
{
	uint32_t extra_bytes, kept;
	const void *data;
	int err;

	err = window_take(&renewal->window, SNAPSHOT_HEAD_BYTES, &data);
	if (err)
		return err;
	memcpy(entry, data, SNAPSHOT_HEAD_BYTES);
	extra_bytes = bytes_get32(entry + 36);
	kept = extra_bytes < SNAPSHOT_EXTRA_BYTES_MAX ? extra_bytes :
	    SNAPSHOT_EXTRA_BYTES_MAX;
	err = window_take(&renewal->window, kept, &data);
	if (err)
		return err;
	memcpy(entry + SNAPSHOT_HEAD_BYTES, data, kept);
	err = window_skip(&renewal->window, extra_bytes - kept);
	complete(renewal, entry, &kept);
	bytes_put32(entry + 36, kept);
	*bytesp = SNAPSHOT_HEAD_BYTES + kept;
	return err;
}

co_fn static int
renew_entry(struct renewal *renewal)
{
	uint64_t begin = renewal->window.offset;
	uint8_t entry[FIXED_BYTES_MAX] = {0};
	size_t fixed_bytes, names_bytes, bytes;
	const void *names;
	int err;

	err = take_fixed(renewal, entry, &fixed_bytes);
	if (err)
		return err;
	names_bytes = (size_t)bytes_get16(entry + 12) +
	    bytes_get16(entry + 14);
	bytes = (fixed_bytes + names_bytes + 7) & ~(size_t)7;
	err = window_take(&renewal->window, names_bytes, &names);
	if (!err)
		err = make_room(renewal, bytes);
	if (err)
		return err;
	memset(renewal->table + renewal->bytes, 0, bytes);
	memcpy(renewal->table + renewal->bytes, entry, fixed_bytes);
	memcpy(renewal->table + renewal->bytes + fixed_bytes, names,
	    names_bytes);
	renewal->bytes += bytes;
	return window_skip(&renewal->window,
	    (begin - renewal->window.offset) & 7);
}

co_fn int
repair_snapshot_table(struct check *check, uint8_t **tablep, size_t *bytesp)
{
	uint64_t offset = check->header.snapshots_offset;
	struct renewal renewal = {.check = check};
	int err;

	err = window_open(&renewal.window, check->file, offset,
	    offset + SNAPSHOT_TABLE_BYTES_MAX);
	if (err)
		goto explain;
	for (uint32_t i = 0; i < check->header.snapshot_count && !err; i++)
		err = renew_entry(&renewal);
	window_close(&renewal.window);
	if (err)
		goto free_table;
	*tablep = renewal.table;
	*bytesp = renewal.bytes;
	return 0;
free_table:
	free(renewal.table);
explain:
	return error_set(check->error, err, "%s: cannot renew the snapshot "
	    "table: %s", check->name, strerror(-err));
}
