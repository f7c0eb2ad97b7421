/* SPDX-License-Identifier: MIT */
/*
 * A second image is opened beside the first, by second handles of its files.
 * When that has worked, and nobody is inside of the first, the two exchange
 * what they hold, and the second is closed.  So whatever fails before leaves
 * the first as it is.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include "qcow2/encrypted.h"
#include "qcow2/image_open.h"
#include "qcow2/image_reopen.h"
#include "runtime/log.h"
#include "runtime/loop.h"

/* Between two tries to get a lock. */
#define LOCK_PAUSE_MS 20

struct reopening {
	struct image *image;
	struct image_options options;	/* of the new opening */
	bool forgets;			/* the host's cache, too */
	struct image *fresh;
	bool repaired;			/* the file, or it was tried */
	struct error *error;
};

/* ---- the file itself ---- */

static enum file_lock
wanted_lock(const struct reopening *reopening)
{
	return reopening->options.writable ? FILE_LOCK_WRITE :
	    reopening->options.force_share ? FILE_LOCK_SHARED :
	    FILE_LOCK_READ;
}

/* Whether the new lock has what the old one has not. */
static bool
needs_stronger_lock(const struct reopening *reopening)
{
	enum file_lock from = image_lock_kind(reopening->image);
	enum file_lock to = wanted_lock(reopening);

	return from != to && (to == FILE_LOCK_WRITE ||
	    from == FILE_LOCK_SHARED);
}

/* By the old handle, since its own locks are not in its way. */
co_fn static int
strengthen_lock(const struct reopening *reopening)
{
	struct image *image = reopening->image;
	enum file_lock from = image_lock_kind(image);
	unsigned waited_ms = 0;
	int err;

	for (;;) {
		err = file_relock(image->file, from, wanted_lock(reopening));
		if (err != -EAGAIN || waited_ms >= IMAGE_LOCK_PATIENCE_MS)
			break;
		loop_sleep(LOCK_PAUSE_MS * 1000000ull);
		waited_ms += LOCK_PAUSE_MS;
	}
	return err ? image_explain_lock(image, reopening->options.writable,
	    err, reopening->error) : 0;
}

static int
refuse_other_image(const struct reopening *reopening)
{
	return error_set(reopening->error, -ESTALE, "%s has become another "
	    "image: its clusters have %u bytes, not %u",
	    reopening->image->path, reopening->fresh->cluster_bytes,
	    reopening->image->cluster_bytes);
}

co_fn static int
open_top(struct reopening *reopening)
{
	struct image *image = reopening->image;
	struct image_options *options = &reopening->options;
	struct file *file;
	int err;

	err = file_open_again(image->file, options->writable ? FILE_WRITE : 0,
	    &file);
	if (err)
		return error_set(reopening->error, err, "cannot open %s for "
		    "%s: %s", image->path, options->writable ? "writing" :
		    "reading", strerror(-err));
	err = image_new_layer(file, image->path, image->format,
	    options->writable, options, &reopening->fresh, reopening->error);
	if (err)
		return err;
	err = file_lock_again(file, wanted_lock(reopening));
	if (err)
		return image_explain_lock(image, options->writable, err,
		    reopening->error);
	if (reopening->forgets)
		file_forget(file);
	err = image_load_layer(reopening->fresh, options, reopening->error);
	reopening->repaired = reopening->fresh->repaired;
	if (!err && reopening->fresh->cluster_bytes != image->cluster_bytes)
		err = refuse_other_image(reopening);
	return err;
}

/* ---- the chain ---- */

static bool
has_backing(const struct image *image)
{
	return image->format == IMAGE_QCOW2 && image->header.backing;
}

/* Whether old's backing image is what fresh's header names, as far as can be
 * told from the name. */
static bool
names_the_same(const struct image *old, const struct image *fresh)
{
	return old->backing && has_backing(old) &&
	    !strcmp(old->header.backing_name, fresh->header.backing_name) &&
	    !strcmp(old->header.backing_format, fresh->header.backing_format);
}

co_fn static int
open_lower(const struct reopening *reopening, const struct image *old,
    struct image *above)
{
	struct image_options options = reopening->options;
	struct file *file;
	int err;

	options.snapshot = NULL;
	err = file_open_again(old->file, 0, &file);
	if (err)
		return error_set(reopening->error, err, "cannot open %s: %s",
		    old->path, strerror(-err));
	err = image_new_layer(file, old->path, old->format, false, &options,
	    &above->backing, reopening->error);
	if (err)
		return err;
	err = file_lock(file, image_lock_kind(above->backing), 0);
	if (err)
		return image_explain_lock(above->backing, false, err,
		    reopening->error);
	if (reopening->forgets)
		file_forget(file);
	return image_load_layer(above->backing, &options, reopening->error);
}

/*
 * As long as all headers name what they did, by second handles of the files;
 * else all of them by their names, as another host may have changed one.
 */
co_fn static int
open_chain(struct reopening *reopening)
{
	const struct image_options *options = &reopening->options;
	struct image *old = reopening->image;
	struct image *fresh = reopening->fresh;
	bool same = !options->backing_format_told || !old->backing ||
	    old->backing->format == options->backing_format;

	if (options->no_backing)
		return 0;
	for (; same && has_backing(fresh); old = old->backing) {
		int err;

		same = names_the_same(old, fresh);
		if (!same)
			break;
		err = open_lower(reopening, old->backing, fresh);
		if (err)
			return err;
		fresh = fresh->backing;
	}
	if (same)
		return 0;
	image_close(reopening->fresh->backing);
	reopening->fresh->backing = NULL;
	return image_open_below(reopening->fresh, options, reopening->error);
}

/* ---- keys ---- */

static struct aes *
key_of(struct image *image, const struct file_id *id)
{
	for (; image; image = image->backing)
		if (image->file->id.dev == id->dev &&
		    image->file->id.ino == id->ino)
			return image->aes;
	return NULL;
}

/* Whether all that need a key have that of the same file. */
static bool
share_keys(struct image *fresh, struct image *old)
{
	for (; fresh; fresh = fresh->backing) {
		struct aes *aes;

		if (!fresh->encrypted)
			continue;
		aes = key_of(old, &fresh->file->id);
		if (!aes)
			return false;
		fresh->aes = aes_share(aes);
	}
	return true;
}

static int
take_keys(struct reopening *reopening)
{
	if (reopening->options.keys_count == 0 &&
	    share_keys(reopening->fresh, reopening->image))
		return 0;
	return encrypted_take_keys(reopening->fresh, &reopening->options,
	    reopening->error);
}

/* ---- all of it ---- */

co_fn static int
open_fresh(struct reopening *reopening)
{
	int err;

	err = open_top(reopening);
	if (!err)
		err = open_chain(reopening);
	if (!err)
		err = take_keys(reopening);
	return err ? err : image_begin_writing(reopening->fresh,
	    reopening->error);
}

co_fn static int
open_beside(struct reopening *reopening)
{
	struct image *image = reopening->image;
	bool stronger = needs_stronger_lock(reopening);
	int err;

	err = stronger ? strengthen_lock(reopening) : 0;
	if (err)
		return err;
	err = open_fresh(reopening);
	if (!err)
		return 0;
	image_close(reopening->fresh);
	reopening->fresh = NULL;
	if (stronger)
		file_relock(image->file, wanted_lock(reopening),
		    image_lock_kind(image));
	return err;
}

/* What cannot be written to any more, as it is corrupt now, can be read. */
co_fn static int
open_to_read_at_least(struct reopening *reopening)
{
	int err = open_beside(reopening);

	if (err != -EROFS || !reopening->options.writable)
		return err;
	log_warning("it is only read from now on: %s file=%s",
	    reopening->error->message, reopening->image->path);
	reopening->options.writable = false;
	return open_beside(reopening);
}

static void
assert_nothing_goes_on(const struct image *image)
{
	assert(!image->barrier.running && !image->quarantine.timer_loop);
	assert(!image->claims.first && !image->sharing);
}

/* What both hold from ops on, in small pieces: a stack is short. */
static void
exchange(struct image *a, struct image *b)
{
	char *at = (char *)a + offsetof(struct image, ops);
	char *other = (char *)b + offsetof(struct image, ops);
	size_t left = sizeof(struct image) - offsetof(struct image, ops);

	assert_nothing_goes_on(a);
	assert_nothing_goes_on(b);
	while (left > 0) {
		char kept[256];
		size_t part = left < sizeof(kept) ? left : sizeof(kept);

		memcpy(kept, at, part);
		memcpy(at, other, part);
		memcpy(other, kept, part);
		at += part;
		other += part;
		left -= part;
	}
}

/* The old content goes with the second image, without another write. */
co_fn static void
switch_over(struct reopening *reopening)
{
	struct image *image = reopening->image;
	struct image *fresh = reopening->fresh;

	monitor_enter(&image->monitor);
	exchange(image, fresh);
	image->writable = fresh->writable;
	image->usable_bytes = fresh->usable_bytes;
	image->size_bytes = fresh->size_bytes;
	atomic_store(&image->door.lost, false);
	monitor_leave(&image->monitor);
	for (struct image *old = fresh; old; old = old->backing)
		old->writable = false;
	image_close(fresh);
}

/* Nothing in memory can be believed, nor may it be written. */
static int
lose(struct reopening *reopening, int err)
{
	struct image *image = reopening->image;
	struct error why = *reopening->error;

	atomic_store(&image->door.lost, true);
	image->failed = true;
	error_set(reopening->error, err, "%s cannot be read anew, and gives "
	    "errors until it can: %.700s", image->path, why.message);
	error_hint(reopening->error, "%s", why.hint);
	reopening->error->exit_code = why.exit_code;
	log_error("%s", reopening->error->message);
	return err;
}

/* ---- closing the door, and what comes before ---- */

/* What was written becomes stable; drops: unless it cannot be any more. */
co_fn static int
end_writing(struct reopening *reopening, bool drops)
{
	struct image *image = reopening->image;
	int err;

	if (!image->writable || atomic_load(&image->door.lost))
		return 0;
	err = image->ops->finish(image);
	if (!err)
		return 0;
	if (drops && image->failed) {
		log_warning("what was written and not flushed before the "
		    "failure may be lost file=%s", image->path);
		return 0;
	}
	image->ops->resume(image);
	return error_set(reopening->error, err, "cannot make stable what was "
	    "written to %s: %s", image->path, strerror(-err));
}

/* Nobody is inside, nor comes in. */
co_fn static int
open_anew(struct reopening *reopening, bool drops)
{
	struct image *image = reopening->image;
	bool was_lost = atomic_load(&image->door.lost);
	int err;

	err = end_writing(reopening, drops);
	if (err)
		return err;
	err = drops ? open_to_read_at_least(reopening) :
	    open_beside(reopening);
	if (!err) {
		switch_over(reopening);
		return 0;
	}
	/*
	 * After a repair what is in memory still leads to all data, since that
	 * moves none; but it would be no ground to write on.
	 */
	if (drops || (image->writable && reopening->repaired))
		return lose(reopening, err);
	if (image->writable && !was_lost)
		image->ops->resume(image);
	return err;
}

/* For requests, and for operations. */
co_fn static void
open_door(struct image *image)
{
	door_open(&image->door);
	monitor_enter(&image->monitor);
	co_mutex_unlock(&image->monitor, &image->gate.operation);
	monitor_leave(&image->monitor);
}

int
image_reopen(struct image *image, const struct image_options *options,
    struct error *error)
{
	struct reopening reopening = {
		.image = image, .options = *options, .error = error,
	};
	int err;

	assert(options->format == image->format && !options->writable_depth);
	monitor_enter(&image->monitor);
	co_mutex_lock(&image->gate.operation);
	monitor_leave(&image->monitor);
	door_close(&image->door);
	door_wait_empty(&image->door);
	err = open_anew(&reopening, false);
	open_door(image);
	return err;
}

/* The same without waiting for anybody.  Whether it could be had. */
co_fn static bool
close_door_at_once(struct image *image)
{
	bool closed = false;

	monitor_enter(&image->monitor);
	if (!image->gate.operation.holder) {
		co_mutex_lock(&image->gate.operation);
		monitor_leave(&image->monitor);
		door_close(&image->door);
		closed = door_is_empty(&image->door);
		if (!closed)
			door_open(&image->door);
		monitor_enter(&image->monitor);
		if (!closed)
			co_mutex_unlock(&image->monitor,
			    &image->gate.operation);
	}
	monitor_leave(&image->monitor);
	return closed;
}

int
image_invalidate(struct image *image, const struct image_options *options,
    struct error *error)
{
	struct reopening reopening = {
		.image = image, .options = *options, .forgets = true,
		.error = error,
	};
	int err;

	assert(options->format == image->format && !options->writable_depth);
	if (!close_door_at_once(image))
		return error_set(error, -EBUSY, "%s cannot be read anew while "
		    "requests are under way", image->path);
	reopening.options.writable = image->writable;
	err = open_anew(&reopening, true);
	open_door(image);
	return err;
}
