/* SPDX-License-Identifier: MIT */
#include "qcow2/dirty.h"

#include <assert.h>
#include "qcow2/internal.h"

static bool
is_set(const struct image *image)
{
	return image->header.incompatible & HEADER_DIRTY;
}

/* Others may find it set only when it is stable. */
int
dirty_hold(struct image *image)
{
	struct dirty *dirty = &image->dirty;
	int err = 0;

	assert(monitor_entered(&image->monitor));
	if (image->header.version < 3)
		return 0;
	dirty->holders++;
	co_mutex_lock(&dirty->changing);
	if (!is_set(image))
		err = guard_write_features(image, HEADER_DIRTY, 0);
	co_mutex_unlock(&image->monitor, &dirty->changing);
	if (err)
		dirty->holders--;
	return err;
}

int
dirty_allocate(struct image *image)
{
	struct dirty *dirty = &image->dirty;
	int err;

	if (!dirty->lazy || dirty->lazy_held)
		return 0;
	err = dirty_hold(image);
	if (err)
		return err;
	/* Two may have come at once; one hold is enough. */
	if (dirty->lazy_held)
		dirty->holders--;
	dirty->lazy_held = true;
	return 0;
}

void
dirty_note_leak(struct image *image)
{
	image->dirty.leaks = true;
}

int
dirty_clear(struct image *image)
{
	assert(image->dirty.holders == 0);
	if (!is_set(image) || image->dirty.leaks)
		return 0;
	return guard_write_features(image, 0, HEADER_DIRTY);
}

int
dirty_release(struct image *image)
{
	struct dirty *dirty = &image->dirty;
	int err;

	assert(monitor_entered(&image->monitor));
	if (image->header.version < 3)
		return barrier_flush(image);
	assert(dirty->holders > 0);
	dirty->holders--;
	err = barrier_flush(image);
	co_mutex_lock(&dirty->changing);
	if (!err && dirty->holders == 0)
		err = dirty_clear(image);
	co_mutex_unlock(&image->monitor, &dirty->changing);
	return err;
}
