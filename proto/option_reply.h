/* SPDX-License-Identifier: MIT */
/*
 * Replies to options: a header of 20 bytes, and data.
 *
 * Server: nbd_option_reply_put_x() write header and data to wire and return
 * the bytes written; option is the type of the option that is answered.  Any
 * one reply fits in NBD_OPTION_REPLY_BYTES_MAX.  Names come from the option
 * parser or the configuration, both of which keep them within the limit.
 * Texts for people are cut to it, so an error may quote what the client sent.
 *
 * Client: read the header, then exactly data_bytes, and hand these to the
 * parser for the type.  The data of an error reply is a text for people.
 * A parser that fails means a server not to be talked to any longer.
 * Nothing suspends or allocates.
 * (Specification: "Fixed newstyle negotiation", "Option reply types".)
 */
#ifndef PROTO_OPTION_REPLY_H
#define PROTO_OPTION_REPLY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/nbd.h"
#include "proto/text.h"

#define NBD_OPTION_REPLY_HEADER_BYTES 20
#define NBD_OPTION_REPLY_DATA_BYTES_MAX (4 + 2 * NBD_NAME_BYTES_MAX)
#define NBD_OPTION_REPLY_BYTES_MAX \
	(NBD_OPTION_REPLY_HEADER_BYTES + NBD_OPTION_REPLY_DATA_BYTES_MAX)

/* The size constraints an export puts on requests, in bytes. */
struct nbd_block_size {
	uint32_t minimum;	/* power of 2, 65536 at most */
	uint32_t preferred;	/* power of 2, at least 512 and the minimum */
	uint32_t payload_max;	/* at least the preferred */
};

/* Server. */

size_t nbd_option_reply_put_ack(
	uint8_t wire[static NBD_OPTION_REPLY_HEADER_BYTES], uint32_t option);

/* One export of LIST; description may be NULL. */
size_t nbd_option_reply_put_server(uint8_t *wire, struct nbd_text name,
	const char *description);

size_t nbd_option_reply_put_info_export(uint8_t *wire, uint32_t option,
	uint64_t export_bytes, uint16_t transmission_flags);
size_t nbd_option_reply_put_info_name(uint8_t *wire, uint32_t option,
	struct nbd_text name);
size_t nbd_option_reply_put_info_description(uint8_t *wire, uint32_t option,
	const char *description);
size_t nbd_option_reply_put_info_block_size(uint8_t *wire, uint32_t option,
	const struct nbd_block_size *size);

/* id is 0 in the replies to LIST_META_CONTEXT. */
size_t nbd_option_reply_put_meta_context(uint8_t *wire, uint32_t option,
	uint32_t id, struct nbd_text name);

/* error is one of NBD_REP_ERR_; message may be NULL, and of any length. */
size_t nbd_option_reply_put_error(uint8_t *wire, uint32_t option,
	uint32_t error, const char *message);

/* Client. */

struct nbd_option_reply {
	uint32_t option;	/* of the option that is answered */
	uint32_t type;	/* NBD_REP_ */
	uint32_t data_bytes;	/* NBD_OPTION_REPLY_DATA_BYTES_MAX at most */
};

/* One fact about the export.  Only what belongs to type is set. */
struct nbd_info {
	uint16_t type;	/* enum nbd_info_type; if unknown, pass over it */
	uint16_t transmission_flags;	/* NBD_INFO_EXPORT */
	uint64_t export_bytes;	/* NBD_INFO_EXPORT */
	struct nbd_block_size block_size;	/* NBD_INFO_BLOCK_SIZE */
	struct nbd_text text;	/* NBD_INFO_NAME, NBD_INFO_DESCRIPTION */
};

/* -EBADMSG if this is no reply, -EMSGSIZE if its data is longer than any. */
int nbd_option_reply_parse(
	const uint8_t wire[static NBD_OPTION_REPLY_HEADER_BYTES],
	struct nbd_option_reply *reply);

static inline bool
nbd_option_reply_is_error(const struct nbd_option_reply *reply)
{
	return reply->type & NBD_REP_FLAG_ERROR;
}

/* Each: -EINVAL if the data is not what the specification says. */
int nbd_option_reply_parse_server(const uint8_t *data, size_t data_bytes,
	struct nbd_text *name, struct nbd_text *description);
int nbd_option_reply_parse_info(const uint8_t *data, size_t data_bytes,
	struct nbd_info *info);
int nbd_option_reply_parse_meta_context(const uint8_t *data,
	size_t data_bytes, uint32_t *id, struct nbd_text *name);

/* For logs: "ERR_UNKNOWN", or "unknown". */
const char *nbd_option_reply_name(uint32_t type);
#endif
