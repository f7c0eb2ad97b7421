/* SPDX-License-Identifier: MIT */
/*
 * A tree of LEVELS levels with NODE_SLOTS slots in each node; level 0 holds
 * pages.  Reading a page costs LEVELS steps, and changing one that is shared
 * costs a copy of the nodes on the way to it, 512 bytes each.
 */
#include "runtime/pages.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/random.h"
#include "runtime/sim_internal.h"

#define NODE_BITS 6
#define NODE_SLOTS (1u << NODE_BITS)
#define LEVELS 6
_Static_assert(PAGES_BYTES_MAX ==
    (uint64_t)PAGE_BYTES << (NODE_BITS * LEVELS), "the tree covers a file");

/* The common head of nodes and pages: what a slot points at. */
struct page_counted {
	unsigned references;
	bool is_hashed;
	uint64_t hash;
};

struct page {
	struct page_counted counted;
	uint8_t data[PAGE_BYTES];
};

struct page_node {
	struct page_counted counted;
	struct page_counted *slots[NODE_SLOTS];
};

/*
 * A page of zeros in any number of places; its references never run out.  It
 * costs nothing to give a large range room.
 */
static struct page zero_page = {.counted.references = 1u << 31};

static uint64_t
pages_in(unsigned level)
{
	return UINT64_C(1) << (NODE_BITS * level);
}

static unsigned
slot_of(uint64_t page_index, unsigned level)
{
	return (unsigned)(page_index >> (NODE_BITS * level)) % NODE_SLOTS;
}

/* ---- references; level LEVELS - 1 is the root, below 0 is a page ---- */

static void
put(struct page_counted *counted, int level)
{
	struct page_node *node = (struct page_node *)counted;

	if (!counted || --counted->references > 0)
		return;
	for (unsigned i = 0; level >= 0 && i < NODE_SLOTS; i++)
		put(node->slots[i], level - 1);
	free(counted);
}

static struct page_node *
node_own(struct page_counted **slot, int level)
{
	struct page_node *node = (struct page_node *)*slot;
	struct page_node *copy;

	if (node && node->counted.references == 1) {
		node->counted.is_hashed = false;
		return node;
	}
	copy = sim_calloc(1, sizeof(*copy));
	if (node) {
		memcpy(copy->slots, node->slots, sizeof(copy->slots));
		for (unsigned i = 0; i < NODE_SLOTS; i++) {
			if (copy->slots[i])
				copy->slots[i]->references++;
		}
	}
	copy->counted.references = 1;
	put(*slot, level);
	*slot = &copy->counted;
	return copy;
}

/* Where the page hangs; all nodes above it may be changed. */
static struct page_counted **
slot_own(struct pages *pages, uint64_t page_index)
{
	struct page_counted **slot = &pages->root;

	for (int level = LEVELS - 1; level >= 0; level--)
		slot = &node_own(slot, level)->slots[
		    slot_of(page_index, (unsigned)level)];
	return slot;
}

static void
page_set_zero(struct pages *pages, uint64_t page_index)
{
	struct page_counted **slot = slot_own(pages, page_index);

	if (!*slot)
		pages->allocated++;
	put(*slot, -1);
	zero_page.counted.references++;
	*slot = &zero_page.counted;
}

/* The page for writing; it comes into being as fill. */
static struct page *
page_own(struct pages *pages, uint64_t page_index)
{
	struct page_counted **slot = slot_own(pages, page_index);
	struct page *page = (struct page *)*slot;
	struct page *copy;

	if (page && page->counted.references == 1) {
		page->counted.is_hashed = false;
		return page;
	}
	copy = sim_calloc(1, sizeof(*copy));
	copy->counted.references = 1;
	if (page)
		memcpy(copy->data, page->data, PAGE_BYTES);
	else
		memset(copy->data, pages->fill, PAGE_BYTES);
	if (!page)
		pages->allocated++;
	put(*slot, -1);
	*slot = &copy->counted;
	return copy;
}

static const struct page *
page_find(const struct pages *pages, uint64_t page_index)
{
	const struct page_counted *counted = pages->root;

	for (int level = LEVELS - 1; level >= 0 && counted; level--)
		counted = ((const struct page_node *)counted)->slots[
		    slot_of(page_index, (unsigned)level)];
	return (const struct page *)counted;
}

void
pages_copy(struct pages *target, const struct pages *source)
{
	*target = *source;
	if (target->root)
		target->root->references++;
}

void
pages_free(struct pages *pages)
{
	put(pages->root, LEVELS - 1);
	pages->root = NULL;
	pages->allocated = 0;
}

/* ---- reading and writing ---- */

static size_t
bytes_in_page(uint64_t offset, uint64_t length)
{
	size_t bytes = PAGE_BYTES - offset % PAGE_BYTES;

	return bytes < length ? bytes : (size_t)length;
}

void
pages_read(const struct pages *pages, void *data, size_t length,
    uint64_t offset)
{
	uint8_t *target = data;

	assert(offset <= PAGES_BYTES_MAX && length <= PAGES_BYTES_MAX - offset);
	while (length > 0) {
		const struct page *page = page_find(pages, offset / PAGE_BYTES);
		size_t bytes = bytes_in_page(offset, length);

		if (page)
			memcpy(target, page->data + offset % PAGE_BYTES, bytes);
		else
			memset(target, pages->fill, bytes);
		target += bytes;
		offset += bytes;
		length -= bytes;
	}
}

void
pages_write(struct pages *pages, const void *data, size_t length,
    uint64_t offset)
{
	const uint8_t *source = data;

	assert(offset <= PAGES_BYTES_MAX && length <= PAGES_BYTES_MAX - offset);
	while (length > 0) {
		struct page *page = page_own(pages, offset / PAGE_BYTES);
		size_t bytes = bytes_in_page(offset, length);

		memcpy(page->data + offset % PAGE_BYTES, source, bytes);
		source += bytes;
		offset += bytes;
		length -= bytes;
	}
}

/* ---- zeros and holes ---- */

static uint64_t
count_pages(const struct page_counted *counted, int level)
{
	const struct page_node *node = (const struct page_node *)counted;
	uint64_t count = 0;

	if (!counted || level < 0)
		return counted ? 1 : 0;
	for (unsigned i = 0; i < NODE_SLOTS; i++)
		count += count_pages(node->slots[i], level - 1);
	return count;
}

/* Pages of the range [first, end) below a slot; base is its first page. */
static uint64_t
count_range(const struct page_counted *counted, int level, uint64_t base,
    uint64_t first, uint64_t end)
{
	const struct page_node *node = (const struct page_node *)counted;
	uint64_t below = pages_in((unsigned)(level + 1));
	uint64_t count = 0;

	if (!counted || end <= base || first >= base + below)
		return 0;
	if (first <= base && end >= base + below)
		return count_pages(counted, level);
	for (unsigned i = 0; i < NODE_SLOTS; i++)
		count += count_range(node->slots[i], level - 1,
		    base + i * pages_in((unsigned)level), first, end);
	return count;
}

/* Makes holes of the pages [first, end) below slot. */
static void
drop_range(struct page_counted **slot, int level, uint64_t base,
    uint64_t first, uint64_t end)
{
	uint64_t below = pages_in((unsigned)(level + 1));
	struct page_node *node;

	if (!*slot || end <= base || first >= base + below)
		return;
	if (first <= base && end >= base + below) {
		put(*slot, level);
		*slot = NULL;
		return;
	}
	node = node_own(slot, level);
	for (unsigned i = 0; i < NODE_SLOTS; i++)
		drop_range(&node->slots[i], level - 1,
		    base + i * pages_in((unsigned)level), first, end);
}

static void
zero_part(struct pages *pages, uint64_t offset, uint64_t length)
{
	if (length == 0)
		return;
	if (!page_find(pages, offset / PAGE_BYTES) && pages->fill == 0)
		return;
	memset(page_own(pages, offset / PAGE_BYTES)->data +
	    offset % PAGE_BYTES, 0, length);
}

static void
drop_pages(struct pages *pages, uint64_t first, uint64_t end)
{
	pages->allocated -= count_range(pages->root, LEVELS - 1, 0, first, end);
	drop_range(&pages->root, LEVELS - 1, 0, first, end);
}

void
pages_zero(struct pages *pages, uint64_t offset, uint64_t length, bool keep)
{
	uint64_t end = offset + length;
	uint64_t first = (offset + PAGE_BYTES - 1) / PAGE_BYTES;
	uint64_t last = end / PAGE_BYTES;

	assert(end >= offset && end <= PAGES_BYTES_MAX);
	if (keep)
		pages_allocate(pages, offset, length);
	if (first > last) {
		zero_part(pages, offset, length);
		return;
	}
	zero_part(pages, offset, first * PAGE_BYTES - offset);
	zero_part(pages, last * PAGE_BYTES, end - last * PAGE_BYTES);
	if (!keep && pages->fill == 0) {
		drop_pages(pages, first, last);
		return;
	}
	for (uint64_t i = first; i < last; i++)
		page_set_zero(pages, i);
}

void
pages_allocate(struct pages *pages, uint64_t offset, uint64_t length)
{
	uint64_t end = (offset + length + PAGE_BYTES - 1) / PAGE_BYTES;

	assert(end <= PAGES_BYTES_MAX / PAGE_BYTES);
	for (uint64_t i = offset / PAGE_BYTES; i < end; i++) {
		if (page_find(pages, i))
			continue;
		if (pages->fill == 0)
			page_set_zero(pages, i);
		else
			page_own(pages, i);
	}
}

uint64_t
pages_holes(const struct pages *pages, uint64_t offset, uint64_t length)
{
	uint64_t first = offset / PAGE_BYTES;
	uint64_t end = (offset + length + PAGE_BYTES - 1) / PAGE_BYTES;

	if (length == 0)
		return 0;
	return end - first -
	    count_range(pages->root, LEVELS - 1, 0, first, end);
}

/* ---- looking over it ---- */

/* The first page (or hole) at or after first below a slot, or UINT64_MAX. */
static uint64_t
seek_page(const struct page_counted *counted, int level, uint64_t base,
    uint64_t first, bool data)
{
	const struct page_node *node = (const struct page_node *)counted;
	uint64_t below = pages_in((unsigned)(level + 1));
	uint64_t found = UINT64_MAX;

	if (first >= base + below || (!counted && data))
		return UINT64_MAX;
	if (!counted || (level < 0 && data))
		return first > base ? first : base;
	for (unsigned i = 0; level >= 0 && i < NODE_SLOTS &&
	    found == UINT64_MAX; i++)
		found = seek_page(node->slots[i], level - 1,
		    base + i * pages_in((unsigned)level), first, data);
	return found;
}

uint64_t
pages_seek(const struct pages *pages, uint64_t offset, bool data)
{
	uint64_t found = seek_page(pages->root, LEVELS - 1, 0,
	    offset / PAGE_BYTES, data);

	if (found == UINT64_MAX)
		return UINT64_MAX;
	return found * PAGE_BYTES > offset ? found * PAGE_BYTES : offset;
}

/* A page that reads like a hole is none: its hash is 0. */
static uint64_t
page_hash(const struct page *page, uint8_t fill)
{
	uint64_t hash = 0;

	if (page->data[0] == fill && !memcmp(page->data, page->data + 1,
	    PAGE_BYTES - 1))
		return 0;
	for (size_t i = 0; i < PAGE_BYTES; i += sizeof(uint64_t)) {
		uint64_t word;

		memcpy(&word, page->data + i, sizeof(word));
		hash = (hash ^ word) * 0x9fb21c651e98df25ull;
		hash ^= hash >> 32;
	}
	return hash;
}

static uint64_t
hash_below(struct page_counted *counted, int level, uint8_t fill)
{
	struct page_node *node = (struct page_node *)counted;
	uint64_t hash = 0;

	if (!counted)
		return 0;
	/* Shared by contents with different fills. */
	if (counted == &zero_page.counted)
		return page_hash(&zero_page, fill);
	if (counted->is_hashed)
		return counted->hash;
	if (level < 0)
		hash = page_hash((struct page *)counted, fill);
	for (unsigned i = 0; level >= 0 && i < NODE_SLOTS; i++) {
		uint64_t below = hash_below(node->slots[i], level - 1, fill);

		if (below)
			hash += random_mix(below + i);
	}
	counted->hash = hash;
	counted->is_hashed = true;
	return hash;
}

uint64_t
pages_hash(const struct pages *pages)
{
	return hash_below(pages->root, LEVELS - 1, pages->fill);
}
