/* SPDX-License-Identifier: MIT */
#include "proto/handshake.h"

#include <errno.h>
#include <string.h>

#include "proto/nbd.h"
#include "proto/wire.h"

size_t
nbd_handshake_put_greeting(uint8_t wire[static NBD_GREETING_BYTES],
	uint16_t flags)
{
	nbd_put_be64(wire, NBD_INIT_MAGIC);
	nbd_put_be64(wire + 8, NBD_OPTION_MAGIC);
	nbd_put_be16(wire + 16, flags);
	return NBD_GREETING_BYTES;
}

int
nbd_handshake_parse_greeting(const uint8_t wire[static NBD_GREETING_BYTES],
	uint16_t *flags)
{
	if (nbd_get_be64(wire) != NBD_INIT_MAGIC)
		return -EBADMSG;
	if (nbd_get_be64(wire + 8) != NBD_OPTION_MAGIC)
		return -EBADMSG;
	*flags = nbd_get_be16(wire + 16);
	return 0;
}

size_t
nbd_handshake_put_client_flags(uint8_t wire[static NBD_CLIENT_FLAGS_BYTES],
	uint32_t flags)
{
	nbd_put_be32(wire, flags);
	return NBD_CLIENT_FLAGS_BYTES;
}

int
nbd_handshake_parse_client_flags(
	const uint8_t wire[static NBD_CLIENT_FLAGS_BYTES], uint16_t offered,
	uint32_t *flags)
{
	uint32_t chosen = nbd_get_be32(wire);

	if (chosen & ~(uint32_t)offered)
		return -EINVAL;
	*flags = chosen;
	return 0;
}

size_t
nbd_handshake_put_export(uint8_t *wire, uint64_t export_bytes,
	uint16_t transmission_flags, bool no_zeroes)
{
	nbd_put_be64(wire, export_bytes);
	nbd_put_be16(wire + 8, transmission_flags);
	if (no_zeroes)
		return NBD_EXPORT_BYTES;
	memset(wire + NBD_EXPORT_BYTES, 0,
		NBD_EXPORT_BYTES_MAX - NBD_EXPORT_BYTES);
	return NBD_EXPORT_BYTES_MAX;
}

void
nbd_handshake_parse_export(const uint8_t wire[static NBD_EXPORT_BYTES],
	uint64_t *export_bytes, uint16_t *transmission_flags)
{
	*export_bytes = nbd_get_be64(wire);
	*transmission_flags = nbd_get_be16(wire + 8);
}
