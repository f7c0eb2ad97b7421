/* SPDX-License-Identifier: MIT */
/*
 * The backing file of an image that is about to be made: -b and -F.
 */
#ifndef SERVER_NEW_BACKING_H
#define SERVER_NEW_BACKING_H

#include <stdbool.h>
#include "qcow2/create.h"
#include "qcow2/image.h"
#include "server/new_file.h"
#include "server/options.h"

/*
 * Takes what -b and -F say (NULL; -1: not given) into options.  0, or
 * EXIT_USAGE after saying what is wrong.
 */
int new_backing_take(const struct command *command, const char *name,
    int format, struct create_options *options);

/* The path of the backing file as seen from here; NULL: no memory. */
char *new_backing_path(const struct new_file *new_file, const char *name);

/*
 * Opens that one file: it must be there, be what -F says, and not be changed by
 * others while the image is made.  Unless size_given, the disk will be as long.
 * The options say after it how long the disk below is.
 */
co_fn int new_backing_check(const struct new_file *new_file, bool size_given,
    struct create_options *options, struct error *error);

#endif
