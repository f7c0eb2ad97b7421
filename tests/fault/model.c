/* SPDX-License-Identifier: MIT */
#include "tests/fault/model.h"

#include <stdlib.h>
#include <string.h>
#include "tests/fault/scenario.h"

void
model_create(struct model *model, uint64_t disk_bytes)
{
	model->sectors = disk_bytes / SECTOR;
	model->now = malloc(model->sectors * sizeof(*model->now));
	model->kept = malloc(model->sectors * sizeof(*model->kept));
	ck_assert(model->now && model->kept);
	for (uint64_t i = 0; i < model->sectors; i++)
		model->now[i] = model->kept[i] = 1;
}

void
model_copy(struct model *model, const struct model *other)
{
	model_create(model, other->sectors * SECTOR);
	memcpy(model->now, other->now, other->sectors * sizeof(*model->now));
	memcpy(model->kept, other->kept,
	    other->sectors * sizeof(*model->kept));
}

void
model_extend(struct model *model, uint64_t disk_bytes)
{
	struct model longer;

	ck_assert_uint_ge(disk_bytes / SECTOR, model->sectors);
	model_create(&longer, disk_bytes);
	memcpy(longer.now, model->now, model->sectors * sizeof(*model->now));
	memcpy(longer.kept, model->kept,
	    model->sectors * sizeof(*model->kept));
	model_free(model);
	*model = longer;
}

void
model_free(struct model *model)
{
	free(model->now);
	free(model->kept);
}

void
model_add(struct model *model, uint64_t guest, uint64_t length,
    uint8_t value, bool certain)
{
	uint64_t end = guest + length;

	/* Of a sector that is written in part, all may be old or new. */
	for (uint64_t i = guest / SECTOR; i * SECTOR < end; i++) {
		if (certain && i * SECTOR >= guest && (i + 1) * SECTOR <= end)
			model->now[i] = 0;
		model->now[i] |= 1u << value;
		model->kept[i] |= 1u << value;
	}
}

void
model_keep(struct model *model, uint64_t guest, uint64_t length)
{
	for (uint64_t i = guest / SECTOR; i < (guest + length) / SECTOR; i++)
		model->kept[i] = model->now[i];
}

void
model_lose(struct model *model)
{
	memcpy(model->now, model->kept, model->sectors * sizeof(*model->now));
}

static bool
is_value_of(uint8_t value, uint32_t set)
{
	return value < VALUES && set & 1u << value;
}

/* Of a failed write any bytes may be there, also of a sector. */
static bool
is_in(const uint8_t *sector, uint32_t set)
{
	if (is_all(sector, SECTOR, sector[0]))
		return is_value_of(sector[0], set);
	for (unsigned i = 0; i < SECTOR; i++)
		if (!is_value_of(sector[i], set))
			return false;
	return true;
}

void
model_judge(struct model *model, uint64_t guest, const uint8_t *data,
    size_t length)
{
	for (size_t done = 0; done < length; done += SECTOR) {
		const uint8_t *sector = data + done;
		uint32_t *now = &model->now[(guest + done) / SECTOR];

		if (!is_in(sector, *now))
			ck_abort_msg("0x%02x at 0x%llx, but the values may "
			    "be 0x%x", sector[0],
			    (unsigned long long)(guest + done), *now);
		if (is_all(sector, SECTOR, sector[0]))
			*now = 1u << sector[0];
	}
}
