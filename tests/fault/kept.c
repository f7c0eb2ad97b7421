/* SPDX-License-Identifier: MIT */
#include "tests/fault/kept.h"

#include <stdlib.h>
#include <string.h>
#include "tests/fault/scenario.h"

void
kept_create(struct kept *kept, const struct model *model)
{
	*kept = (struct kept){.sectors = model->sectors};
	for (unsigned i = 0; i < KEPT_MAX; i++) {
		kept->values[i] = calloc(kept->sectors, sizeof(uint32_t));
		ck_assert_ptr_nonnull(kept->values[i]);
	}
}

void
kept_free(struct kept *kept)
{
	for (unsigned i = 0; i < KEPT_MAX; i++)
		free(kept->values[i]);
}

/* What comes to light while it is being made may be in it, too. */
static void
add_values(struct kept *kept, unsigned number, const struct model *model)
{
	for (uint64_t i = 0; i < kept->sectors; i++)
		kept->values[number][i] |= model->now[i];
}

void
kept_begin(struct kept *kept, const struct model *model,
    const struct request *request)
{
	unsigned number = (unsigned)request->guest;

	ck_assert_uint_lt(number, KEPT_MAX);
	if (request->action != ACTION_SNAPSHOT_CREATE)
		return;
	memset(kept->values[number], 0, kept->sectors * sizeof(uint32_t));
	add_values(kept, number, model);
}

/* After a failure the disk may be the one or the other; and what was written
 * beside may have come first or last. */
static void
apply(const struct kept *kept, unsigned number, struct model *model,
    bool done)
{
	for (uint64_t i = 0; i < kept->sectors; i++) {
		uint32_t values = kept->values[number][i];

		model->now[i] = values | (done ? 0 : model->now[i]);
		model->kept[i] = values | (done ? 0 : model->kept[i]);
	}
}

void
kept_end(struct kept *kept, struct model *model,
    const struct request *request, bool beside)
{
	unsigned number = (unsigned)request->guest;
	enum kept_state *state = &kept->states[number];

	kept->failed |= request->err != 0;
	switch (request->action) {
	case ACTION_SNAPSHOT_CREATE:
		add_values(kept, number, model);
		*state = request->err ? KEPT_MAYBE : KEPT_THERE;
		break;
	case ACTION_SNAPSHOT_DELETE:
		if (!request->err)
			*state = KEPT_GONE;
		else if (*state == KEPT_THERE)
			*state = KEPT_MAYBE;
		break;
	default:
		if (*state != KEPT_GONE)
			apply(kept, number, model, !request->err && !beside);
		break;
	}
}

co_fn static void
judge_one(struct kept *kept, unsigned number, struct world *world)
{
	uint64_t end = world_snapshot_bytes(world, number);
	size_t length = kept->sectors * SECTOR;
	struct model model = {
		.sectors = kept->sectors, .now = kept->values[number],
	};
	uint8_t *data = malloc(length);

	ck_assert_ptr_nonnull(data);
	/* It may be of another time than the disk's length. */
	if (length > end)
		length = end;
	world_read_snapshot(world, number, 0, data, length);
	model_judge(&model, 0, data, length);
	free(data);
}

void
kept_judge(struct kept *kept, struct world *world)
{
	for (unsigned i = 0; i < KEPT_MAX; i++) {
		bool found = world_has_snapshot(world, i);

		ck_assert_msg(kept->states[i] == KEPT_MAYBE ||
		    found == (kept->states[i] == KEPT_THERE),
		    "snapshot %u is %sthere", i, found ? "" : "not ");
		kept->states[i] = found ? KEPT_THERE : KEPT_GONE;
		if (found)
			judge_one(kept, i, world);
	}
}
