/* SPDX-License-Identifier: MIT */
#include "tests/crash/variant.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include "runtime/random.h"

/* What holes and zeros are made of. */
#define PUNCH_TEAR_BYTES 4096

/* The bytes of the file that are about something. */
struct extent {
	uint64_t start;
	uint64_t end;
};

static struct extent
extent_of(const struct record *record)
{
	uint64_t length = record->length;

	if (record->kind == RECORD_TRUNCATE)
		return (struct extent){record->offset, UINT64_MAX};
	/* What a short write left out was never tried. */
	if (record->kind == RECORD_WRITE && record->completed != RECORD_NEVER &&
	    record->result >= 0)
		length = (uint64_t)record->result;
	return (struct extent){record->offset, record->offset + length};
}

uint64_t
variant_end(const struct record *record)
{
	switch (record->kind) {
	case RECORD_WRITE:
	case RECORD_ZERO:
	case RECORD_ALLOCATE:
		return extent_of(record).end;
	default:
		return 0;
	}
}

/* ---- taking effect; the files are in plain mode, so nothing suspends ---- */

static void
set_size(struct file *file, uint64_t size)
{
	int err = file->is_regular ? file->ops->truncate(file, size) : 0;

	assert(!err);
}

static void
apply_extent(struct file *file, const struct record *record,
    struct extent extent)
{
	uint64_t size = (uint64_t)file_size(file);
	uint64_t length;
	int err = 0;

	if (!file->is_regular && extent.end > size)
		extent.end = size;
	if (extent.start >= extent.end)
		return;
	length = extent.end - extent.start;
	switch (record->kind) {
	case RECORD_WRITE:
		file_sim_poke(file, record->data +
		    (extent.start - record->offset), length, extent.start);
		break;
	case RECORD_PUNCH:
		err = file->ops->fallocate(file, FILE_PUNCH, extent.start,
		    length);
		break;
	case RECORD_ZERO:
		err = file->ops->fallocate(file, FILE_ZERO, extent.start,
		    length);
		break;
	case RECORD_ALLOCATE:
		if (file->is_regular)
			err = file->ops->fallocate(file, FILE_ALLOCATE,
			    extent.start, length);
		break;
	default:
		break;
	}
	assert(!err);
}

static void
apply_size(struct file *file, const struct record *record)
{
	if (variant_end(record) > (uint64_t)file_size(file))
		set_size(file, variant_end(record));
}

static void
apply_cut(struct file *file, const struct record *record)
{
	struct extent extent = extent_of(record);
	uint64_t size = (uint64_t)file_size(file);

	if (extent.end > size)
		extent.end = size;
	apply_extent(file, record, extent);
}

/* ---- tearing ---- */

static uint64_t
tear_bytes(const struct record *record, const struct crash_options *options)
{
	return record->kind == RECORD_WRITE ? options->tear_bytes :
	    PUNCH_TEAR_BYTES;
}

bool
variant_tears(const struct record *record,
    const struct crash_options *options)
{
	uint64_t bytes = tear_bytes(record, options);
	struct extent extent = extent_of(record);

	if (record->kind != RECORD_WRITE && record->kind != RECORD_PUNCH &&
	    record->kind != RECORD_ZERO)
		return false;
	return extent.start < extent.end &&
	    extent.start / bytes != (extent.end - 1) / bytes;
}

/* Whether piece index of count made it to the disk. */
static bool
keeps_piece(unsigned way, uint64_t index, uint64_t count, uint64_t draw)
{
	switch (way) {
	case 0:
		return index < (count + 1) / 2;
	case 1:
		return index == 0;
	case 2:
		return index < count - 1;
	default:
		return random_mix(draw + way + (index << 8)) & 1;
	}
}

static void
apply_torn(struct file *file, const struct record *record, unsigned way,
    const struct crash_options *options)
{
	uint64_t bytes = tear_bytes(record, options);
	struct extent extent = extent_of(record);
	uint64_t first = extent.start / bytes;
	uint64_t end = (extent.end + bytes - 1) / bytes;
	uint64_t draw = random_mix(options->seed ^
	    random_mix(record->submitted));

	for (uint64_t i = first; i < end; i++) {
		struct extent piece = {i * bytes, (i + 1) * bytes};

		if (!keeps_piece(way, i - first, end - first, draw))
			continue;
		if (piece.start < extent.start)
			piece.start = extent.start;
		if (piece.end > extent.end)
			piece.end = extent.end;
		apply_extent(file, record, piece);
	}
}

void
variant_apply(struct file *file, const struct record *record,
    enum variant variant, const struct crash_options *options)
{
	switch (variant) {
	case VARIANT_LOST:
		break;
	case VARIANT_WHOLE:
		if (record->kind == RECORD_TRUNCATE)
			set_size(file, record->offset);
		else
			apply_extent(file, record, extent_of(record));
		break;
	case VARIANT_SIZE:
		apply_size(file, record);
		break;
	case VARIANT_CUT:
		apply_cut(file, record);
		break;
	default:
		apply_torn(file, record, variant - VARIANT_TORN, options);
		break;
	}
}

bool
variant_must_precede(const struct record *first, const struct record *second)
{
	struct extent a = extent_of(first);
	struct extent b = extent_of(second);

	return first->completed < second->submitted &&
	    a.start < b.end && b.start < a.end;
}

void
variant_describe(const struct record *record, char *text, size_t size)
{
	static const char *const names[] = {
		[RECORD_WRITE] = "write",
		[RECORD_PUNCH] = "punch",
		[RECORD_ZERO] = "zero",
		[RECORD_ALLOCATE] = "allocate",
		[RECORD_TRUNCATE] = "truncate to",
	};

	snprintf(text, size, "%s 0x%" PRIx64 "+%" PRIu64 " of number %" PRIu64,
	    names[record->kind], record->offset, record->length,
	    record->submitted);
}
