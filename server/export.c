/* SPDX-License-Identifier: MIT */
#include "server/export.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "proto/nbd.h"
#include "qcow2/image.h"
#include "runtime/log.h"
#include "server/context.h"

/* Of a name in the log; a longer one is cut. */
#define NAME_TEXT_BYTES 256

static uint16_t
transmission_flags(const struct image *image)
{
	uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH |
	    NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;

	if (!image_writable(image))
		return flags | NBD_FLAG_READ_ONLY;
	return flags | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
	    NBD_FLAG_SEND_FAST_ZERO;
}

/* The cluster, below which a write may cost copying its neighbours. */
static uint32_t
preferred_block_bytes(const struct image *image)
{
	uint32_t bytes = image_cluster_bytes(image);

	if (bytes < EXPORT_BLOCK_BYTES_MIN)
		return EXPORT_BLOCK_BYTES_MIN;
	if (bytes > EXPORT_BLOCK_BYTES_MAX)
		return EXPORT_BLOCK_BYTES_MAX;
	return bytes;
}

static void
export_free(struct export *export)
{
	free(export->name);
	free(export->description);
	free(export);
}

int
export_add(struct export_table *table, const char *name,
    const char *description, struct image *image)
{
	struct export **list;
	struct export *export;

	if (strlen(name) > NBD_NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	if (table->count == EXPORTS_MAX)
		return -E2BIG;
	for (unsigned i = 0; i < table->count; i++)
		if (!strcmp(table->list[i]->name, name))
			return -EEXIST;
	list = realloc(table->list, (table->count + 1) * sizeof(*list));
	if (!list)
		return -ENOMEM;
	table->list = list;
	export = calloc(1, sizeof(*export));
	if (!export)
		return -ENOMEM;
	export->name = strdup(name);
	export->description = description ? strdup(description) : NULL;
	if (!export->name || (description && !export->description)) {
		export_free(export);
		return -ENOMEM;
	}
	export->image = image;
	atomic_init(&export->size_bytes, image_size_bytes(image));
	export->contexts = context_standard(&export->contexts_count);
	export->flags = transmission_flags(image);
	export->block_size = (struct nbd_block_size){
		.minimum = 1,
		.preferred = preferred_block_bytes(image),
		.payload_max = NBD_PAYLOAD_BYTES_MAX,
	};
	table->list[table->count++] = export;
	return 0;
}

void
export_allow_resize(struct export_table *table)
{
	for (unsigned i = 0; i < table->count; i++)
		if (image_writable(table->list[i]->image))
			table->list[i]->flags |= NBD_FLAG_SEND_RESIZE;
}

struct export *
export_find(const struct export_table *table, struct nbd_text name)
{
	for (unsigned i = 0; i < table->count; i++)
		if (nbd_text_equal(name, table->list[i]->name))
			return table->list[i];
	if (name.bytes == 0 && table->count == 1)
		return table->list[0];
	return NULL;
}

bool
export_enter(struct export *export, unsigned connections_max)
{
	unsigned before = atomic_fetch_add(&export->connections, 1);

	if (connections_max == 0 || before < connections_max)
		return true;
	atomic_fetch_sub(&export->connections, 1);
	return false;
}

static const char *
quote_name(const struct export *export, char name[NAME_TEXT_BYTES])
{
	return log_quote(name, NAME_TEXT_BYTES, export->name,
	    (int)strlen(export->name));
}

void
export_leave(struct export *export)
{
	char name[NAME_TEXT_BYTES];
	int err;

	if (atomic_fetch_sub(&export->connections, 1) != 1)
		return;
	if (!image_writable(export->image))
		return;
	err = image_flush(export->image);
	if (err)
		log_error("what the last client wrote could not be made "
		    "stable export=\"%s\" error=%s", quote_name(export, name),
		    strerror(-err));
}

int
export_close_all(struct export_table *table)
{
	int first_err = 0;

	for (unsigned i = 0; i < table->count; i++) {
		struct export *export = table->list[i];
		int err = image_close(export->image);
		char name[NAME_TEXT_BYTES];

		if (err)
			log_error("closing failed export=\"%s\" error=%s",
			    quote_name(export, name), strerror(-err));
		if (err && !first_err)
			first_err = err;
		export_free(export);
	}
	free(table->list);
	*table = (struct export_table){0};
	return first_err;
}
