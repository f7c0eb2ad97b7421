/* SPDX-License-Identifier: MIT */
#include "qcow2/dirty.h"

#include <assert.h>
#include "qcow2/internal.h"

co_fn static int
write_features(struct image *image, uint64_t incompatible)
{
	struct header_patch patch = header_patch_incompatible(incompatible);
	int err = guard_write_header(image, patch);

	if (err)
		return err;
	err = file_fdatasync(image->file);
	if (err)
		image_fail(image, "fdatasync of the header failed", err);
	else
		image->header.incompatible = incompatible;
	return err;
}

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
		err = write_features(image,
		    image->header.incompatible | HEADER_DIRTY);
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

int
dirty_clear(struct image *image)
{
	assert(image->dirty.holders == 0);
	if (!is_set(image) || image->dirty.leaks)
		return 0;
	return write_features(image,
	    image->header.incompatible & ~HEADER_DIRTY);
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
