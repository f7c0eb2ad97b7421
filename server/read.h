/* SPDX-License-Identifier: MIT */
/*
 * Reads: data, and holes where the client has chunks for them.
 *
 * A read of more than READ_PART_BYTES is answered part by part, unless that
 * would take more than one chunk where only one may be: the client has the
 * first part while the next is read, and replies to others go in between.
 */
#ifndef SERVER_READ_H
#define SERVER_READ_H

#include <stdint.h>
#include "proto/request.h"
#include "runtime/co.h"

struct request;

#define READ_PART_BYTES (1u << 20)

/* Parts of one read that are not sent yet, that in the making included. */
#define READ_PARTS_MAX 3

/* Bytes of buffer that the read takes at once. */
uint64_t read_memory(const struct nbd_request *wire,
    const struct nbd_terms *terms);

/* Makes the reply; -errno, with request->failed_at if it is known. */
co_fn int read_run(struct request *request);

/* Begins the reply: what stands in front of all data of the part. */
void read_add_data_head(struct request *request);

#endif
