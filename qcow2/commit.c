/* SPDX-License-Identifier: MIT */
/*
 * Committing: what the upper layers of a chain hold is written into the layer
 * below them.
 *
 * While that goes on, and after a crash in the middle, whoever reads through
 * the upper layers sees no difference: what was written below is what they
 * hold.  It is stable at the end, so that they may be emptied or thrown away.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "qcow2/image_chain.h"
#include "qcow2/image_resize.h"
#include "qcow2/internal.h"
#include "runtime/buf.h"

/* Read and written at once. */
#define PIECE_BYTES	(2u << 20)

struct committing {
	struct image *image;
	struct image *base;
	unsigned depth;		/* of base */
	char *buffer;
};

bool
image_chain_has(const struct image *image, const struct file_id *id)
{
	for (; image; image = image->backing)
		if (image->file->id.dev == id->dev &&
		    image->file->id.ino == id->ino)
			return true;
	return false;
}

int
image_refuse_snapshots(const struct image *image, struct error *error)
{
	if (image->snapshots.count == 0)
		return 0;
	error_set(error, -ENOTSUP, "%s has internal snapshots, which rest on "
	    "its backing file, too, and would change with it", image->path);
	error_hint(error, "look at them: qnbd info %s      delete them "
	    "first: qnbd snapshot delete %s NAME", image->path, image->path);
	return -ENOTSUP;
}

/* ---- its content ---- */

/* Whether an upper layer says what is there, if only by ending before it. */
static bool
is_above(const struct committing *committing,
    const struct image_extent *extent)
{
	return extent->depth < committing->depth;
}

co_fn static int
commit_piece(const struct committing *committing, uint64_t guest,
    uint64_t *donep)
{
	struct image *image = committing->image;
	struct image_extent extent;
	uint64_t length;
	int err;

	err = image->ops->status(image, guest, image->size_bytes - guest,
	    &extent);
	if (err)
		return err;
	length = extent.length;
	if (is_above(committing, &extent) && extent.zero) {
		err = image_zero(committing->base, guest, length, 0);
	} else if (is_above(committing, &extent)) {
		if (length > PIECE_BYTES)
			length = PIECE_BYTES;
		err = image_read(image, guest, committing->buffer, length,
		    NULL);
		if (!err)
			err = image_write(committing->base, guest,
			    committing->buffer, length, 0);
	}
	*donep = length;
	return err;
}

co_fn static int
commit_all(const struct committing *committing,
    const struct image_progress *progress)
{
	uint64_t size_bytes = committing->image->size_bytes;
	uint64_t guest = 0, done = 0;
	int err = 0;

	for (; guest < size_bytes && !err; guest += done) {
		if (progress->report(progress->arg, guest, size_bytes))
			return -ECANCELED;
		err = commit_piece(committing, guest, &done);
		co_yield();
	}
	return err;
}

co_fn static int
make_as_long(struct image *base, uint64_t size_bytes, struct error *error)
{
	struct image_resize how = {.size_bytes = size_bytes};

	return base->size_bytes < size_bytes ?
	    image_resize(base, &how, error) : 0;
}

int
image_commit(struct image *image, unsigned depth,
    const struct image_progress *progress, struct error *error)
{
	struct committing committing = {
		.image = image, .base = image, .depth = depth,
	};
	int err;

	for (unsigned i = 0; i < depth; i++)
		committing.base = committing.base->backing;
	assert(depth > 0 && committing.base->writable);
	err = image_refuse_snapshots(image, error);
	if (!err)
		err = make_as_long(committing.base, image->size_bytes, error);
	if (err)
		return err;
	committing.buffer = buf_get(PIECE_BYTES);
	err = committing.buffer ? commit_all(&committing, progress) : -ENOMEM;
	buf_put(committing.buffer, PIECE_BYTES);
	if (err == -ECANCELED)
		return error_set(error, err, "stopped; %s still holds all of "
		    "it, and the same command begins again", image->path);
	if (!err)
		err = image_flush(committing.base);
	if (err)
		error_set(error, err, "cannot write what %s holds into %s: %s",
		    image->path, committing.base->path, strerror(-err));
	return err;
}
