/* SPDX-License-Identifier: MIT */
/*
 * Opening an image anew, in place: everything that is in memory of it and of
 * its chain is dropped, and read again.
 *
 * Requests that come meanwhile wait, and none sees a mixture.  The file stays
 * the one that was opened, whatever its name leads to by now, and its lock goes
 * over to the new opening without a gap; so do those of the chain, as long as
 * each header names the backing file that it did.
 *
 * options are as image_open()'s and need not be what they were, but format and
 * loops; the image must not have been opened with writable_depth.  Without
 * keys, encrypted files keep theirs.  What the disk has for a length, and what
 * image_backing() returned, may have changed after that, but clusters are as
 * large as they were: an image that is another one now is refused, -ESTALE.
 *
 * Nobody may be in one of the operations of image_chain.h that goes on in
 * requests (image_commit()).  Plans (image_plan()) are waited for as requests
 * are.  But pages that file_splice() has passed on to a socket cannot be: let
 * clients take these before the image is opened for writing.
 */
#ifndef QCOW2_IMAGE_REOPEN_H
#define QCOW2_IMAGE_REOPEN_H

#include "qcow2/image.h"
#include "runtime/co.h"
#include "runtime/error.h"

/*
 * Opens it for writing, or for reading alone, as options->writable says.
 *
 * For writing, it goes through all that image_open() does then: the lock, the
 * repair of a dirty image, features that writing ends.  From writing to
 * reading, all is made stable first, as by image_close().  Waits for requests
 * and operations under way; requests to write that come later get -EROFS.
 *
 * Errors as image_open()'s and image_close()'s; the image is as it was then.
 */
co_fn int image_reopen(struct image *image,
    const struct image_options *options, struct error *error);

/*
 * Reads it anew, also from the disk what the host has in its cache: for an
 * image that another host has written to, or one that accepts no more writes
 * after a failed sync (O6), in which case what was not stable is lost.  Of one
 * that is open for writing all else is made stable first.  options->writable
 * does not matter; but one that may only be read by now, since it is marked as
 * corrupt, is open for reading alone after that (image_writable()).
 *
 * -EBUSY: there are requests or operations in flight, and nothing was done;
 * errors of the flush the same.  If it then cannot be read, it is lost: all
 * requests get -EIO, rather than old data, until this or image_reopen() works.
 */
co_fn int image_invalidate(struct image *image,
    const struct image_options *options, struct error *error);

#endif
