/* SPDX-License-Identifier: MIT */
/*
 * Numbers of the file: big-endian, at any address.
 */
#ifndef QCOW2_BYTES_H
#define QCOW2_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t
bytes_get16(const void *data)
{
	uint16_t value;

	memcpy(&value, data, sizeof(value));
	return be16toh(value);
}

static inline uint32_t
bytes_get32(const void *data)
{
	uint32_t value;

	memcpy(&value, data, sizeof(value));
	return be32toh(value);
}

static inline uint64_t
bytes_get64(const void *data)
{
	uint64_t value;

	memcpy(&value, data, sizeof(value));
	return be64toh(value);
}

static inline void
bytes_put16(void *target, uint16_t value)
{
	value = htobe16(value);
	memcpy(target, &value, sizeof(value));
}

static inline void
bytes_put32(void *target, uint32_t value)
{
	value = htobe32(value);
	memcpy(target, &value, sizeof(value));
}

static inline void
bytes_put64(void *target, uint64_t value)
{
	value = htobe64(value);
	memcpy(target, &value, sizeof(value));
}

#endif
