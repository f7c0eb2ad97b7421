/* SPDX-License-Identifier: MIT */
#include "qcow2/retired.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/internal.h"

int
retired_make_room(struct image *image, size_t count)
{
	struct retired *retired = &image->retired;
	size_t room = retired->room ? retired->room : 16;
	struct retired_table *list;

	while (room < retired->count + retired->reserved + count)
		room *= 2;
	if (room == retired->room)
		return 0;
	list = realloc(retired->list, room * sizeof(*list));
	if (!list)
		return -ENOMEM;
	retired->list = list;
	retired->room = room;
	return 0;
}

void
retired_add(struct image *image, uint32_t index, uint64_t host)
{
	struct retired *retired = &image->retired;

	assert(retired->count < retired->room);
	retired->list[retired->count++] = (struct retired_table){
		.index = index, .host = host, .cut = image->barrier.cuts + 1,
	};
}

/* By the disk, or by what the disk is about to become. */
static bool
is_in_use(const struct image *image, const struct retired_table *table)
{
	if (image->adopted && table->index < image->adopted_entries &&
	    entry_host(image->adopted[table->index]) == table->host)
		return true;
	return table->index < image->l1_entries &&
	    entry_host(image->l1[table->index]) == table->host;
}

void
retired_forget(struct image *image)
{
	struct retired *retired = &image->retired;
	size_t done = 0;

	while (done < retired->count &&
	    retired->list[done].cut <= image->barrier.stable_cut) {
		const struct retired_table *table = &retired->list[done++];

		if (!is_in_use(image, table) && metadata_is(&image->metadata,
		    METADATA_L2, table->host, image->cluster_bytes))
			metadata_remove_cluster(&image->metadata,
			    table->host);
	}
	retired->count -= done;
	if (retired->count > 0)
		memmove(retired->list, retired->list + done,
		    retired->count * sizeof(*retired->list));
}

void
retired_free(struct retired *retired)
{
	free(retired->list);
	retired->list = NULL;
}
