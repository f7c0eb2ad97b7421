/* SPDX-License-Identifier: MIT */
/*
 * The images of `qnbd serve` become exports.
 */
#ifndef SERVER_SERVE_EXPORTS_H
#define SERVER_SERVE_EXPORTS_H

#include <stdbool.h>
#include "runtime/co.h"
#include "runtime/error.h"

struct key_ring;
struct serve_options;
struct server;

/*
 * Opens every image, which may have to be repaired first; that is shown on a
 * terminal, and ends early once *stop is set.  -errno: those before the one
 * that failed are open.
 */
co_fn int serve_exports_open(const struct serve_options *options,
    const struct key_ring *keys, const bool *stop, struct server *server,
    struct error *error);

#endif
