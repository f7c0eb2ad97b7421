/* SPDX-License-Identifier: MIT */
/*
 * The content of a file in memory: sparse, and cheap to copy.
 *
 * A radix tree of pages whose nodes are shared between copies until one of
 * them changes (nodes and pages count their references).  Each keeps the hash
 * of what is below it, so the hash of a copy costs what was changed in it.
 *
 * Part of the simulation.  One thread only; out of memory ends the process.
 */
#ifndef RUNTIME_PAGES_H
#define RUNTIME_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096u

/* Where offsets end. */
#define PAGES_BYTES_MAX (UINT64_C(1) << 48)

struct page_counted;

/* All zeros is an empty one whose holes read as zeros. */
struct pages {
	struct page_counted *root;
	uint64_t allocated;	/* pages that are not holes */
	uint8_t fill;		/* what holes read as; set once, when empty */
};

void pages_copy(struct pages *target, const struct pages *source);
void pages_free(struct pages *pages);

void pages_read(const struct pages *pages, void *data, size_t length,
    uint64_t offset);
void pages_write(struct pages *pages, const void *data, size_t length,
    uint64_t offset);

/* Makes zeros; with keep, whole pages stay allocated and holes become so. */
void pages_zero(struct pages *pages, uint64_t offset, uint64_t length,
    bool keep);

/* Makes holes into pages of zeros (of fill), what is there stays. */
void pages_allocate(struct pages *pages, uint64_t offset, uint64_t length);

/* How many pages of the range are holes. */
uint64_t pages_holes(const struct pages *pages, uint64_t offset,
    uint64_t length);

/* The first byte at or after offset in a page (or hole), or UINT64_MAX. */
uint64_t pages_seek(const struct pages *pages, uint64_t offset, bool data);

/* Equal content has an equal hash; holes are like what they read as. */
uint64_t pages_hash(const struct pages *pages);

#endif
