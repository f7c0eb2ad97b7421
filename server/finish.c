/* SPDX-License-Identifier: MIT */
#include "server/finish.h"

#include <string.h>
#include "qcow2/image.h"

int
finish_image(struct image *image, const char *path, int err,
    struct error *error)
{
	int close_err = image_close(image);

	if (err || !close_err)
		return err;
	return error_set(error, close_err, "cannot make all of %s stable: %s",
	    path, strerror(-close_err));
}
