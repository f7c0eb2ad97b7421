/* SPDX-License-Identifier: MIT */
/*
 * The end of a command that has changed an image.
 */
#ifndef SERVER_FINISH_H
#define SERVER_FINISH_H

#include "runtime/co.h"
#include "runtime/error.h"

struct image;

/*
 * Closes the image, which a message calls path, after work that ended with err:
 * which is returned, or what went wrong in closing.
 */
co_fn int finish_image(struct image *image, const char *path, int err,
    struct error *error);

#endif
