/* SPDX-License-Identifier: MIT */
/*
 * A long range in few cells: how many bytes of each kind every cell has.
 */
#ifndef SERVER_CELLS_H
#define SERVER_CELLS_H

#include <stdint.h>

#define CELLS_MAX 2560u
#define CELLS_KINDS_MAX 16u

struct cells {
	uint64_t total_bytes;	/* of the range */
	uint64_t cell_bytes;	/* of each, the last one may have less */
	unsigned count;
	unsigned kinds;		/* of bytes; 0 to kinds - 1 */
	uint64_t *bytes;	/* see cells_bytes() */
	uint64_t sums[CELLS_KINDS_MAX];	/* of all cells */
};

/*
 * Divides total_bytes into CELLS_MAX cells or fewer, which have a power of two
 * times unit_bytes.  -ENOMEM.
 */
int cells_init(struct cells *cells, uint64_t total_bytes,
    uint64_t unit_bytes, unsigned kinds);

/* Counts bytes from start on; what lies behind the range is left out. */
void cells_add(struct cells *cells, unsigned kind, uint64_t start,
    uint64_t bytes);

static inline uint64_t
cells_bytes(const struct cells *cells, unsigned cell, unsigned kind)
{
	return cells->bytes[cell * cells->kinds + kind];
}

/* All zeros is fine. */
void cells_free(struct cells *cells);

#endif
