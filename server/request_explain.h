/* SPDX-License-Identifier: MIT */
/*
 * What a person is told of a request that failed.
 */
#ifndef SERVER_REQUEST_EXPLAIN_H
#define SERVER_REQUEST_EXPLAIN_H

#include <stddef.h>
#include <stdint.h>

struct request;

/*
 * "WRITE of 4 KiB at 5 GiB: it is past the end of the export; export "vm1" has
 * 4 GiB".  What is no round number is told in bytes.  size is
 * REQUEST_TEXT_BYTES + 1.
 */
void request_explain(const struct request *request, uint32_t error,
    char *text, size_t size);

#endif
