/* SPDX-License-Identifier: MIT */
/*
 * Cost: a walk over the claims there are, at most one per request in flight.
 */
#include "qcow2/claim.h"

#include <assert.h>
#include "qcow2/aes.h"
#include "qcow2/internal.h"

static bool
overlaps(const struct claim *a, const struct claim *b)
{
	return a->begin < b->end && b->begin < a->end &&
	    !(a->shared && b->shared);
}

/* Whether one that came earlier is in the way. */
static bool
is_blocked(const struct claim *claim)
{
	for (const struct claim *other = claim->earlier; other;
	    other = other->earlier)
		if (overlaps(claim, other))
			return true;
	return false;
}

/* claim is filled in as far as to what it claims. */
co_fn static void
take(struct image *image, struct claim *claim)
{
	struct claim_list *claims = claim->list;

	assert(monitor_entered(&image->monitor));
	claim->earlier = claims->last;
	if (claims->last)
		claims->last->later = claim;
	else
		claims->first = claim;
	claims->last = claim;
	if (!is_blocked(claim))
		return;
	claim->waiting = true;
	claim->waiter.co = co_self();
	co_suspend();
	assert(!claim->waiting && !is_blocked(claim));
}

void
claim_take(struct image *image, struct claim *claim, uint64_t guest,
    uint64_t length)
{
	uint64_t mask = image->cluster_bytes - 1;

	*claim = (struct claim){
		.list = &image->claims,
		.begin = guest & ~mask, .end = (guest + length + mask) & ~mask,
	};
	take(image, claim);
}

void
claim_take_sectors(struct image *image, struct claim *claim, uint64_t guest,
    uint64_t length, bool shared)
{
	uint64_t mask = AES_SECTOR_BYTES - 1;
	uint64_t part = guest / CLAIM_PART_BYTES;

	assert(part == (guest + length - 1) / CLAIM_PART_BYTES);
	*claim = (struct claim){
		.list = &image->sector_claims[part % CLAIM_PART_LISTS],
		.shared = shared,
		.begin = guest & ~mask, .end = (guest + length + mask) & ~mask,
	};
	take(image, claim);
}

/* Grants those that waited for claim, which has left the list, alone. */
static void
grant(struct image *image, struct claim *claim)
{
	for (struct claim *other = claim->later; other; other = other->later) {
		if (!other->waiting || !overlaps(claim, other) ||
		    is_blocked(other))
			continue;
		other->waiting = false;
		monitor_wake(&image->monitor, &other->waiter);
	}
}

void
claim_release(struct image *image, struct claim *claim)
{
	struct claim_list *claims = claim->list;

	assert(monitor_entered(&image->monitor) && !claim->waiting);
	if (claim->earlier)
		claim->earlier->later = claim->later;
	else
		claims->first = claim->later;
	if (claim->later)
		claim->later->earlier = claim->earlier;
	else
		claims->last = claim->earlier;
	grant(image, claim);
}
