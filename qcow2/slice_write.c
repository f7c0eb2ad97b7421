/* SPDX-License-Identifier: MIT */
#include "qcow2/slice_write.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/internal.h"
#include "runtime/worker.h"

/* Slices that go out in one write. */
#define SLICE_WRITE_MAX 64

/* Slices that are looked at before others get a turn. */
#define TURN_SLICES 512

/* More than this are sorted by a worker. */
#define SORT_INLINE_MAX 1024

static bool
is_frozen(const struct slice_cache *cache, const struct slice *slice)
{
	return slice->listed[!cache->gathering];
}

static void
mark_dirty(struct slice_cache *cache, struct slice *slice)
{
	unsigned side = cache->gathering;

	if (slice->listed[side])
		return;
	slice->listed[side] = true;
	slice->listed_next[side] = cache->lists[side][slice->kind];
	cache->lists[side][slice->kind] = slice;
	cache->dirty_count++;
}

uint8_t *
slice_modify(struct image *image, struct slice *slice)
{
	struct slice_cache *cache = &image->slices;

	assert(monitor_entered(&image->monitor) && slice->pins > 0);
	if (is_frozen(cache, slice) && !slice->frozen) {
		uint8_t *copy = malloc(cache->slice_bytes);

		if (!copy)
			return NULL;
		memcpy(copy, slice->data, cache->slice_bytes);
		slice->frozen = slice->data;
		slice->data = copy;
	}
	mark_dirty(cache, slice);
	return slice->data;
}

bool
slice_any_dirty(const struct image *image, enum slice_kind kind)
{
	const struct slice_cache *cache = &image->slices;

	return cache->lists[cache->gathering][kind] != NULL;
}

void
slice_freeze(struct image *image)
{
	struct slice_cache *cache = &image->slices;

	assert(monitor_entered(&image->monitor));
	cache->gathering = !cache->gathering;
	for (int kind = 0; kind < SLICE_KINDS; kind++)
		assert(!cache->lists[cache->gathering][kind]);
	cache->dirty_count = 0;
}

void
slice_thaw(struct image *image, bool written)
{
	struct slice_cache *cache = &image->slices;
	unsigned side = !cache->gathering, done = 0;

	for (int kind = 0; kind < SLICE_KINDS; kind++) {
		struct slice *slice;

		while ((slice = cache->lists[side][kind])) {
			cache->lists[side][kind] = slice->listed_next[side];
			slice->listed[side] = false;
			free(slice->frozen);
			slice->frozen = NULL;
			if (!written)
				mark_dirty(cache, slice);
			if (++done % TURN_SLICES == 0)
				co_yield();
		}
	}
}

/* What a freeze has of a kind, sorted by place. */
struct frozen_list {
	struct slice **list;
	size_t count;
};

static int
by_host(const void *a, const void *b)
{
	const struct slice *const *left = a, *const *right = b;

	return ((*left)->host > (*right)->host) -
	    ((*left)->host < (*right)->host);
}

static void
sort(void *arg)
{
	struct frozen_list *frozen = arg;

	qsort(frozen->list, frozen->count, sizeof(*frozen->list), by_host);
}

co_fn static int
collect(struct image *image, enum slice_kind kind,
    struct frozen_list *frozen)
{
	struct slice_cache *cache = &image->slices;
	unsigned side = !cache->gathering;
	size_t room = 0;

	*frozen = (struct frozen_list){0};
	for (struct slice *slice = cache->lists[side][kind]; slice;
	    slice = slice->listed_next[side]) {
		if (frozen->count == room) {
			struct slice **list;

			room = room ? 2 * room : 16;
			list = realloc(frozen->list, room * sizeof(*list));
			if (!list) {
				free(frozen->list);
				return -ENOMEM;
			}
			frozen->list = list;
		}
		frozen->list[frozen->count++] = slice;
		if (frozen->count % TURN_SLICES == 0)
			co_yield();
	}
	if (frozen->count > SORT_INLINE_MAX)
		worker_run(sort, frozen);
	else if (frozen->count > 1)
		sort(frozen);
	return 0;
}

/* What a slice has to be in, or it is not written. */
static enum metadata_kind
table_kind(enum slice_kind kind)
{
	return kind == SLICE_L2 ? METADATA_L2 : METADATA_REFCOUNT_BLOCK;
}

/* Writes as many of the sorted slices as stand side by side; how many. */
co_fn static size_t
write_neighbours(struct image *image, struct slice **list, size_t count,
    int *errp)
{
	uint32_t bytes = image->slices.slice_bytes;
	struct iovec iov[SLICE_WRITE_MAX];
	size_t run = 0;

	while (run < count && run < SLICE_WRITE_MAX &&
	    list[run]->host == list[0]->host + run * bytes) {
		uint8_t *data = list[run]->frozen ? list[run]->frozen :
		    list[run]->data;

		*errp = guard_table(image, table_kind(list[run]->kind),
		    list[run]->host, bytes);
		if (*errp)
			return run;
		iov[run++] = (struct iovec){data, bytes};
	}
	*errp = file_pwritev(image->file, iov, (unsigned)run, list[0]->host,
	    0);
	return run;
}

int
slice_write(struct image *image, enum slice_kind kind)
{
	struct frozen_list frozen;
	size_t done = 0, yielded = 0;
	int err;

	err = collect(image, kind, &frozen);
	if (err)
		return err;
	while (done < frozen.count && !err) {
		done += write_neighbours(image, frozen.list + done,
		    frozen.count - done, &err);
		if (done - yielded >= SLICE_WRITE_MAX) {
			yielded = done;
			co_yield();
		}
	}
	free(frozen.list);
	return err;
}
