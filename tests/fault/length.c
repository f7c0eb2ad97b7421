/* SPDX-License-Identifier: MIT */
#include "tests/fault/length.h"

void
length_begin(struct length *length, uint64_t bytes)
{
	*length = (struct length){.bytes = bytes, .min_bytes = bytes};
	length_keep(length);
}

void
length_keep(struct length *length)
{
	length->stable_count = 1;
	length->stable[0] = length->bytes;
}

uint64_t
length_max(const struct scenario *scenario)
{
	uint64_t max = scenario->layout.disk_bytes;

	for (unsigned i = 0; i < scenario->count; i++)
		if (scenario->steps[i].action == ACTION_RESIZE &&
		    scenario->steps[i].guest > max)
			max = scenario->steps[i].guest;
	return max;
}

/* It is so long now, stably if that is done. */
static void
change(struct length *length, uint64_t bytes, bool done)
{
	length->bytes = bytes;
	if (bytes < length->min_bytes)
		length->min_bytes = bytes;
	if (done)
		length->stable_count = 0;
	ck_assert_uint_lt(length->stable_count, 2 * STEPS_MAX);
	length->stable[length->stable_count++] = bytes;
}

void
length_end(struct length *length, struct model *model,
    const struct request *request, uint64_t disk_bytes)
{
	uint64_t bytes = request->guest, old_bytes = length->bytes;
	uint64_t end = model->sectors * SECTOR;
	uint64_t begin = bytes < old_bytes ? bytes : old_bytes;
	bool done = !request->err;

	model_add(model, begin, end - begin, 0, done);
	if (done)
		model_keep(model, begin, end - begin);
	ck_assert(disk_bytes == bytes || (!done && disk_bytes == old_bytes));
	change(length, disk_bytes == bytes ? old_bytes : bytes, done);
	change(length, disk_bytes, done);
}

void
length_apply(struct length *length, uint64_t disk_bytes, bool done)
{
	change(length, disk_bytes, done);
}

void
length_open(struct length *length, uint64_t disk_bytes)
{
	bool found = false;

	for (unsigned i = 0; i < length->stable_count; i++)
		found |= length->stable[i] == disk_bytes;
	ck_assert_msg(found, "the disk has %llu bytes, and not %llu",
	    (unsigned long long)disk_bytes,
	    (unsigned long long)length->bytes);
	change(length, disk_bytes, true);
}

bool
length_excuses(const struct length *length, uint64_t guest, uint64_t bytes)
{
	return guest + bytes > length->min_bytes;
}
