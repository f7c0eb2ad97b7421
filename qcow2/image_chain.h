/* SPDX-License-Identifier: MIT */
/*
 * What changes what an image rests on: rebase, flatten, commit.
 *
 * All of them go on in pieces, so that requests of others get their turn, tell
 * how far they are, and stop when they are told to, with -ECANCELED.  Stopped,
 * failed or cut by a power failure they leave every image reading as before,
 * and called again they end what was begun.
 *
 * Internal snapshots rest on the backing file, too, and would change with it
 * unnoticed; so images that have some are refused, -ENOTSUP.
 */
#ifndef QCOW2_IMAGE_CHAIN_H
#define QCOW2_IMAGE_CHAIN_H

#include <stdbool.h>
#include "qcow2/image_progress.h"
#include "runtime/co.h"
#include "runtime/error.h"
#include "runtime/file.h"

struct header_backing;
struct image;

/* Whether the file is one of the chain's, image included. */
bool image_chain_has(const struct image *image, const struct file_id *id);

/*
 * Copies into image, a qcow2 image open for writing, what it shows of its
 * backing chain where below (NULL: nothing) holds something else, and makes
 * that stable; the header then names backing, which below was opened as.  The
 * image keeps its chain until it is closed, and reads the same.  Nobody else
 * may write to it unless below is NULL.
 */
co_fn int image_rebase(struct image *image, struct image *below,
    const struct header_backing *backing,
    const struct image_progress *progress, struct error *error);

/* The name alone, whatever the image reads as when it is opened again. */
co_fn int image_set_backing(struct image *image,
    const struct header_backing *backing, struct error *error);

/* The same as image_rebase() with nothing below; beside requests. */
co_fn int image_flatten(struct image *image,
    const struct image_progress *progress, struct error *error);

/*
 * Writes what the depth uppermost layers of the chain hold into the one below
 * them, which is open for writing and becomes longer if it is shorter than
 * image, and makes that stable.  The layers above stay as they are.
 */
co_fn int image_commit(struct image *image, unsigned depth,
    const struct image_progress *progress, struct error *error);

/*
 * Takes everything out of image, so that all of its backing file shows
 * through; its file becomes short when it is closed.  Snapshots keep what they
 * have.  Whoever has just committed it sees no difference at any moment.
 * Requests wait meanwhile.  progress may be NULL.
 */
co_fn int image_empty(struct image *image,
    const struct image_progress *progress, struct error *error);

#endif
