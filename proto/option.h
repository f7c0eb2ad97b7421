/* SPDX-License-Identifier: MIT */
/*
 * Options: what the client asks for during the handshake.
 *
 * An option is a header of 16 bytes and as many bytes of data as the header
 * says.  The server reads the header, then exactly that many bytes, then
 * hands both to the parser of that option.  So an error in the data leaves
 * the connection in step: answer NBD_REP_ERR_INVALID and read on.  Parsers
 * take the declared length as the only truth; every length inside is checked
 * against what is left of it, and bytes left over are an error too.
 *
 * Results point into data, which must outlive them.  Builders (for clients)
 * write header and data, return the bytes written, and want arguments within
 * the limits of nbd.h.  Nothing suspends or allocates.
 * (Specification: "Option types".)
 */
#ifndef PROTO_OPTION_H
#define PROTO_OPTION_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/nbd.h"
#include "proto/text.h"

#define NBD_OPTION_HEADER_BYTES 16

/* What the builders write at most. */
#define NBD_OPTION_EXPORT_NAME_BYTES_MAX \
	(NBD_OPTION_HEADER_BYTES + NBD_NAME_BYTES_MAX)
#define NBD_OPTION_GO_BYTES_MAX(infos) \
	(NBD_OPTION_HEADER_BYTES + 4 + NBD_NAME_BYTES_MAX + 2 + 2 * (infos))
#define NBD_OPTION_META_BYTES_MAX(queries) \
	(NBD_OPTION_HEADER_BYTES + 4 + NBD_NAME_BYTES_MAX + 4 + \
	 (queries) * (4 + NBD_NAME_BYTES_MAX))

struct nbd_option {
	uint32_t type;	/* enum nbd_option_type, or one we do not know */
	uint32_t data_bytes;	/* NBD_OPTION_BYTES_MAX at most */
};

/* The data of INFO and GO. */
struct nbd_option_go {
	struct nbd_text name;	/* empty: the default export */
	uint32_t wanted;	/* bit n: enum nbd_info_type n was asked for */
};

/* The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
struct nbd_option_meta {
	struct nbd_text name;	/* of the export */
	uint32_t queries;	/* how many nbd_option_next_query() will give */
	const uint8_t *next;	/* the cursor; private */
};

/*
 * -EBADMSG if there is no option here, -EMSGSIZE if its data is longer than
 * NBD_OPTION_BYTES_MAX: either way close the connection, it is out of step.
 */
int nbd_option_parse(const uint8_t wire[static NBD_OPTION_HEADER_BYTES],
	struct nbd_option *option);

/* -EINVAL: close the connection, as this option has no error reply. */
int nbd_option_parse_export_name(const uint8_t *data, size_t data_bytes,
	struct nbd_text *name);

/* For INFO and GO.  Facts that we do not know are not an error. */
int nbd_option_parse_go(const uint8_t *data, size_t data_bytes,
	struct nbd_option_go *go);

/*
 * For LIST_META_CONTEXT and SET_META_CONTEXT.  All queries are checked here,
 * so that walking through them cannot fail half way:
 *
 *	while (nbd_option_next_query(&meta, &query))
 */
int nbd_option_parse_meta(const uint8_t *data, size_t data_bytes,
	struct nbd_option_meta *meta);

/* The next query, or false after the last. */
bool nbd_option_next_query(struct nbd_option_meta *meta,
	struct nbd_text *query);

static inline bool
nbd_option_go_wants(const struct nbd_option_go *go, enum nbd_info_type type)
{
	return go->wanted >> type & 1;
}

/* For options without data: ABORT, LIST, STRUCTURED_REPLY. */
size_t nbd_option_put(uint8_t wire[static NBD_OPTION_HEADER_BYTES],
	uint32_t type);

size_t nbd_option_put_export_name(uint8_t *wire, struct nbd_text name);

/* type is NBD_OPT_INFO or NBD_OPT_GO; infos of enum nbd_info_type follow. */
size_t nbd_option_put_go(uint8_t *wire, uint32_t type, struct nbd_text name,
	const uint16_t *infos, uint16_t info_count);

/* type is NBD_OPT_LIST_META_CONTEXT or NBD_OPT_SET_META_CONTEXT. */
size_t nbd_option_put_meta(uint8_t *wire, uint32_t type, struct nbd_text name,
	const struct nbd_text *queries, uint32_t query_count);

/* For logs: "GO", or "unknown". */
const char *nbd_option_name(uint32_t type);
#endif
