/* SPDX-License-Identifier: MIT */
/*
 * Requests: a header of 28 bytes, and for a write its payload.
 *
 * The server's order of work, for each header:
 *
 *	if (nbd_request_parse(wire, &request))
 *		close: this is no request, and nothing after it can be found
 *	if (request.type == NBD_CMD_DISC)
 *		answer what is out, then close; no reply
 *	if (nbd_request_payload_bytes(&request) > NBD_PAYLOAD_BYTES_MAX)
 *		close: a payload this long is not read, not even to drop it
 *	error = nbd_request_check(&request, &terms);
 *	read the payload, even if there is an error
 *	if (error)
 *		reply with it
 *
 * nbd_request_check() decides everything that the header alone can tell.  A
 * request of length 0 that passes it succeeds and does nothing; a structured
 * reply to such a read is a single chunk of type NONE.
 * (Specification: "Request message", "Request types", "Error values".)
 */
#ifndef PROTO_REQUEST_H
#define PROTO_REQUEST_H
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/nbd.h"
#include "proto/wire.h"

#define NBD_REQUEST_BYTES 28

struct nbd_request {
	uint64_t cookie;	/* the client's own; only to be sent back */
	uint64_t offset;	/* in bytes */
	uint64_t length;	/* in bytes; 32 bits of it on the wire */
	uint16_t flags;	/* NBD_CMD_FLAG_ */
	uint16_t type;	/* enum nbd_command, or one we do not know */
};

/* What the handshake settled, as far as requests are judged by it. */
struct nbd_terms {
	uint64_t export_bytes;
	uint32_t block_bytes_min;	/* power of 2; 1 unless advertised */
	uint16_t transmission_flags;	/* as sent to this client */
	bool structured_replies;	/* then NBD_FLAG_SEND_DF was sent */
	bool meta_context;	/* one was selected, for this export */
};

/* -EBADMSG if the magic number is wrong: close without a reply. */
static inline int
nbd_request_parse(const uint8_t wire[static NBD_REQUEST_BYTES],
	struct nbd_request *request)
{
	if (nbd_get_be32(wire) != NBD_REQUEST_MAGIC)
		return -EBADMSG;
	request->flags = nbd_get_be16(wire + 4);
	request->type = nbd_get_be16(wire + 6);
	request->cookie = nbd_get_be64(wire + 8);
	request->offset = nbd_get_be64(wire + 16);
	request->length = nbd_get_be32(wire + 24);
	return 0;
}

/* How many bytes follow the header, whether the request is good or not. */
static inline uint64_t
nbd_request_payload_bytes(const struct nbd_request *request)
{
	return request->type == NBD_CMD_WRITE ? request->length : 0;
}

/*
 * The error to reply with, of enum nbd_error; NBD_SUCCESS if the request may
 * be carried out.  A DISC always passes, whatever its other fields hold.
 */
uint32_t nbd_request_check(const struct nbd_request *request,
	const struct nbd_terms *terms);

/*
 * Whether length bytes at offset lie inside the request; for clients, before
 * they believe where a chunk says that it belongs.
 */
static inline bool
nbd_request_covers(const struct nbd_request *request, uint64_t offset,
	uint64_t length)
{
	return offset >= request->offset &&
		offset - request->offset <= request->length &&
		length <= request->length - (offset - request->offset);
}

/* Writes the header; length must fit its 32 bits.  Returns 28. */
size_t nbd_request_put(uint8_t wire[static NBD_REQUEST_BYTES],
	const struct nbd_request *request);

/* For logs: "WRITE_ZEROES", or "unknown". */
const char *nbd_request_name(uint16_t type);
#endif
