/* SPDX-License-Identifier: MIT */
/*
 * Integers of the wire: big-endian, at any alignment.
 *
 * Everything in proto/ reads and writes the network's bytes through these.
 * They compile to one load or store and one byte swap.
 */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H
#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t
nbd_get_be16(const uint8_t wire[static 2])
{
	uint16_t value;

	memcpy(&value, wire, sizeof(value));
	return be16toh(value);
}

static inline uint32_t
nbd_get_be32(const uint8_t wire[static 4])
{
	uint32_t value;

	memcpy(&value, wire, sizeof(value));
	return be32toh(value);
}

static inline uint64_t
nbd_get_be64(const uint8_t wire[static 8])
{
	uint64_t value;

	memcpy(&value, wire, sizeof(value));
	return be64toh(value);
}

static inline void
nbd_put_be16(uint8_t wire[static 2], uint16_t value)
{
	value = htobe16(value);
	memcpy(wire, &value, sizeof(value));
}

static inline void
nbd_put_be32(uint8_t wire[static 4], uint32_t value)
{
	value = htobe32(value);
	memcpy(wire, &value, sizeof(value));
}

static inline void
nbd_put_be64(uint8_t wire[static 8], uint64_t value)
{
	value = htobe64(value);
	memcpy(wire, &value, sizeof(value));
}
#endif
