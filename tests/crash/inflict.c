/* SPDX-License-Identifier: MIT */
#include "tests/crash/inflict.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/entry.h"
#include "runtime/file_sim.h"
#include "runtime/random.h"

/* The image that is damaged, and where its tables are. */
struct victim {
	char *text;		/* what was done */
	size_t text_bytes;
	struct file *file;
	struct file *sound;	/* as it was before */
	struct random random;
	unsigned version, cluster_bits, order;
	uint64_t clusters;
	uint64_t l1, l2, table;
};

static uint64_t
get(const struct victim *victim, uint64_t offset)
{
	uint8_t bytes[8];

	file_sim_peek(victim->file, bytes, sizeof(bytes), offset);
	return bytes_get64(bytes);
}

static void
put(const struct victim *victim, uint64_t offset, uint64_t value)
{
	uint8_t bytes[8];

	bytes_put64(bytes, value);
	file_sim_poke(victim->file, bytes, sizeof(bytes), offset);
}

static void __attribute__((format(printf, 2, 3)))
tell(struct victim *victim, const char *format, ...)
{
	size_t length = strlen(victim->text);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(victim->text + length, victim->text_bytes - length, format,
	    arguments);
	va_end(arguments);
}

static uint64_t
block_clusters(const struct victim *victim)
{
	return 8ull << victim->cluster_bits >> victim->order;
}

/* Where the block with the refcount is in the sound image; 0: there is none. */
static uint64_t
block_of(const struct victim *victim, uint64_t cluster)
{
	uint8_t bytes[ENTRY_BYTES];

	file_sim_peek(victim->sound, bytes, sizeof(bytes), victim->table +
	    cluster / block_clusters(victim) * ENTRY_BYTES);
	return bytes_get64(bytes);
}

static void
set_refcount(struct victim *victim, uint64_t cluster, uint64_t value)
{
	uint64_t index = cluster % block_clusters(victim);
	uint64_t block = block_of(victim, cluster);
	uint8_t bytes[8];

	if (!block)
		return;
	value &= entry_refcount_max(victim->order);
	block += (index << victim->order) / 64 * sizeof(bytes);
	file_sim_peek(victim->file, bytes, sizeof(bytes), block);
	entry_refcount_set(bytes, victim->order,
	    index % (64u >> victim->order), value);
	file_sim_poke(victim->file, bytes, sizeof(bytes), block);
	tell(victim, " refcount of %llu is %llu;",
	    (unsigned long long)cluster, (unsigned long long)value);
}

/* Of clusters that may be in use, and of one behind the end of the file. */
static void
damage_refcounts(struct victim *victim)
{
	unsigned count = 1 + (unsigned)random_below(&victim->random, 6);

	while (count-- > 0)
		set_refcount(victim, random_below(&victim->random,
		    victim->clusters), random_below(&victim->random, 4));
}

static void
damage_leaks(struct victim *victim)
{
	uint64_t end = (uint64_t)file_size(victim->file);
	static const uint8_t byte;

	if (!victim->file->is_regular)
		return;
	end = (end + (1u << victim->cluster_bits)) >> victim->cluster_bits;
	file_sim_poke(victim->file, &byte, 1,
	    ((end + 1) << victim->cluster_bits) - 1);
	set_refcount(victim, end, 1 + random_below(&victim->random, 2));
}

static void
damage_flags(struct victim *victim)
{
	unsigned count = 1 + (unsigned)random_below(&victim->random, 3);

	while (count-- > 0) {
		uint64_t place = victim->l2 + ENTRY_BYTES *
		    random_below(&victim->random, 16);
		uint64_t entry = get(victim, place);

		if (random_one_in(&victim->random, 3)) {
			place = victim->l1;
			entry = get(victim, place);
		}
		if (!entry_host(entry))
			continue;
		put(victim, place, entry ^ ENTRY_COPIED);
		tell(victim, " flag at 0x%llx;", (unsigned long long)place);
	}
}

/* A zero cluster whose room is in no place for one. */
static void
damage_zero(struct victim *victim)
{
	uint64_t place = victim->l2 + ENTRY_BYTES *
	    random_below(&victim->random, 16);

	if (victim->version < 3 || victim->cluster_bits == 9 ||
	    entry_kind(get(victim, place)) != CLUSTER_ZERO)
		return;
	put(victim, place, 1ull << victim->cluster_bits | 512 | ENTRY_ZERO);
	tell(victim, " zero cluster at 0x%llx;", (unsigned long long)place);
}

static void
damage_table(struct victim *victim)
{
	uint64_t place = victim->table;
	uint64_t entry = get(victim, place);
	const uint64_t bad[] = {
		0, entry + 512, entry | 2, entry | 1ull << 50, victim->l1,
		victim->l2, entry ^ (3ull << victim->cluster_bits),
	};
	uint64_t value = bad[random_below(&victim->random,
	    sizeof(bad) / sizeof(bad[0]))];

	put(victim, place, value);
	tell(victim, " refcount block at 0x%llx;",
	    (unsigned long long)value);
}

static void
damage_header(struct victim *victim)
{
	const uint64_t bad[] = {
		victim->l1, victim->l2, 1ull << 40,
		victim->table + (1ull << victim->cluster_bits),
	};
	uint64_t value = bad[random_below(&victim->random,
	    sizeof(bad) / sizeof(bad[0]))];

	put(victim, 48, value);
	tell(victim, " refcount table at 0x%llx;",
	    (unsigned long long)value);
}

/* The first entry keeps 8 bytes of its extra data, and all behind moves. */
static void
damage_snapshots(struct victim *victim)
{
	uint64_t table = get(victim, 64);
	uint64_t end = 1ull << victim->cluster_bits;
	uint8_t head[40];
	uint32_t extra, more;
	uint8_t *bytes;

	file_sim_peek(victim->file, head, sizeof(head), 60);
	if (victim->version < 3 || bytes_get32(head) == 0 || end < 4096)
		return;
	file_sim_peek(victim->file, head, sizeof(head), table);
	extra = bytes_get32(head + 36);
	if (extra < 16)
		return;
	more = extra - 8;
	bytes = calloc(1, end);
	if (!bytes)
		abort();
	file_sim_peek(victim->file, bytes, end, table);
	bytes_put32(bytes + 36, 8);
	memmove(bytes + 48, bytes + 48 + more, end - 48 - more);
	file_sim_poke(victim->file, bytes, end, table);
	free(bytes);
	tell(victim, " snapshot table;");
}

static void
damage_bits(struct victim *victim)
{
	if (victim->version < 3)
		return;
	put(victim, 72, get(victim, 72) |
	    (1 + random_below(&victim->random, 3)));
	tell(victim, " dirty or corrupt;");
}

void
inflict(struct file *file, struct file *sound, uint64_t seed, char *text,
    size_t text_bytes)
{
	static void (*const damages[])(struct victim *) = {
		damage_refcounts, damage_refcounts, damage_leaks,
		damage_flags, damage_zero, damage_table, damage_header,
		damage_snapshots, damage_bits,
	};
	struct victim victim = {
		.text = text, .text_bytes = text_bytes, .file = file,
		.sound = sound,
	};
	unsigned count;

	text[0] = '\0';
	random_seed(&victim.random, seed);
	victim.version = (unsigned)(get(&victim, 0) & UINT32_MAX);
	victim.cluster_bits = (unsigned)(get(&victim, 16) & UINT32_MAX);
	victim.order = victim.version < 3 ? 4 :
	    (unsigned)(get(&victim, 96) >> 32);
	victim.clusters = ((uint64_t)file_size(victim.file) +
	    (1ull << victim.cluster_bits) - 1) >> victim.cluster_bits;
	victim.l1 = get(&victim, 40);
	victim.l2 = entry_host(get(&victim, victim.l1));
	victim.table = get(&victim, 48);
	count = 1 + (unsigned)random_below(&victim.random, 4);
	while (count-- > 0)
		damages[random_below(&victim.random,
		    sizeof(damages) / sizeof(damages[0]))](&victim);
}
