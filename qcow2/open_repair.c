/* SPDX-License-Identifier: MIT */
/*
 * What opening an image for writing takes that was not closed cleanly: its
 * refcounts may be wrong, so they are repaired first.
 */
#include <errno.h>
#include "qcow2/internal.h"
#include "qcow2/open_internal.h"
#include "qcow2/repair.h"
#include "runtime/log.h"

static int
refuse(const struct image *image, const struct check_result *left,
    struct error *error)
{
	error_set(error, -EROFS, "%s was not closed cleanly (dirty), and %llu "
	    "faults in it cannot be repaired", image->path,
	    (unsigned long long)(left->corruptions + left->check_errors));
	error_hint(error, "find out more: qnbd check %s      or look only: "
	    "qnbd serve -r %s", image->path, image->path);
	return -EROFS;
}

co_fn int
open_repair(struct image *image, const struct image_options *options,
    struct error *error)
{
	struct repair_result result;
	int err;

	err = repair_file(image->file, image->path, REPAIR_ALL,
	    options->repair_listener, &result, error);
	if (err)
		return err;
	if (result.left.corruptions > 0 || result.left.check_errors > 0)
		return refuse(image, &result.left, error);
	log_warning("repaired an image that was not closed cleanly "
	    "faults=%llu leaks=%llu%s file=%s",
	    (unsigned long long)result.corruptions_fixed,
	    (unsigned long long)result.leaks_fixed,
	    result.rebuilt ? " refcounts=rebuilt" : "", image->path);
	header_free(&image->header);
	return header_load(image->file, &image->header, error);
}
