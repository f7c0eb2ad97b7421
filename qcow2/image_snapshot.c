/* SPDX-License-Identifier: MIT */
/*
 * Making and deleting snapshots; snapshot_apply.c has the rest.
 *
 * To make one takes a moment behind the closed gate, in which all L2 tables
 * become shared (sharing.h).  Then, with requests going on: count the second
 * references; write the copy of the L1 table and the new snapshot table; make
 * all of it stable; switch the header.  A crash before the switch leaves
 * references that nobody has, and C flags that are missing.
 *
 * To delete one: switch the header to a table without it; then take the
 * references off and set the C flags of what the disk has alone now.
 */
#include "qcow2/image_snapshot.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/image_vmstate.h"
#include "qcow2/internal.h"
#include "qcow2/snapshot_change.h"
#include "qcow2/tree.h"

/* ---- making one ---- */

/* One more than the highest number that is an id. */
static void
choose_id(const struct snapshot_table *table, char *id, size_t bytes)
{
	unsigned long max = 0;

	for (unsigned i = 0; i < table->count; i++) {
		unsigned long number = strtoul(table->list[i].id, NULL, 10);

		if (number > max)
			max = number;
	}
	snprintf(id, bytes, "%lu", max + 1);
}

/* Its strings and extra data in memory of its own.  -ENOMEM. */
static int
name_snapshot(const struct image *image, const char *name,
    const struct timespec *date, struct snapshot *snapshot)
{
	char id[24];
	char *memory;
	size_t id_bytes;

	choose_id(&image->snapshots, id, sizeof(id));
	id_bytes = strlen(id) + 1;
	memory = calloc(1, SNAPSHOT_EXTRA_BYTES + id_bytes + strlen(name) + 1);
	if (!memory)
		return -ENOMEM;
	memcpy(memory + SNAPSHOT_EXTRA_BYTES, id, id_bytes);
	strcpy(memory + SNAPSHOT_EXTRA_BYTES + id_bytes, name);
	*snapshot = (struct snapshot){
		.memory = memory,
		.extra = (uint8_t *)memory,
		.extra_bytes = SNAPSHOT_EXTRA_BYTES,
		.id = memory + SNAPSHOT_EXTRA_BYTES,
		.name = memory + SNAPSHOT_EXTRA_BYTES + id_bytes,
		.date_seconds = (uint32_t)date->tv_sec,
		.date_nanoseconds = (uint32_t)date->tv_nsec,
		.icount = SNAPSHOT_NO_ICOUNT,
	};
	return 0;
}

/* The moment that it shows. */
co_fn static int
share_disk(struct image *image, struct sharing *sharing,
    struct snapshot *snapshot)
{
	int err;

	err = sharing_init(sharing, image->l1_entries);
	if (err)
		return err;
	gate_close(image);
	err = image->failed ? -EIO : sharing_begin(image, sharing);
	snapshot->disk_bytes = image->size_bytes;
	snapshot->l1_entries = image->l1_entries;
	gate_open(image);
	if (err)
		sharing_free(sharing);
	return err;
}

/* Writes the snapshot's L1 table to clusters of its own. */
co_fn static int
write_l1(struct image *image, const struct sharing *sharing,
    struct snapshot *snapshot)
{
	uint64_t bytes = (uint64_t)sharing->entries * ENTRY_BYTES;
	uint64_t clusters = table_clusters(image, bytes);
	uint8_t *table;
	int err;

	if (clusters == 0)
		return 0;
	table = calloc(1, clusters << image->cluster_bits);
	if (!table)
		return -ENOMEM;
	for (uint32_t i = 0; i < sharing->entries; i++)
		entry_store(table, i, sharing->l1[i]);
	err = alloc_table(image, clusters, &snapshot->l1_offset);
	if (err)
		goto free_table;
	err = metadata_add_range(&image->metadata, METADATA_SNAPSHOT_L1,
	    snapshot->l1_offset, bytes);
	if (err)
		goto give_back;
	err = file_pwrite(image->file, table, clusters << image->cluster_bits,
	    snapshot->l1_offset, 0);
	atomic_store(&image->unsynced, true);
	if (!err)
		goto free_table;
	metadata_remove_range(&image->metadata, snapshot->l1_offset);
give_back:
	alloc_give_back(image, snapshot->l1_offset, clusters);
	snapshot->l1_offset = 0;
free_table:
	free(table);
	return err;
}

static void
forget_l1(struct image *image, const struct snapshot *snapshot)
{
	if (snapshot->l1_offset)
		metadata_remove_range(&image->metadata, snapshot->l1_offset);
}

/* What to do with the tree in the end depends on how far it came. */
co_fn static int
create_shared(struct image *image, struct sharing *sharing,
    struct snapshot *snapshot, const struct image_progress *progress,
    bool *switchedp)
{
	int err;

	err = sharing_finish(image, progress);
	if (err)
		return err;
	err = write_l1(image, sharing, snapshot);
	if (!err)
		err = snapshot_table_change(image, snapshot, -1, switchedp);
	if (*switchedp) {
		sharing_end(image);
		return err;
	}
	if (snapshot->l1_offset) {
		forget_l1(image, snapshot);
		alloc_give_back(image, snapshot->l1_offset, table_clusters(
		    image, (uint64_t)snapshot->l1_entries * ENTRY_BYTES));
	}
	sharing_undo(image);
	return err;
}

/* What is asked for. */
struct operation {
	enum operation_kind {
		OPERATION_CREATE,
		OPERATION_DELETE,
		OPERATION_APPLY,
	} kind;
	const char *name;
	const struct timespec *date;		/* CREATE */
	const struct vmstate_source *source;	/* CREATE; NULL: no state */
	const struct image_progress *progress;	/* or NULL */
};

co_fn static int
create_named(struct image *image, const struct operation *operation,
    struct snapshot *snapshot, bool *switchedp)
{
	struct sharing sharing;
	int err = 0, drop_err;

	if (operation->source) {
		snapshot->vm_state_bytes = operation->source->bytes;
		err = vmstate_write(image, operation->source,
		    operation->progress);
	}
	if (!err)
		err = share_disk(image, &sharing, snapshot);
	if (!err) {
		/* With a state, that is what takes long. */
		err = create_shared(image, &sharing, snapshot,
		    operation->source ? NULL : operation->progress,
		    switchedp);
		sharing_free(&sharing);
	}
	drop_err = operation->source ? vmstate_drop(image) : 0;
	return err ? err : drop_err;
}

co_fn static int
create(struct image *image, const struct operation *operation)
{
	struct snapshot snapshot;
	bool switched = false;
	int err;

	if (snapshot_find(&image->snapshots, operation->name))
		return -EEXIST;
	err = name_snapshot(image, operation->name, operation->date, &snapshot);
	if (err)
		return err;
	err = create_named(image, operation, &snapshot, &switched);
	if (!switched)
		free(snapshot.memory);
	return err;
}

/* ---- deleting one ---- */

/* The references of a snapshot that is stably gone. */
co_fn static int
drop_trees(struct image *image, const struct snapshot *snapshot,
    const uint64_t *l1, const struct image_progress *progress)
{
	int first_err = 0;

	barrier_wait_ended(image);
	for (uint32_t i = 0; i < snapshot->l1_entries && !image->failed; i++) {
		int err;

		if (!l1[i])
			continue;
		/* It is too late to stop. */
		progress_stops(image, progress, i, snapshot->l1_entries);
		err = tree_drop(image, entry_host(l1[i]));
		if (!err && i < image->l1_entries)
			err = tree_set_copied(image, i);
		/* That it fails is told by the flush at the end. */
		barrier_pace(image);
		if (err && !first_err)
			first_err = err;
	}
	if (image->failed)
		return -EIO;
	quarantine_let_out(image, snapshot->l1_offset >> image->cluster_bits,
	    table_clusters(image,
	    (uint64_t)snapshot->l1_entries * ENTRY_BYTES));
	return first_err;
}

co_fn static int
delete(struct image *image, const struct operation *operation)
{
	const struct snapshot *found = snapshot_find(&image->snapshots,
	    operation->name);
	struct snapshot snapshot;
	bool switched;
	uint64_t *l1;
	int err;

	if (!found)
		return -ENOENT;
	snapshot = *found;
	if (progress_stops(image, operation->progress, 0, 1))
		return -ECANCELED;
	err = snapshot_load_l1(image, &snapshot, 0, &l1);
	if (err)
		return err;
	err = snapshot_table_change(image, NULL,
	    (int)(found - image->snapshots.list), &switched);
	if (switched)
		forget_l1(image, &snapshot);
	if (!err)
		err = drop_trees(image, &snapshot, l1, operation->progress);
	/* What was not dropped is repaired by the next who opens it. */
	if (err && switched)
		dirty_note_leak(image);
	free(l1);
	return err;
}

co_fn static int
apply(struct image *image, const struct operation *operation)
{
	const struct snapshot *found = snapshot_find(&image->snapshots,
	    operation->name);

	return found ? snapshot_apply(image, found, operation->progress) :
	    -ENOENT;
}

/* ---- one operation ---- */

co_fn static int
carry_out(struct image *image, const struct operation *operation)
{
	switch (operation->kind) {
	case OPERATION_CREATE:
		return create(image, operation);
	case OPERATION_DELETE:
		return delete(image, operation);
	default:
		return apply(image, operation);
	}
}

/*
 * With the dirty bit on disk for as long as it takes.  The flush before leaves
 * little to be done when requests have to wait.
 */
co_fn static int
operate_alone(struct image *image, const struct operation *operation)
{
	int err, release_err;

	monitor_enter(&image->monitor);
	co_mutex_lock(&image->gate.operation);
	err = gate_refuses(image);
	if (!err)
		err = barrier_flush(image);
	if (!err)
		err = dirty_hold(image);
	if (!err) {
		err = carry_out(image, operation);
		release_err = dirty_release(image);
		if (!err)
			err = release_err;
	}
	co_mutex_unlock(&image->monitor, &image->gate.operation);
	monitor_leave(&image->monitor);
	return err;
}

static const char *
explain(const struct image *image, int err)
{
	switch (err) {
	case -EEXIST:
		return "there is one of that name";
	case -ENOENT:
		return "there is none of that name or id";
	case -ENOTSUP:
		return image->format == IMAGE_RAW ?
		    "raw images have none" : "there are too many";
	case -EINVAL:
		return "its name is empty or too long";
	case -EFBIG:
		return "the clusters are too small for a state that long";
	case -ERANGE:
		return "the refcounts of the image cannot count one more "
		    "(refcount_bits)";
	case -EROFS:
		return "the image is open for reading only";
	case -ECANCELED:
		return "stopped; the image is as it was";
	case -EIO:
		return "Input/output error, or the image is damaged";
	default:
		return strerror(-err);
	}
}

co_fn static int
operate(struct image *image, const struct operation *operation,
    struct error *error)
{
	static const char *const verbs[] = {
		[OPERATION_CREATE] = "make",
		[OPERATION_DELETE] = "delete",
		[OPERATION_APPLY] = "apply",
	};
	int err = 0;

	if (image->format != IMAGE_QCOW2)
		err = -ENOTSUP;
	else if (!*operation->name ||
	    strlen(operation->name) > SNAPSHOT_NAME_BYTES_MAX)
		err = -EINVAL;
	if (!err)
		err = operate_alone(image, operation);
	if (!err)
		return 0;
	return error_set(error, err, "cannot %s the snapshot \"%s\" of %s: %s",
	    verbs[operation->kind], operation->name, image->path,
	    explain(image, err));
}

int
image_snapshot_create(struct image *image, const char *name,
    const struct timespec *date, const struct image_progress *progress,
    struct error *error)
{
	return operate(image, &(struct operation){
		.kind = OPERATION_CREATE, .name = name, .date = date,
		.progress = progress,
	}, error);
}

int
image_snapshot_delete(struct image *image, const char *name,
    const struct image_progress *progress, struct error *error)
{
	return operate(image, &(struct operation){
		.kind = OPERATION_DELETE, .name = name, .progress = progress,
	}, error);
}

int
image_snapshot_apply(struct image *image, const char *name,
    const struct image_progress *progress, struct error *error)
{
	return operate(image, &(struct operation){
		.kind = OPERATION_APPLY, .name = name, .progress = progress,
	}, error);
}

int
image_vmstate_save(struct image *image, const char *name,
    const struct timespec *date, const struct vmstate_source *source,
    const struct image_progress *progress, struct error *error)
{
	assert(source->bytes > 0);
	return operate(image, &(struct operation){
		.kind = OPERATION_CREATE, .name = name, .date = date,
		.source = source, .progress = progress,
	}, error);
}
