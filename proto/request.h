/* SPDX-License-Identifier: MIT */
/*
 * Requests: a header of 28 bytes, and for a write its payload.
 *
 * With extended headers it has 32, of which 8 are the length, and each command
 * says by a flag whether that is the length of a payload behind the header.  A
 * BLOCK_STATUS with a payload has the length it is about, and the contexts it
 * asks for, in there: see nbd_request_choose().
 *
 * The server's order of work, for each header:
 *
 *	if (nbd_request_parse(wire, extended, &request))
 *		close: this is no request, and nothing after it can be found
 *	if (request.type == NBD_CMD_DISC)
 *		answer what is out, then close; no reply
 *	if (nbd_request_payload_bytes(&request) > NBD_PAYLOAD_BYTES_MAX)
 *		close: a payload this long is not read, not even to drop it
 *	error = nbd_request_check(&request, &terms);
 *	read the payload, even if there is an error
 *	if (!error && nbd_request_has_choice(&request))
 *		error = nbd_request_choose(&request, &terms, payload,
 *			&contexts)
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
#define NBD_REQUEST_EXTENDED_BYTES 32
#define NBD_REQUEST_BYTES_MAX NBD_REQUEST_EXTENDED_BYTES

/* The payload of a BLOCK_STATUS: a length, and an id for each context. */
#define NBD_STATUS_CHOICE_BYTES(contexts) (8 + 4 * (size_t)(contexts))
#define NBD_STATUS_CHOICE_BYTES_MAX NBD_STATUS_CHOICE_BYTES(NBD_CONTEXTS_MAX)

struct nbd_request {
	uint64_t cookie;	/* the client's own; only to be sent back */
	uint64_t offset;	/* in bytes */
	uint64_t length;	/* in bytes; 32 bits if not extended */
	uint16_t flags;	/* NBD_CMD_FLAG_ */
	uint16_t type;	/* enum nbd_command, or one we do not know */
	bool extended;	/* so was its header; so will be its reply's */
};

/* What the handshake settled, as far as requests are judged by it. */
struct nbd_terms {
	uint64_t export_bytes;
	uint32_t block_bytes_min;	/* power of 2; 1 unless advertised */
	uint16_t transmission_flags;	/* as sent to this client */
	bool structured_replies;	/* chunks; then SEND_DF was sent */
	bool extended_headers;	/* then there are chunks, too */
	uint64_t contexts;	/* bit n: that with id n + 1 was selected */
	/*
	 * Where this client has made the export shorter: how long it was.  What
	 * lies between is ENOSPC then, says the draft, for all commands.
	 */
	uint64_t former_bytes;
};

static inline size_t
nbd_request_bytes(bool extended)
{
	return extended ? NBD_REQUEST_EXTENDED_BYTES :
		NBD_REQUEST_BYTES;
}

/*
 * Reads nbd_request_bytes(extended).  -EBADMSG if the magic number is wrong:
 * close without a reply.
 */
static inline int
nbd_request_parse(const uint8_t *wire, bool extended,
	struct nbd_request *request)
{
	if (nbd_get_be32(wire) != (extended ? NBD_EXTENDED_REQUEST_MAGIC :
	    NBD_REQUEST_MAGIC))
		return -EBADMSG;
	request->flags = nbd_get_be16(wire + 4);
	request->type = nbd_get_be16(wire + 6);
	request->cookie = nbd_get_be64(wire + 8);
	request->offset = nbd_get_be64(wire + 16);
	request->length = extended ? nbd_get_be64(wire + 24) :
		nbd_get_be32(wire + 24);
	request->extended = extended;
	return 0;
}

/*
 * How many bytes follow the header, whether the request is good or not.  With
 * extended headers the client must say of a WRITE that they do, and QEMU's
 * (seen with 10.0) does not, but sends them.
 */
static inline uint64_t
nbd_request_payload_bytes(const struct nbd_request *request)
{
	bool has_payload = request->type == NBD_CMD_WRITE ||
		(request->extended &&
		request->flags & NBD_CMD_FLAG_PAYLOAD_LEN);

	return has_payload ? request->length : 0;
}

/*
 * The error to reply with, of enum nbd_error; NBD_SUCCESS if the request may
 * be carried out.  A DISC always passes, whatever its other fields hold.  Of a
 * BLOCK_STATUS with a payload this is only half of the answer.
 */
uint32_t nbd_request_check(const struct nbd_request *request,
	const struct nbd_terms *terms);

/*
 * Why nbd_request_check() refuses it, for people, to stand behind the name of
 * the command and a colon; NULL if it does not.
 */
const char *nbd_request_refusal(const struct nbd_request *request,
	const struct nbd_terms *terms);

/* Whether a request that passed chooses its contexts in its payload. */
static inline bool
nbd_request_has_choice(const struct nbd_request *request)
{
	return request->type == NBD_CMD_BLOCK_STATUS && request->extended &&
		request->flags & NBD_CMD_FLAG_PAYLOAD_LEN;
}

/*
 * Reads that payload, of request->length bytes.  On success the request is one
 * without it, of the length that it is about, and passes the check; *contextsp
 * is what of terms->contexts was chosen.  NBD_EINVAL: an id is unknown or there
 * twice, or the length does not fit.
 */
uint32_t nbd_request_choose(struct nbd_request *request,
	const struct nbd_terms *terms, const uint8_t *payload,
	uint64_t *contextsp);

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

/*
 * Writes the header, 28 bytes or 32 as request->extended says; a length that
 * is not extended must fit its 32 bits.  Returns the bytes.
 */
size_t nbd_request_put(uint8_t *wire,
	const struct nbd_request *request);

/*
 * Writes the payload of a BLOCK_STATUS: length bytes are asked about, in the
 * contexts of contexts, bit n being id n + 1; there must be one.  Returns the
 * bytes, which are the length of the request, NBD_STATUS_CHOICE_BYTES_MAX at
 * most.
 */
size_t nbd_request_put_choice(uint8_t *wire, uint64_t length,
	uint64_t contexts);

/* For logs: "WRITE_ZEROES", or "unknown". */
const char *nbd_request_name(uint16_t type);
#endif
