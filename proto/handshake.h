/* SPDX-License-Identifier: MIT */
/*
 * The fixed parts of the fixed newstyle handshake: the server's greeting, the
 * client's flags, and the one answer that is not an option reply.
 *
 * server: greeting (18 bytes); client: flags (4 bytes); then options, see
 * option.h, until EXPORT_NAME or a successful GO.  Each nbd_handshake_put_x()
 * writes to wire and returns the bytes written; each nbd_handshake_parse_x()
 * reads the fixed number of bytes stated.  Nothing suspends or allocates.
 * (Specification: "Newstyle negotiation", "Flag fields".)
 */
#ifndef PROTO_HANDSHAKE_H
#define PROTO_HANDSHAKE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBD_GREETING_BYTES 18
#define NBD_CLIENT_FLAGS_BYTES 4
#define NBD_EXPORT_BYTES 10	/* without the zeroes */
#define NBD_EXPORT_BYTES_MAX 134	/* with 124 zeroes behind */

size_t nbd_handshake_put_greeting(uint8_t wire[static NBD_GREETING_BYTES],
	uint16_t flags);

/* -EBADMSG if this is no NBD server, or one of the old style. */
int nbd_handshake_parse_greeting(
	const uint8_t wire[static NBD_GREETING_BYTES], uint16_t *flags);

size_t nbd_handshake_put_client_flags(
	uint8_t wire[static NBD_CLIENT_FLAGS_BYTES], uint32_t flags);

/*
 * The flags of the client.  -EINVAL if one is unknown or was not among the
 * handshake flags we offered: the connection must be closed, without a word.
 */
int nbd_handshake_parse_client_flags(
	const uint8_t wire[static NBD_CLIENT_FLAGS_BYTES], uint16_t offered,
	uint32_t *flags);

/*
 * The answer to EXPORT_NAME.  no_zeroes says whether the client's flags held
 * NBD_FLAG_NO_ZEROES; otherwise the 124 zeroes follow, and wire must hold
 * NBD_EXPORT_BYTES_MAX.  Never used for GO.
 */
size_t nbd_handshake_put_export(uint8_t *wire, uint64_t export_bytes,
	uint16_t transmission_flags, bool no_zeroes);

void nbd_handshake_parse_export(const uint8_t wire[static NBD_EXPORT_BYTES],
	uint64_t *export_bytes, uint16_t *transmission_flags);
#endif
