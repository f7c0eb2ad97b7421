/* SPDX-License-Identifier: MIT */
/*
 * Replies to requests: simple ones, and the chunks of all others.
 *
 * Server: each nbd_reply_put_x() writes to wire and returns the bytes
 * written.  The request that is answered says which kind of chunk it is: one
 * of structured replies, with a header of 20 bytes, or one of extended ones,
 * with 32.  flags is NBD_REPLY_FLAG_DONE in the last chunk, else 0.  A chunk
 * of data is its header here and the bytes behind it, sent from where they
 * are.  A message for people may be NULL, and of any length: it is cut.
 *
 * Client: read 4 bytes, ask nbd_reply_header_bytes() how many the header has,
 * read the rest, nbd_reply_parse(), read payload_bytes, and hand these to the
 * parser for the type.  An error from any of them: hang up.
 * Nothing suspends or allocates.
 * (Specification: "Simple reply message", "Extended reply chunk message",
 * "Structured reply types".)
 */
#ifndef PROTO_REPLY_H
#define PROTO_REPLY_H
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/nbd.h"
#include "proto/request.h"
#include "proto/text.h"
#include "proto/wire.h"

#define NBD_REPLY_SIMPLE_BYTES 16
#define NBD_REPLY_CHUNK_BYTES 20	/* of any chunk, before its payload */
#define NBD_REPLY_EXTENDED_BYTES 32
#define NBD_REPLY_HEADER_BYTES_MAX NBD_REPLY_EXTENDED_BYTES

/* The fixed part of a payload, before data, extents, text or an offset. */
#define NBD_REPLY_DATA_FIXED_BYTES 8
#define NBD_REPLY_HOLE_FIXED_BYTES 12
#define NBD_REPLY_STATUS_FIXED_BYTES 4
#define NBD_REPLY_STATUS_EXT_FIXED_BYTES 8
#define NBD_REPLY_ERROR_FIXED_BYTES 6

/* Of these with either kind of header. */
#define NBD_REPLY_DATA_BYTES_MAX \
	(NBD_REPLY_HEADER_BYTES_MAX + NBD_REPLY_DATA_FIXED_BYTES)
#define NBD_REPLY_HOLE_BYTES_MAX \
	(NBD_REPLY_HEADER_BYTES_MAX + NBD_REPLY_HOLE_FIXED_BYTES)
#define NBD_REPLY_STATUS_BYTES_MAX \
	(NBD_REPLY_HEADER_BYTES_MAX + NBD_REPLY_STATUS_EXT_FIXED_BYTES)
#define NBD_REPLY_EXTENT_BYTES_MAX 16
#define NBD_REPLY_ERROR_BYTES_MAX \
	(NBD_REPLY_HEADER_BYTES_MAX + NBD_REPLY_ERROR_FIXED_BYTES + \
	 NBD_NAME_BYTES_MAX)
#define NBD_REPLY_ERROR_OFFSET_BYTES_MAX (NBD_REPLY_ERROR_BYTES_MAX + 8)

struct nbd_extent {
	uint64_t length;	/* in bytes, not 0; 32 bits if not extended */
	uint64_t state;	/* the same; of base:allocation, NBD_STATE_ */
};

/* Server. */

/* A simple reply.  The data of a successful read follows it. */
static inline size_t
nbd_reply_put_simple(uint8_t wire[static NBD_REPLY_SIMPLE_BYTES],
	uint64_t cookie, uint32_t error)
{
	nbd_put_be32(wire, NBD_SIMPLE_REPLY_MAGIC);
	nbd_put_be32(wire + 4, error);
	nbd_put_be64(wire + 8, cookie);
	return NBD_REPLY_SIMPLE_BYTES;
}

/* What the header of a chunk will have. */
static inline size_t
nbd_reply_chunk_bytes(const struct nbd_request *request)
{
	return request->extended ? NBD_REPLY_EXTENDED_BYTES :
		NBD_REPLY_CHUNK_BYTES;
}

/* The header of any chunk; the functions below call it. */
static inline size_t
nbd_reply_put_chunk(uint8_t *wire,
	const struct nbd_request *request, uint16_t flags, uint16_t type,
	uint32_t payload_bytes)
{
	nbd_put_be16(wire + 4, flags);
	nbd_put_be16(wire + 6, type);
	nbd_put_be64(wire + 8, request->cookie);
	if (!request->extended) {
		nbd_put_be32(wire, NBD_STRUCTURED_REPLY_MAGIC);
		nbd_put_be32(wire + 16, payload_bytes);
		return NBD_REPLY_CHUNK_BYTES;
	}
	nbd_put_be32(wire, NBD_EXTENDED_REPLY_MAGIC);
	nbd_put_be64(wire + 16, request->offset);
	nbd_put_be64(wire + 24, payload_bytes);
	return NBD_REPLY_EXTENDED_BYTES;
}

/* The end of a reply, and success unless an error chunk came before. */
static inline size_t
nbd_reply_put_none(uint8_t *wire,
	const struct nbd_request *request)
{
	return nbd_reply_put_chunk(wire, request, NBD_REPLY_FLAG_DONE,
		NBD_REPLY_TYPE_NONE, 0);
}

/* The header before data_bytes of data, which must not be 0. */
static inline size_t
nbd_reply_put_data(uint8_t *wire,
	const struct nbd_request *request, uint16_t flags, uint64_t offset,
	uint32_t data_bytes)
{
	size_t bytes;

	assert(data_bytes > 0 && data_bytes <= NBD_PAYLOAD_BYTES_MAX);
	bytes = nbd_reply_put_chunk(wire, request, flags,
		NBD_REPLY_TYPE_OFFSET_DATA,
		NBD_REPLY_DATA_FIXED_BYTES + data_bytes);
	nbd_put_be64(wire + bytes, offset);
	return bytes + NBD_REPLY_DATA_FIXED_BYTES;
}

/* hole_bytes from offset read as zeros; it must not be 0. */
size_t nbd_reply_put_hole(uint8_t *wire,
	const struct nbd_request *request, uint16_t flags, uint64_t offset,
	uint32_t hole_bytes);

/* Of one extent, in the list of a chunk. */
static inline size_t
nbd_reply_extent_bytes(const struct nbd_request *request)
{
	return request->extended ? 16 : 8;
}

/* What stands in front of that list: the header and the fixed part. */
static inline size_t
nbd_reply_status_bytes(const struct nbd_request *request)
{
	return nbd_reply_chunk_bytes(request) + (request->extended ?
		NBD_REPLY_STATUS_EXT_FIXED_BYTES :
		NBD_REPLY_STATUS_FIXED_BYTES);
}

/*
 * The beginning of a list of extents: 1 to NBD_EXTENTS_MAX of them, each
 * written by nbd_reply_put_extent(), before or after this.
 */
size_t nbd_reply_put_status(uint8_t *wire,
	const struct nbd_request *request, uint16_t flags,
	uint32_t context_id, uint32_t extent_count);
size_t nbd_reply_put_extent(uint8_t *wire, const struct nbd_request *request,
	const struct nbd_extent *extent);

/* error is of enum nbd_error and not NBD_SUCCESS. */
size_t nbd_reply_put_error(uint8_t *wire, const struct nbd_request *request,
	uint16_t flags, uint32_t error, const char *message);

/* The same, where it is known which byte of the request it met. */
size_t nbd_reply_put_error_offset(uint8_t *wire,
	const struct nbd_request *request, uint16_t flags, uint32_t error,
	const char *message, uint64_t offset);

/* Client. */

struct nbd_reply {
	uint64_t cookie;
	uint64_t offset;	/* of the request; 0 if it is not extended */
	uint32_t error;	/* of a simple reply; chunks carry it as payload */
	uint32_t payload_bytes;	/* of a chunk; 0 in a simple reply */
	uint16_t flags;	/* of a chunk; a simple reply is always DONE */
	uint16_t type;	/* of a chunk; NONE in a simple reply */
	bool structured;	/* a chunk, extended or not */
	bool extended;
};

struct nbd_reply_hole {
	uint64_t offset;
	uint32_t bytes;
};

struct nbd_reply_error {
	uint32_t error;	/* not NBD_SUCCESS */
	struct nbd_text message;	/* may be empty */
	bool has_offset;
	uint64_t offset;	/* 0 unless has_offset */
};

struct nbd_reply_status {
	uint32_t context_id;
	uint32_t extent_count;	/* at least 1 */
	const uint8_t *extents;	/* for nbd_reply_extent() */
	bool extended;	/* so are they */
};

/* 16, 20 or 32; -EBADMSG if these four bytes do not begin a reply. */
int nbd_reply_header_bytes(const uint8_t wire[static 4]);

/*
 * Reads so many bytes.  -EBADMSG if this is no reply, or a chunk of unknown
 * type that is not an error, or one whose length its type does not allow;
 * -EMSGSIZE if the payload is longer than we would ever ask for.
 */
int nbd_reply_parse(const uint8_t *wire, struct nbd_reply *reply);

static inline bool
nbd_reply_is_error(const struct nbd_reply *reply)
{
	return reply->error || reply->type & NBD_REPLY_TYPE_FLAG_ERROR;
}

/* Of OFFSET_DATA: where the payload after these 8 bytes belongs. */
static inline uint64_t
nbd_reply_parse_data(const uint8_t payload[static 8])
{
	return nbd_get_be64(payload);
}

/* Each: -EBADMSG if the payload breaks a rule of its type. */
int nbd_reply_parse_hole(const uint8_t payload[static 12],
	struct nbd_reply_hole *hole);
int nbd_reply_parse_status(const struct nbd_reply *reply,
	const uint8_t *payload, struct nbd_reply_status *status);
/* For every type of error chunk, also those that we do not know. */
int nbd_reply_parse_error(const struct nbd_reply *reply,
	const uint8_t *payload, struct nbd_reply_error *error);

/* One extent of many; index is less than extent_count. */
struct nbd_extent nbd_reply_extent(const struct nbd_reply_status *status,
	uint32_t index);
#endif
