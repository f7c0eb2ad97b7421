/* SPDX-License-Identifier: MIT */
#include "qcow2/moves.h"

#include <errno.h>
#include <stdlib.h>
#include "qcow2/internal.h"

bool
moves_any(const struct moves *moves)
{
	return moves->refcount_table.wanted || moves->l1.wanted ||
	    moves->size || moves->snapshots.wanted;
}

/* A copy as it stands on disk; it may change on while that is written. */
static uint64_t *
copy_table(const uint64_t *table, uint64_t entries)
{
	uint64_t *copy = malloc((entries + 1) * ENTRY_BYTES);

	if (copy)
		for (uint64_t i = 0; i < entries; i++)
			copy[i] = htobe64(table[i]);
	return copy;
}

int
moves_take(struct image *image, struct moves_cut *cut)
{
	struct moves *moves = &image->moves;

	*cut = (struct moves_cut){
		.moves = *moves, .size_bytes = image->size_bytes,
	};
	if (moves->refcount_table.wanted)
		cut->refcount_table = copy_table(image->refcount_table,
		    image->refcount_table_entries);
	if (moves->l1.wanted)
		cut->l1 = copy_table(image->l1, image->l1_entries);
	if ((moves->refcount_table.wanted && !cut->refcount_table) ||
	    (moves->l1.wanted && !cut->l1)) {
		free(cut->refcount_table);
		free(cut->l1);
		return -ENOMEM;
	}
	moves->refcount_table.wanted = false;
	moves->l1.wanted = false;
	moves->size = false;
	moves->snapshots.wanted = false;
	return 0;
}

co_fn static int
write_table(struct image *image, enum metadata_kind kind,
    const uint64_t *table, uint64_t host, uint64_t bytes)
{
	int err = bytes ? guard_table(image, kind, host, bytes) : 0;

	return err ? err : file_pwrite(image->file, table, bytes, host, 0);
}

int
moves_write(struct image *image, const struct moves_cut *cut)
{
	const struct move *refcount_table = &cut->moves.refcount_table;
	const struct move *l1 = &cut->moves.l1;
	int err = 0;

	if (refcount_table->wanted)
		err = write_table(image, METADATA_REFCOUNT_TABLE,
		    cut->refcount_table, refcount_table->host,
		    (uint64_t)refcount_table->count << image->cluster_bits);
	if (!err && l1->wanted)
		err = write_table(image, METADATA_L1, cut->l1, l1->host,
		    (uint64_t)l1->count * ENTRY_BYTES);
	return err;
}

int
moves_hook(struct image *image, const struct moves_cut *cut)
{
	const struct moves *moves = &cut->moves;
	const struct header *header = &image->header;
	int err = 0;

	if (moves->refcount_table.wanted)
		err = guard_write_header(image, header_patch_refcount_table(
		    moves->refcount_table.host, moves->refcount_table.count));
	if (!err && moves->l1.wanted)
		err = guard_write_header(image, header_patch_disk(header,
		    cut->size_bytes, moves->l1.count, moves->l1.host));
	else if (!err && moves->size)
		err = guard_write_header(image, header_patch_disk(header,
		    cut->size_bytes, header->l1_entries, header->l1_offset));
	if (!err && moves->snapshots.wanted)
		err = guard_write_header(image, header_patch_snapshots(
		    moves->snapshots.count, moves->snapshots.host));
	return err;
}

void
moves_leave_place(struct image *image, uint64_t host, uint64_t bytes)
{
	if (bytes == 0)
		return;
	metadata_remove_range(&image->metadata, host);
	if (quarantine_make_room(image, 1))
		dirty_note_leak(image);
	else
		quarantine_add(image, host >> image->cluster_bits,
		    table_clusters(image, bytes));
}

static void
free_copies(struct moves_cut *cut)
{
	free(cut->refcount_table);
	free(cut->l1);
}

void
moves_finish(struct image *image, struct moves_cut *cut)
{
	const struct moves *moves = &cut->moves;
	struct header *header = &image->header;

	if (moves->refcount_table.wanted) {
		moves_leave_place(image, header->refcount_table_offset,
		    (uint64_t)header->refcount_table_clusters <<
		    image->cluster_bits);
		header->refcount_table_offset = moves->refcount_table.host;
		header->refcount_table_clusters = moves->refcount_table.count;
	}
	if (moves->l1.wanted) {
		moves_leave_place(image, header->l1_offset,
		    (uint64_t)header->l1_entries * ENTRY_BYTES);
		header->l1_offset = moves->l1.host;
		header->l1_entries = moves->l1.count;
	}
	if (moves->l1.wanted || moves->size)
		header->size_bytes = cut->size_bytes;
	if (moves->snapshots.wanted) {
		moves_leave_place(image, header->snapshots_offset,
		    image->snapshots.bytes);
		header->snapshots_offset = moves->snapshots.host;
		header->snapshot_count = moves->snapshots.count;
		image->snapshots.bytes = moves->snapshots_bytes;
	}
	free_copies(cut);
}

void
moves_put_back(struct image *image, struct moves_cut *cut)
{
	struct moves *moves = &image->moves;

	if (cut->moves.refcount_table.wanted && !moves->refcount_table.wanted)
		moves->refcount_table = cut->moves.refcount_table;
	if (cut->moves.l1.wanted && !moves->l1.wanted)
		moves->l1 = cut->moves.l1;
	moves->size |= cut->moves.size;
	if (cut->moves.snapshots.wanted && !moves->snapshots.wanted) {
		moves->snapshots = cut->moves.snapshots;
		moves->snapshots_bytes = cut->moves.snapshots_bytes;
	}
	free_copies(cut);
}
