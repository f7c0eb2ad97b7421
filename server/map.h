/* SPDX-License-Identifier: MIT */
/*
 * What `qnbd map` is made of: the extents of a disk, one after the other.
 */
#ifndef SERVER_MAP_H
#define SERVER_MAP_H

#include <stdint.h>
#include "qcow2/image.h"
#include "runtime/error.h"

struct progress;

/* Extents asked of the image at once. */
#define MAP_BATCH 64

/*
 * Calls take, which does not suspend, for each extent of the disk, in order;
 * neighbours may have equal facts; tells progress, which has begun, how far it
 * is.  Results as image_status()'s; *error says more.
 */
co_fn int map_walk(struct image *image, void (*take)(void *arg,
    uint64_t guest, const struct image_extent *extent), void *arg,
    struct progress *progress, struct error *error);

/* The path of the image so many layers below. */
const char *map_layer_path(const struct image *image, unsigned depth);

#endif
