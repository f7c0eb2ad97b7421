/* SPDX-License-Identifier: MIT */
#include "qcow2/pack.h"

#include <assert.h>
#include <errno.h>
#include "qcow2/internal.h"

/* What the cluster that is held has left; 0: none is. */
static uint32_t
room_left(const struct image *image)
{
	return -(uint32_t)image->packer.next & (image->cluster_bytes - 1);
}

co_fn static void
drop_held(struct image *image)
{
	uint64_t held = image->packer.next & ~(image->cluster_bytes - 1ull);

	if (!held)
		return;
	image->packer.next = 0;
	alloc_give_back(image, held, 1);
}

/*
 * Where the stream goes.  All clusters that it touches have a reference that
 * is nobody's: of those that were held, or new.
 */
co_fn static int
find_room(struct image *image, uint32_t bytes, uint64_t *hostp)
{
	uint32_t left = room_left(image);
	struct allocation place;
	int err;

	*hostp = image->packer.next;
	if (bytes <= left)
		return 0;
	err = alloc_clusters(image, 1, &place);
	if (err)
		return err;
	if (left > 0 && place.host == *hostp + left)
		return 0;
	drop_held(image);
	*hostp = place.host;
	return 0;
}

/*
 * Holds the stream's last cluster if it has room left.  Where the refcount
 * cannot be raised, as it is the highest there is, no more streams come to it.
 */
co_fn static void
hold_last(struct image *image, uint64_t end)
{
	image->packer.next = 0;
	if (end & (image->cluster_bytes - 1) &&
	    !refcount_add(image, end >> image->cluster_bits, 1))
		image->packer.next = end;
}

int
pack_take(struct image *image, uint32_t bytes, uint64_t *hostp)
{
	struct packer *packer = &image->packer;
	uint64_t host;
	int err;

	assert(bytes > 0 && bytes < image->cluster_bytes);
	co_mutex_lock(&packer->taking);
	err = find_room(image, bytes, &host);
	if (!err)
		hold_last(image, host + bytes);
	co_mutex_unlock(&image->monitor, &packer->taking);
	if (err)
		return err;
	if (host >= entry_compressed_host_end(image->cluster_bits)) {
		pack_give_back(image, host, bytes);
		return -EFBIG;
	}
	*hostp = host;
	return 0;
}

void
pack_give_back(struct image *image, uint64_t host, uint32_t bytes)
{
	uint64_t first = host & ~(image->cluster_bytes - 1ull);

	alloc_give_back(image, first, ((host + bytes - 1 - first) >>
	    image->cluster_bits) + 1);
}

void
pack_let_go(struct image *image)
{
	co_mutex_lock(&image->packer.taking);
	drop_held(image);
	co_mutex_unlock(&image->monitor, &image->packer.taking);
}
