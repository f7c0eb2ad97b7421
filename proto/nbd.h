/* SPDX-License-Identifier: MIT */
/*
 * The numbers of the NBD protocol, and the limits this program sets.
 *
 * Names are those of the specification (doc/proto.md of the NBD project,
 * section "Values"), so that either text can be searched for the other's.
 */
#ifndef PROTO_NBD_H
#define PROTO_NBD_H
#include <stdint.h>

/* Magic numbers. */
#define NBD_INIT_MAGIC UINT64_C(0x4e42444d41474943)	/* "NBDMAGIC" */
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454f5054)	/* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)
#define NBD_REQUEST_MAGIC UINT32_C(0x25609513)
#define NBD_SIMPLE_REPLY_MAGIC UINT32_C(0x67446698)
#define NBD_STRUCTURED_REPLY_MAGIC UINT32_C(0x668e33ef)
#define NBD_EXTENDED_REQUEST_MAGIC UINT32_C(0x21e41c71)
#define NBD_EXTENDED_REPLY_MAGIC UINT32_C(0x6e8a278c)

/* Limits of the protocol. */
#define NBD_NAME_BYTES_MAX 4096	/* any string: names, queries, texts */
#define NBD_BLOCK_MINIMUM_BYTES_MAX 65536	/* to be advertised */
#define NBD_BLOCK_PREFERRED_BYTES_MIN 512	/* to be advertised */
#define NBD_EXTENTS_MAX (1u << 20)	/* in one block status chunk */

/* Limits of ours. */
#define NBD_PAYLOAD_BYTES_MAX (32u << 20)	/* of one read or write */
#define NBD_OPTION_BYTES_MAX (64u << 10)	/* data of one option */
#define NBD_CONTEXTS_MAX 64	/* metadata contexts of one export */

/* Handshake flags (server) and client flags: the same two bits. */
#define NBD_FLAG_FIXED_NEWSTYLE (1u << 0)	/* options get replies */
#define NBD_FLAG_NO_ZEROES (1u << 1)	/* no padding after EXPORT_NAME */

/* Transmission flags: what the server offers for one export. */
#define NBD_FLAG_HAS_FLAGS (1u << 0)	/* always set */
#define NBD_FLAG_READ_ONLY (1u << 1)
#define NBD_FLAG_SEND_FLUSH (1u << 2)
#define NBD_FLAG_SEND_FUA (1u << 3)
#define NBD_FLAG_ROTATIONAL (1u << 4)
#define NBD_FLAG_SEND_TRIM (1u << 5)
#define NBD_FLAG_SEND_WRITE_ZEROES (1u << 6)
#define NBD_FLAG_SEND_DF (1u << 7)	/* exactly where there are chunks */
#define NBD_FLAG_CAN_MULTI_CONN (1u << 8)	/* flush covers connections */
#define NBD_FLAG_SEND_RESIZE (1u << 9)	/* a draft */
#define NBD_FLAG_SEND_CACHE (1u << 10)
#define NBD_FLAG_SEND_FAST_ZERO (1u << 11)
#define NBD_FLAG_BLOCK_STATUS_PAYLOAD (1u << 12)	/* extended only */

/* Options: what a client may ask for before transmission. */
enum nbd_option_type {
	NBD_OPT_EXPORT_NAME = 1,	/* enter transmission; cannot fail */
	NBD_OPT_ABORT = 2,	/* ACK, then close */
	NBD_OPT_LIST = 3,	/* names of the exports */
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,	/* as GO, but stay in negotiation */
	NBD_OPT_GO = 7,	/* enter transmission, or get an error */
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
	NBD_OPT_EXTENDED_HEADERS = 11,
};

/* Replies to options; those with bit 31 set are errors. */
#define NBD_REP_ACK UINT32_C(1)	/* done, no data */
#define NBD_REP_SERVER UINT32_C(2)	/* one export of LIST */
#define NBD_REP_INFO UINT32_C(3)	/* one fact, of enum nbd_info_type */
#define NBD_REP_META_CONTEXT UINT32_C(4)
#define NBD_REP_FLAG_ERROR (UINT32_C(1) << 31)
#define NBD_REP_ERR_UNSUP (NBD_REP_FLAG_ERROR | 1)	/* option unknown */
#define NBD_REP_ERR_POLICY (NBD_REP_FLAG_ERROR | 2)	/* not allowed here */
#define NBD_REP_ERR_INVALID (NBD_REP_FLAG_ERROR | 3)	/* malformed */
#define NBD_REP_ERR_PLATFORM (NBD_REP_FLAG_ERROR | 4)	/* not built in */
#define NBD_REP_ERR_TLS_REQD (NBD_REP_FLAG_ERROR | 5)
#define NBD_REP_ERR_UNKNOWN (NBD_REP_FLAG_ERROR | 6)	/* no such export */
#define NBD_REP_ERR_SHUTDOWN (NBD_REP_FLAG_ERROR | 7)
#define NBD_REP_ERR_BLOCK_SIZE_REQD (NBD_REP_FLAG_ERROR | 8)
#define NBD_REP_ERR_TOO_BIG (NBD_REP_FLAG_ERROR | 9)
#define NBD_REP_ERR_EXT_HEADER_REQD (NBD_REP_FLAG_ERROR | 10)

/* Facts about an export, in the data of INFO, GO and NBD_REP_INFO. */
enum nbd_info_type {
	NBD_INFO_EXPORT = 0,	/* size and transmission flags; always sent */
	NBD_INFO_NAME = 1,	/* the canonical name */
	NBD_INFO_DESCRIPTION = 2,	/* for people */
	NBD_INFO_BLOCK_SIZE = 3,	/* minimum, preferred, payload max */
};

/* Commands: the type of a request. */
enum nbd_command {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,	/* no reply; serve what is out, then close */
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
	NBD_CMD_RESIZE = 8,	/* a draft: offset is the new size */
};

/* Command flags. */
#define NBD_CMD_FLAG_FUA (1u << 0)	/* stable before the reply; any cmd */
#define NBD_CMD_FLAG_NO_HOLE (1u << 1)	/* WRITE_ZEROES: keep it allocated */
#define NBD_CMD_FLAG_DF (1u << 2)	/* READ: one content chunk */
#define NBD_CMD_FLAG_REQ_ONE (1u << 3)	/* BLOCK_STATUS: one extent */
#define NBD_CMD_FLAG_FAST_ZERO (1u << 4)	/* WRITE_ZEROES: fast or fail */
#define NBD_CMD_FLAG_PAYLOAD_LEN (1u << 5)	/* length is a payload's */

/* Chunks of structured and extended replies; those with bit 15 are errors. */
#define NBD_REPLY_FLAG_DONE (1u << 0)	/* the last chunk of this reply */
#define NBD_REPLY_TYPE_FLAG_ERROR (1u << 15)
enum nbd_reply_type {
	NBD_REPLY_TYPE_NONE = 0,	/* only to carry DONE */
	NBD_REPLY_TYPE_OFFSET_DATA = 1,
	NBD_REPLY_TYPE_OFFSET_HOLE = 2,
	NBD_REPLY_TYPE_BLOCK_STATUS = 5,	/* structured only */
	NBD_REPLY_TYPE_BLOCK_STATUS_EXT = 6,	/* extended only */
	NBD_REPLY_TYPE_ERROR = NBD_REPLY_TYPE_FLAG_ERROR | 1,
	NBD_REPLY_TYPE_ERROR_OFFSET = NBD_REPLY_TYPE_FLAG_ERROR | 2,
};

/* Errors of a request. */
enum nbd_error {
	NBD_SUCCESS = 0,
	NBD_EPERM = 1,	/* the export is read-only, or used by others */
	NBD_EIO = 5,
	NBD_ENOMEM = 12,	/* to be received; never sent */
	NBD_EINVAL = 22,	/* the request makes no sense */
	NBD_ENOSPC = 28,	/* no room, or a write past the end */
	NBD_EOVERFLOW = 75,	/* too long; see nbd_error_from_errno() */
	NBD_ENOTSUP = 95,	/* a FAST_ZERO that would not be fast */
	NBD_ESHUTDOWN = 108,	/* the server goes down */
};

/* The one metadata context of the specification, and its states. */
#define NBD_META_CONTEXT_ALLOCATION "base:allocation"
#define NBD_STATE_HOLE (1u << 0)	/* writing here may meet ENOSPC */
#define NBD_STATE_ZERO (1u << 1)	/* reads as zeros */

/* QEMU's: 0 where no layer of a chain has data, 1 for the top, 2 below... */
#define NBD_META_CONTEXT_DEPTH "qemu:allocation-depth"
#endif
