/* SPDX-License-Identifier: MIT */
#include "qcow2/l1.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/internal.h"

int
l1_take_place(struct image *image, uint32_t entries, uint64_t *hostp)
{
	uint64_t bytes = (uint64_t)entries * ENTRY_BYTES;
	uint64_t clusters = table_clusters(image, bytes);
	int err = alloc_table(image, clusters, hostp);

	if (err)
		return err;
	err = metadata_add_range(&image->metadata, METADATA_L1, *hostp, bytes);
	if (err)
		alloc_give_back(image, *hostp, clusters);
	return err;
}

int
l1_grow(struct image *image, uint32_t entries)
{
	uint64_t *l1 = calloc((size_t)entries + 1, ENTRY_BYTES);
	uint64_t host;
	int err;

	assert(entries > image->l1_entries);
	if (!l1)
		return -ENOMEM;
	err = l1_take_place(image, entries, &host);
	if (err) {
		free(l1);
		return err;
	}
	gate_close(image);
	memcpy(l1, image->l1, (size_t)image->l1_entries * ENTRY_BYTES);
	free(image->l1);
	image->l1 = l1;
	image->l1_entries = entries;
	image->moves.l1 = (struct move){
		.wanted = true, .host = host, .count = entries,
	};
	gate_open(image);
	return barrier_flush(image);
}
