/* SPDX-License-Identifier: MIT */
#include "tests/crash/trial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/check.h"
#include "qcow2/header.h"
#include "qcow2/image_resize.h"
#include "qcow2/repair.h"
#include "qcow2/zeros_only.h"

#define WRITE_BYTES_MAX (1024u * 1024)

/* Of the states with leaks. */
#define REPAIR_ONE_IN 8

/* Where the header has feature bits, from version 3 on. */
#define INCOMPATIBLE_OFFSET 72
#define AUTOCLEAR_OFFSET 88
#define VERSION_OFFSET 4

/* What is written over to see what happens to the rest. */
struct range {
	uint64_t begin;
	uint64_t end;
};

void
trial_fail(struct trial *trial, const char *what, const char *detail)
{
	if (!trial->failure[0])
		snprintf(trial->failure, sizeof(trial->failure), "%s: %s",
		    what, detail);
}

static void
print_line(void *arg, enum check_finding kind, const char *line)
{
	(void)arg;
	(void)kind;
	printf("\t%s\n", line);
}

/* Refcounts and flags need not be right under this mark: opening repairs. */
static bool
is_dirty(const struct trial *trial)
{
	uint8_t header[INCOMPATIBLE_OFFSET + 8];

	file_sim_peek(trial->state->file, header, sizeof(header), 0);
	return bytes_get32(header + VERSION_OFFSET) >= 3 &&
	    bytes_get64(header + INCOMPATIBLE_OFFSET) & HEADER_DIRTY;
}

/*
 * Version 2 has no such mark, and flags may be wrong while a snapshot is made,
 * applied or deleted; but none that lets what is shared be written in place.
 */
static bool
may_mismatch(const struct trial *trial)
{
	return !trial->repaired && trial->crew->image_version < 3 &&
	    keeper_is_busy(trial->crew, trial->state->point);
}

/* How many leaks there are; anything worse is a failure. */
co_fn static uint64_t
check(struct trial *trial, const char *when)
{
	struct check_listener listener = {.report = print_line};
	struct check_result result;
	struct error error;
	char text[128];

	if (check_file_listen(trial->state->file, "disk",
	    trial->verbose ? &listener : NULL, &result, &error)) {
		trial_fail(trial, when, error.message);
		return 0;
	}
	if ((result.corruptions || result.check_errors) && !is_dirty(trial) &&
	    !may_mismatch(trial)) {
		snprintf(text, sizeof(text), "%llu corruptions, %llu errors",
		    (unsigned long long)result.corruptions,
		    (unsigned long long)result.check_errors);
		trial_fail(trial, when, text);
	}
	return result.leaks;
}

static void
judge_bits(struct trial *trial)
{
	uint8_t header[AUTOCLEAR_OFFSET + 8];

	file_sim_peek(trial->state->file, header, sizeof(header), 0);
	if (bytes_get32(header + VERSION_OFFSET) >= 3 &&
	    bytes_get64(header + AUTOCLEAR_OFFSET) != 0 &&
	    trial->state->hash != trial->base_hash)
		trial_fail(trial, "autoclear bits",
		    "are set, and yet something has changed");
}

co_fn static void
judge_piece(struct trial *trial, struct image *image, uint64_t offset,
    size_t length, const char *when)
{
	struct oracle *oracle = trial->crew->oracle;
	struct oracle_finding finding;
	char text[256];
	bool is_empty;
	int err = crew_read_piece(trial->crew, image, offset, trial->data,
	    length, &is_empty);

	if (err) {
		trial_fail(trial, when, strerror(-err));
		return;
	}
	if (is_empty)
		return;
	if (oracle_judge_crash(oracle, trial->state->point, offset,
	    trial->data, length, &finding) != ORACLE_GOOD)
		trial_fail(trial, when, oracle_explain(&finding, text,
		    sizeof(text)));
}

/* All sectors but those of the range are held against the oracle. */
co_fn static void
judge(struct trial *trial, struct image *image, struct range but,
    const char *when)
{
	uint64_t size = image_size_bytes(image) & ~511ull;
	uint64_t offset = 0;

	while (offset < size) {
		uint64_t end = offset < but.begin ? but.begin : size;
		size_t length = sizeof(trial->data);

		if (offset >= but.begin && offset < but.end) {
			offset = but.end;
			continue;
		}
		if (length > end - offset)
			length = end - offset;
		judge_piece(trial, image, offset, length, when);
		offset += length;
	}
}

static void
judge_length(struct trial *trial, const struct image *image)
{
	uint64_t point = trial->state->point;
	char text[64];

	if (lengths_may_be(&trial->crew->lengths, (struct length_view){point,
	    point}, image_size_bytes(image)))
		return;
	snprintf(text, sizeof(text), "%llu bytes",
	    (unsigned long long)image_size_bytes(image));
	trial_fail(trial, "the length", text);
}

/* A part of the disk, from its middle on. */
static struct range
choose_range(const struct image *image)
{
	uint64_t size = image_size_bytes(image) & ~511ull;
	uint64_t begin = size / 2 & ~511ull;
	uint64_t length = size / 8 & ~511ull;

	if (length > WRITE_BYTES_MAX)
		length = WRITE_BYTES_MAX;
	return (struct range){begin, begin + length};
}

/* A device that was nearly full is no better after a crash. */
static bool
may_be_full(const struct trial *trial, int err)
{
	return err == -ENOSPC && trial->crew->options.may_fill &&
	    !trial->state->file->is_regular;
}

co_fn static void
write_on(struct trial *trial, struct image *image, struct range range)
{
	size_t length = range.end - range.begin;
	uint8_t *data = malloc(length), *back = malloc(length);
	int err;

	if (!data || !back)
		exit(1);
	memset(data, 0xdb, length);
	err = image_write(image, range.begin, data, length, 0);
	if (!err)
		err = image_flush(image);
	if (!err)
		err = image_read(image, range.begin, back, length, NULL);
	if (err && !may_be_full(trial, err))
		trial_fail(trial, "writing on", strerror(-err));
	else if (!err && memcmp(data, back, length))
		trial_fail(trial, "writing on", "other data came back");
	free(data);
	free(back);
}

/*
 * A disk that is resized gets as long as it may: what was cut off, even if that
 * was interrupted, is zeros then.
 */
co_fn static void
grow_on(struct trial *trial, struct image *image)
{
	struct image_resize how = {.size_bytes = trial->crew->size_bytes};
	uint64_t offset = image_size_bytes(image);
	struct error error;
	int err;

	if (!trial->crew->options.growth || offset >= how.size_bytes)
		return;
	err = image_resize(image, &how, &error);
	if (err == -ENOTSUP && trial->crew->image_version < 3)
		return;
	if (err)
		trial_fail(trial, "growing on", error.message);
	for (; offset < how.size_bytes && !err;
	    offset += sizeof(trial->data)) {
		uint64_t length = how.size_bytes - offset;

		if (length > sizeof(trial->data))
			length = sizeof(trial->data);
		err = image_read(image, offset, trial->data, length, NULL);
		if (err)
			trial_fail(trial, "growing on", strerror(-err));
		else if (!zeros_only(trial->data, length))
			trial_fail(trial, "growing on",
			    "what is new is not zeros");
	}
}

/* What the crash has leaked. */
co_fn static void
give_back(struct trial *trial)
{
	struct repair_result result;
	struct error error;

	if (repair_file(trial->state->file, "disk", REPAIR_LEAKS, NULL,
	    &result, &error))
		trial_fail(trial, "repair", error.message);
	else if (result.left.leaks || result.left.corruptions)
		trial_fail(trial, "repair", "something is left to repair");
}

co_fn static void
repair_all(struct trial *trial)
{
	struct repair_result result;
	struct error error;

	if (repair_file(trial->state->file, "disk", REPAIR_ALL, NULL,
	    &result, &error))
		trial_fail(trial, "repair", error.message);
	trial->repaired = true;
}

co_fn static void
judge_snapshots(struct trial *trial, const char *when)
{
	char text[1024];

	if (trial->crew->keeper.count > 0 && keeper_judge(trial->crew,
	    trial->state->file, trial->state->point, text, sizeof(text)))
		trial_fail(trial, when, text);
}

co_fn static void
examine(void *arg)
{
	struct trial *trial = arg;
	struct range range;
	struct image *image;
	struct error error;
	struct file *handle;
	int err;

	judge_bits(trial);
	trial->leaks = check(trial, "check");
	judge_snapshots(trial, "snapshots");
	if (file_sim_open(trial->state->file, &handle))
		exit(1);
	if (crew_open_image(&trial->crew->options, NULL, handle, &image,
	    &error)) {
		trial_fail(trial, "open", error.message);
		return;
	}
	judge_length(trial, image);
	range = choose_range(image);
	judge(trial, image, (struct range){0, 0}, "content");
	write_on(trial, image, range);
	judge(trial, image, range, "content after writing on");
	grow_on(trial, image);
	err = image_close(image);
	if (err && !may_be_full(trial, err))
		trial_fail(trial, "close", strerror(-err));
	if (may_mismatch(trial))
		repair_all(trial);
	if (check(trial, "check after writing on") > 0 &&
	    trial->state->number % REPAIR_ONE_IN == 0)
		give_back(trial);
	judge_snapshots(trial, "snapshots after writing on");
}

void
trial_run(struct trial *trial, const struct crash_state *state)
{
	struct co_start start;

	trial->state = state;
	trial->repaired = false;
	trial->leaks = 0;
	trial->failure[0] = '\0';
	sim_start(trial->sim, 0, &start, examine, trial);
	if (sim_run(trial->sim) != SIM_DONE)
		trial_fail(trial, "the world", "stopped");
}
