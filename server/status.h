/* SPDX-License-Identifier: MIT */
/*
 * BLOCK_STATUS: one chunk for each context that is asked about.
 *
 * An answer ends where the range does, where its list is full, where what is
 * there cannot be told, or after STATUS_MS_MAX; the client asks again from
 * there.  There is at least one extent, and neighbours differ.
 */
#ifndef SERVER_STATUS_H
#define SERVER_STATUS_H

#include <stddef.h>
#include "proto/request.h"
#include "runtime/co.h"

struct request;

/* All chunks of an answer together; the contexts have equal shares. */
#define STATUS_BYTES (128u << 10)

/* So long a context is looked at, for one answer. */
#define STATUS_MS_MAX 50

/* What of this the answer to wire may take. */
size_t status_bytes(const struct nbd_request *wire);

/* Makes the reply; -errno. */
co_fn int status_run(struct request *request);

#endif
