/* SPDX-License-Identifier: MIT */
#include "server/cells.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int
cells_init(struct cells *cells, uint64_t total_bytes, uint64_t unit_bytes,
    unsigned kinds)
{
	assert(kinds <= CELLS_KINDS_MAX);
	*cells = (struct cells){
		.total_bytes = total_bytes, .cell_bytes = unit_bytes,
		.kinds = kinds,
	};
	while (total_bytes / cells->cell_bytes >= CELLS_MAX)
		cells->cell_bytes *= 2;
	cells->count = (unsigned)(total_bytes / cells->cell_bytes +
	    (total_bytes % cells->cell_bytes != 0));
	cells->bytes = calloc((size_t)cells->count * kinds + 1,
	    sizeof(*cells->bytes));
	return cells->bytes ? 0 : -ENOMEM;
}

void
cells_add(struct cells *cells, unsigned kind, uint64_t start, uint64_t bytes)
{
	assert(kind < cells->kinds);
	if (start >= cells->total_bytes)
		return;
	if (bytes > cells->total_bytes - start)
		bytes = cells->total_bytes - start;
	cells->sums[kind] += bytes;
	while (bytes > 0) {
		uint64_t cell = start / cells->cell_bytes;
		uint64_t part = (cell + 1) * cells->cell_bytes - start;

		if (part > bytes)
			part = bytes;
		cells->bytes[cell * cells->kinds + kind] += part;
		start += part;
		bytes -= part;
	}
}

void
cells_free(struct cells *cells)
{
	free(cells->bytes);
	cells->bytes = NULL;
}
