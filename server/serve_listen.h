/* SPDX-License-Identifier: MIT */
/*
 * Where `qnbd serve` listens, and what it says about that.
 */
#ifndef SERVER_SERVE_LISTEN_H
#define SERVER_SERVE_LISTEN_H

#include <stdbool.h>
#include "runtime/error.h"

struct export_table;
struct listener;
struct serve_options;

/* A socket that its last holder is about to let go is waited for. */
#define SERVE_PATIENCE_MS 2000

#define SERVE_PORT 10809

/*
 * Opens every listener asked for; adopted ones are in *list already.  Those
 * that would carry data over a network in plain text are refused, unless it
 * was said to be fine.  -errno, and *list is as far as it got.
 */
int serve_listen(const struct serve_options *options, struct listener **list,
    struct error *error);

/* Whether any listener was asked for. */
bool serve_listen_wanted(const struct serve_options *options);

/*
 * Listens where only this user finds it: on a unix socket in a new directory,
 * which the caller removes afterwards, and frees its name.  -errno.
 */
int serve_listen_private(struct listener **list, char **directoryp,
    struct error *error);

/* Whether text has the form that --listen takes. */
bool serve_listen_valid(const char *text);

/*
 * Prints the URIs of all exports, and on a terminal what to do with them; of no
 * listener nothing.
 */
void serve_announce(const struct serve_options *options,
    const struct listener *listeners, const struct export_table *exports);

#endif
