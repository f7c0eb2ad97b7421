/* SPDX-License-Identifier: MIT */
#include "tests/crash/repairing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/check_internal.h"
#include "qcow2/header.h"
#include "qcow2/repair.h"
#include "runtime/file_record.h"
#include "tests/crash/inflict.h"

/* ---- repairing ---- */

static void
print_line(void *arg, enum check_finding kind, const char *line)
{
	(void)arg;
	(void)kind;
	printf("\t%s\n", line);
}

/* Repairs a handle of a file, which is closed; "" or what is wrong. */
co_fn static void
repair(const struct repairing *repairing, struct file *handle,
    char failure[1280])
{
	const struct check_listener listener = {.report = print_line};
	struct repair_result result;
	struct error error;

	failure[0] = '\0';
	if (repair_file(handle, "disk", REPAIR_ALL,
	    repairing->verbose ? &listener : NULL, &result, &error))
		snprintf(failure, 1280, "%s", error.message);
	else if (result.left.corruptions || result.left.check_errors ||
	    result.left.leaks)
		snprintf(failure, 1280, "%llu corruptions, %llu errors, %llu "
		    "leaks are left",
		    (unsigned long long)result.left.corruptions,
		    (unsigned long long)result.left.check_errors,
		    (unsigned long long)result.left.leaks);
	file_close(handle);
}

co_fn static int
open_disk(struct file *file, bool writable, struct image **imagep,
    struct error *error)
{
	const struct image_options options = {
		.format = IMAGE_QCOW2, .writable = writable,
		.no_backing = true,
	};
	struct file *handle;
	int err = file_sim_open(file, &handle);

	return err ? err : image_open_file(handle, &options, imagep, error);
}

/* What the disk holds before anything is wrong. */
co_fn static void
note_content(struct repairing *repairing)
{
	struct header header = {0};
	struct image *image;
	struct error error;

	if (open_disk(repairing->disk, false, &image, &error)) {
		snprintf(repairing->failure, sizeof(repairing->failure), "%s",
		    error.message);
		return;
	}
	repairing->size_bytes = image_size_bytes(image);
	repairing->content = malloc(repairing->size_bytes + 1);
	if (!repairing->content)
		abort();
	if (image_read(image, 0, repairing->content, repairing->size_bytes,
	    NULL))
		snprintf(repairing->failure, sizeof(repairing->failure),
		    "the sound disk cannot be read");
	image_close(image);
	if (header_load(repairing->disk, &header, &error) ||
	    snapshot_table_load(repairing->disk, &header,
	    &repairing->snapshots, &error))
		snprintf(repairing->failure, sizeof(repairing->failure), "%s",
		    error.message);
	header_free(&header);
}

co_fn static void
run_repair(void *arg)
{
	struct repairing *repairing = arg;
	struct file *handle, *recorded;

	if (file_sim_open(repairing->disk, &handle) ||
	    file_record_open(repairing->log, REPAIRING_DISK, handle, false,
	    &recorded))
		abort();
	repair(repairing, recorded, repairing->failure);
}

co_fn static void
run_note(void *arg)
{
	note_content(arg);
}

static void
run(struct repairing *repairing, void (*step)(void *))
{
	struct co_start start;

	if (repairing->failure[0])
		return;
	sim_start(repairing->sim, 0, &start, step, repairing);
	if (sim_run(repairing->sim) != SIM_DONE)
		snprintf(repairing->failure, sizeof(repairing->failure),
		    "the world stopped");
}

void
repairing_run(struct repairing *repairing, struct file *base, uint64_t seed)
{
	if (sim_create(seed, 1, &repairing->sim) ||
	    record_log_create(&repairing->log) ||
	    file_sim_clone(base, repairing->sim, &repairing->disk))
		abort();
	run(repairing, run_note);
	inflict(repairing->disk, base, seed, repairing->damage,
	    sizeof(repairing->damage));
	if (file_sim_clone(repairing->disk, NULL, &repairing->damaged))
		abort();
	run(repairing, run_repair);
}

void
repairing_free(struct repairing *repairing)
{
	file_close(repairing->damaged);
	file_close(repairing->disk);
	record_log_free(repairing->log);
	sim_free(repairing->sim);
	snapshot_table_free(&repairing->snapshots);
	free(repairing->content);
}

/* ---- judging a state ---- */

co_fn static void
compare(struct repairing *repairing, struct image *image, uint64_t from,
    const char *when)
{
	struct trial *trial = repairing->trial;

	for (uint64_t offset = from; offset < repairing->size_bytes;
	    offset += sizeof(trial->data)) {
		size_t length = sizeof(trial->data);
		int err;

		if (length > repairing->size_bytes - offset)
			length = repairing->size_bytes - offset;
		err = image_read(image, offset, trial->data, length, NULL);
		if (err)
			trial_fail(trial, when, strerror(-err));
		else if (memcmp(trial->data, repairing->content + offset,
		    length))
			trial_fail(trial, when, "other data came back");
	}
}

/* Clusters that others have must not be taken for free ones. */
co_fn static void
write_on(struct repairing *repairing)
{
	struct trial *trial = repairing->trial;
	uint64_t length = repairing->size_bytes / 2 & ~(uint64_t)511;
	struct image *image;
	struct error error;
	int err;

	if (open_disk(trial->state->file, true, &image, &error)) {
		trial_fail(trial, "open", error.message);
		return;
	}
	compare(repairing, image, 0, "content");
	if (length > sizeof(trial->data))
		length = sizeof(trial->data);
	memset(trial->data, 0xdb, length);
	err = image_write(image, 0, trial->data, length, 0);
	if (!err)
		err = image_flush(image);
	if (err && err != -ENOSPC)
		trial_fail(trial, "writing on", strerror(-err));
	compare(repairing, image, length, "content after writing on");
	err = image_close(image);
	if (err && err != -ENOSPC)
		trial_fail(trial, "close", strerror(-err));
}

static uint64_t
marks_of(struct file *file)
{
	uint8_t header[80];

	file_sim_peek(file, header, sizeof(header), 0);
	return bytes_get32(header + 4) < 3 ? 0 : bytes_get64(header + 72) &
	    (HEADER_DIRTY | HEADER_CORRUPT);
}

/* O7: where a mark is gone there is no fault any more. */
co_fn static void
judge_marks(struct repairing *repairing)
{
	struct trial *trial = repairing->trial;
	struct check_result result;
	struct error error;

	if (marks_of(trial->state->file) == marks_of(repairing->damaged))
		return;
	if (check_file(trial->state->file, "disk", &result, &error))
		trial_fail(trial, "check of what has lost its mark",
		    error.message);
	else if (result.corruptions || result.check_errors || result.leaks)
		trial_fail(trial, "its mark",
		    "is gone before the faults are");
}

/* Where the header says that the refcounts are. */
static uint64_t
table_of(struct file *file)
{
	uint8_t bytes[8];

	file_sim_peek(file, bytes, sizeof(bytes), 48);
	return bytes_get64(bytes);
}

/* O5: once the header names new refcounts they are all there, and right. */
co_fn static void
judge_switch(struct repairing *repairing)
{
	struct trial *trial = repairing->trial;
	struct error error;
	struct check check = {
		.file = trial->state->file, .name = "disk", .error = &error,
		.for_repair = true,
	};
	int err;

	if (table_of(trial->state->file) == table_of(repairing->damaged))
		return;
	err = check_open(&check);
	if (!err)
		err = check_count_users(&check);
	if (!err)
		err = check_compare_refcounts(&check);
	if (err)
		trial_fail(trial, "check after the switch", error.message);
	else if (check.result.corruptions >
	    check.copied_faults + check.entry_faults + check.snapshot_faults)
		trial_fail(trial, "new refcounts",
		    "are switched to and wrong");
	check_close(&check);
}

/* The snapshots are those that were there, in the same places. */
co_fn static void
judge_snapshots(struct repairing *repairing)
{
	struct trial *trial = repairing->trial;
	struct snapshot_table table = {0};
	struct header header = {0};
	struct error error;

	if (header_load(trial->state->file, &header, &error) ||
	    snapshot_table_load(trial->state->file, &header, &table,
	    &error)) {
		trial_fail(trial, "snapshots", error.message);
	} else if (table.count != repairing->snapshots.count) {
		trial_fail(trial, "snapshots", "some are lost");
	} else {
		for (unsigned i = 0; i < table.count; i++)
			if (strcmp(table.list[i].name,
			    repairing->snapshots.list[i].name) ||
			    table.list[i].l1_offset !=
			    repairing->snapshots.list[i].l1_offset)
				trial_fail(trial, "snapshots",
				    "one is another");
	}
	snapshot_table_free(&table);
	header_free(&header);
}

co_fn static void
examine(void *arg)
{
	struct repairing *repairing = arg;
	struct trial *trial = repairing->trial;
	struct check_result result;
	struct file *handle;
	struct error error;
	char failure[1280];

	judge_marks(repairing);
	judge_switch(repairing);
	if (file_sim_open(trial->state->file, &handle))
		abort();
	repair(repairing, handle, failure);
	if (failure[0])
		trial_fail(trial, "the second repair", failure);
	judge_snapshots(repairing);
	write_on(repairing);
	if (check_file(trial->state->file, "disk", &result, &error))
		trial_fail(trial, "check", error.message);
	/* Bitmaps are leaked by whoever writes. */
	else if (result.corruptions || result.check_errors)
		trial_fail(trial, "check", "corrupt after writing on");
}

void
repairing_judge(struct repairing *repairing, struct trial *trial,
    const struct crash_state *state)
{
	struct co_start start;

	repairing->trial = trial;
	trial->state = state;
	trial->leaks = 0;
	trial->failure[0] = '\0';
	sim_start(trial->sim, 0, &start, examine, repairing);
	if (sim_run(trial->sim) != SIM_DONE)
		trial_fail(trial, "the world", "stopped");
}
