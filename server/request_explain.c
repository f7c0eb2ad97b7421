/* SPDX-License-Identifier: MIT */
#include "server/request_explain.h"

#include <stdio.h>
#include <string.h>
#include "proto/request.h"
#include "runtime/log.h"
#include "server/connection.h"
#include "server/export.h"
#include "server/request.h"
#include "server/size.h"

#define NAME_BYTES 64

/* Where the request itself is none of the reasons. */
static const char *
why_of(uint32_t error)
{
	switch (error) {
	case NBD_EPERM:
		return "it is not allowed";
	case NBD_EIO:
		return "the server's storage failed; its log says where";
	case NBD_ENOSPC:
		return "there is no space left where the image lies";
	case NBD_ENOTSUP:
		return "zeroing this range would not be fast";
	case NBD_ESHUTDOWN:
		return "the server is shutting down";
	default:
		return "the image cannot do this";
	}
}

static const char *
find_why(const struct request *request, uint32_t error)
{
	const char *why = request->why;

	if (!why && error != NBD_ESHUTDOWN)
		why = nbd_request_refusal(&request->wire,
		    &request->connection->terms);
	return why ? why : why_of(error);
}

/* Exact, and short where that can be. */
static const char *
print_bytes(char text[SIZE_TEXT_BYTES], uint64_t bytes)
{
	unsigned shift = bytes ? (unsigned)__builtin_ctzll(bytes) / 10 * 10 : 0;

	if (shift >= 10 && bytes >> shift < 1024)
		return size_print(text, bytes);
	snprintf(text, SIZE_TEXT_BYTES, "%llu bytes",
	    (unsigned long long)bytes);
	return text;
}

/* "WRITE of 4 KiB at 5 GiB", "READ of 1 GiB at 0 bytes failed at ...". */
static int
print_request(const struct request *request, char *text, size_t size)
{
	const struct nbd_request *wire = &request->wire;
	const char *command = nbd_request_name(wire->type);
	char length[SIZE_TEXT_BYTES], offset[SIZE_TEXT_BYTES];

	print_bytes(offset, wire->offset);
	if (wire->type == NBD_CMD_RESIZE)
		return snprintf(text, size, "%s to %s", command, offset);
	print_bytes(length, wire->length);
	if (!request->failed_at_known)
		return snprintf(text, size, "%s of %s at %s", command, length,
		    offset);
	return snprintf(text, size, "%s of %s at %s failed at %llu", command,
	    length, offset, (unsigned long long)request->failed_at);
}

void
request_explain(const struct request *request, uint32_t error, char *text,
    size_t size)
{
	const struct connection *connection = request->connection;
	const struct export *export = connection->export;
	char all[SIZE_TEXT_BYTES], name[NAME_BYTES];
	int used = print_request(request, text, size);

	log_quote(name, sizeof(name), export->name,
	    (int)strlen(export->name));
	print_bytes(all, connection->terms.export_bytes);
	snprintf(text + used, size - (size_t)used,
	    ": %s; export \"%s\" has %s", find_why(request, error), name, all);
}
