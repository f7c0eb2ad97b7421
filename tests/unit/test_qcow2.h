/* SPDX-License-Identifier: MIT */
/*
 * What the unit tests of the modules around the qcow2 engine share: a header
 * cluster that is right in every field, to be made wrong in one.
 */
#ifndef TESTS_UNIT_TEST_QCOW2_H
#define TESTS_UNIT_TEST_QCOW2_H
#include <stddef.h>
#include <stdint.h>

/* The cluster size, and the length of the file that the header belongs to. */
#define MADE_CLUSTER_BYTES	4096u
#define MADE_FILE_BYTES		(16u * MADE_CLUSTER_BYTES)

/* Where its tables are: one cluster each. */
#define MADE_REFCOUNT_TABLE	(1u * MADE_CLUSTER_BYTES)
#define MADE_L1			(2u * MADE_CLUSTER_BYTES)
#define MADE_SNAPSHOTS		(3u * MADE_CLUSTER_BYTES)
#define MADE_BITMAPS		(4u * MADE_CLUSTER_BYTES)

/*
 * Writes the header of an image of 8 MiB, with an L1 table of 4 entries and
 * nothing else; version 3 with 112 bytes of header.  Returns where extensions
 * begin.
 */
size_t make_header(uint8_t cluster[MADE_CLUSTER_BYTES], unsigned version);

/* Writes an extension at offset and returns where the next one begins. */
size_t make_extension(uint8_t *cluster, size_t offset, uint32_t type,
    const void *data, uint32_t bytes);

/*
 * Writes a file of bytes bytes of data and zeros up to file_bytes, opens it,
 * and runs fn(file) on it as a coroutine of a loop of its own.
 */
void with_file(const void *data, size_t bytes, size_t file_bytes,
    void (*fn)(void *file));

/* Writes name at the end of the cluster, as the backing file. */
void make_backing(uint8_t cluster[MADE_CLUSTER_BYTES], const char *name);

#endif
