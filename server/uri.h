/* SPDX-License-Identifier: MIT */
/*
 * NBD URIs, and the commands to type with them.
 * (Specification: doc/uri.md of the NBD project.)
 */
#ifndef SERVER_URI_H
#define SERVER_URI_H

#include <stdbool.h>
#include <stdio.h>

struct export;
struct listener;

/* Whether a client can be told the way to it at all. */
bool uri_exists(const struct listener *listener);

/*
 * "nbd://127.0.0.1:10809/vm1" or "nbd+unix:///vm1?socket=/run/x.sock"; where
 * the client has to start TLS, "nbds".
 */
void uri_print(FILE *out, const struct listener *listener,
    const struct export *export);

/* How to attach the export with nbd-client, without a newline. */
void uri_print_client(FILE *out, const struct listener *listener,
    const struct export *export);

/* How a guest of qemu gets it, without a newline. */
void uri_print_drive(FILE *out, const struct listener *listener,
    const struct export *export);

#endif
