/* SPDX-License-Identifier: MIT */
/*
 * Guards the decoding of table entries: which bits mean what at each cluster
 * size, that an entry a damaged image may hold is found faulty, and that
 * refcounts of every width sit where the format has them.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/entry.h"
#include "tests/unit/test_runtime.h"

#define HOST_END	0x100000u	/* 16 clusters of 64 KiB */

static const struct entry_limits v3 = {
	.cluster_bits = 16, .zero_flag = true, .host_end = HOST_END,
};
static const struct entry_limits v2 = {
	.cluster_bits = 16, .zero_flag = false, .host_end = HOST_END,
};
/* A file that reaches as far as any entry can. */
static const struct entry_limits endless = {
	.cluster_bits = 9, .zero_flag = true, .host_end = INT64_MAX,
};

/* text: what the fault must speak of; NULL: there must be none. */
static void
check_fault(uint64_t entry, const char *fault, const char *text)
{
	if (!text)
		ck_assert_msg(!fault, "0x%llx %s", (unsigned long long)entry,
		    fault);
	else
		ck_assert_msg(fault && strstr(fault, text), "0x%llx %s, not %s",
		    (unsigned long long)entry, fault ? fault : "is fine", text);
}

START_TEST(entries_are_big_endian)
{
	uint8_t table[16] = { 0 };

	entry_store(table, 1, 0x8000000000010002);
	ck_assert_mem_eq(table, "\0\0\0\0\0\0\0\0\x80\0\0\0\0\1\0\2", 16);
	ck_assert_uint_eq(entry_load(table, 1), 0x8000000000010002);
	ck_assert_uint_eq(entry_load(table, 0), 0);
}
END_TEST

START_TEST(kind_follows_from_flags_and_host)
{
	ck_assert_int_eq(entry_kind(0), CLUSTER_UNALLOCATED);
	ck_assert_int_eq(entry_kind(ENTRY_COPIED), CLUSTER_UNALLOCATED);
	ck_assert_int_eq(entry_kind(1), CLUSTER_ZERO);
	ck_assert_int_eq(entry_kind(0x10001), CLUSTER_ZERO_ALLOCATED);
	ck_assert_int_eq(entry_kind(0x10000), CLUSTER_NORMAL);
	ck_assert_int_eq(entry_kind(ENTRY_COPIED | 0x10000), CLUSTER_NORMAL);
	/* Bit 0 of a compressed entry is a bit of its offset. */
	ck_assert_int_eq(entry_kind(ENTRY_COMPRESSED | 1), CLUSTER_COMPRESSED);
}
END_TEST

START_TEST(host_is_bits_9_to_55)
{
	ck_assert_uint_eq(entry_host(~0ull), 0x00fffffffffffe00);
	ck_assert_uint_eq(entry_host(ENTRY_COPIED | 0x30000 | ENTRY_ZERO),
	    0x30000);
	ck_assert_uint_eq(entry_refcount_block(~0ull), 0xfffffffffffffe00);
}
END_TEST

struct judged {
	uint64_t entry;
	const char *text;
};

static const struct judged l1_entries[] = {
	{ 0, NULL },
	{ 0x10000, NULL },
	{ ENTRY_COPIED | 0x10000, NULL },
	{ HOST_END - 0x10000, NULL },
	{ ENTRY_COPIED, "points nowhere" },
	{ HOST_END, "past the end" },
	{ 0x00ffffffffff0000, "past the end" },
	{ 0x18000, "not aligned" },
	{ 0x200, "not aligned" },
	{ 0x10001, "reserved" },
	{ 0x10100, "reserved" },
	{ 0x0100000000010000, "reserved" },
	{ 0x4000000000010000, "reserved" },
};

START_TEST(l1_entry_is_judged)
{
	const struct judged *judged = &l1_entries[_i];

	check_fault(judged->entry, entry_l1_fault(judged->entry, &v3),
	    judged->text);
}
END_TEST

static const struct judged l2_entries[] = {
	{ 0, NULL },
	{ ENTRY_COPIED, NULL },
	{ 1, NULL },
	{ 0x10001, NULL },
	{ 0x10000, NULL },
	{ ENTRY_COPIED | 0x10000, NULL },
	{ HOST_END - 0x10000, NULL },
	{ HOST_END, "past the end" },
	{ HOST_END | 1, "past the end" },
	{ 0x18000, "not aligned" },
	{ 0x10002, "reserved" },
	{ 0x10100, "reserved" },
	{ 0x0100000000010000, "reserved" },
	{ 0x2000000000010000, "reserved" },
};

START_TEST(l2_entry_is_judged)
{
	const struct judged *judged = &l2_entries[_i];

	check_fault(judged->entry, entry_l2_fault(judged->entry, &v3),
	    judged->text);
}
END_TEST

START_TEST(zero_flag_is_a_fault_in_version_2)
{
	check_fault(1, entry_l2_fault(1, &v2), "version 2");
	check_fault(0x10001, entry_l2_fault(0x10001, &v2), "version 2");
	check_fault(0x10000, entry_l2_fault(0x10000, &v2), NULL);
}
END_TEST

START_TEST(refcount_table_entry_has_all_bits_from_9)
{
	check_fault(0, entry_refcount_fault(0, &v3), NULL);
	check_fault(0x10000, entry_refcount_fault(0x10000, &v3), NULL);
	check_fault(0x10001, entry_refcount_fault(0x10001, &v3), "reserved");
	check_fault(0x18000, entry_refcount_fault(0x18000, &v3), "aligned");
	check_fault(HOST_END, entry_refcount_fault(HOST_END, &v3), "past");
	check_fault(ENTRY_COPIED | 0x10000,
	    entry_refcount_fault(ENTRY_COPIED | 0x10000, &v3), "past");
	check_fault(ENTRY_HOST_END, entry_refcount_fault(ENTRY_HOST_END,
	    &endless), NULL);
}
END_TEST

START_TEST(bitmap_table_entry_is_an_offset_or_a_fill)
{
	check_fault(0, entry_bitmap_fault(0, &v3), NULL);
	check_fault(1, entry_bitmap_fault(1, &v3), NULL);
	check_fault(0x10000, entry_bitmap_fault(0x10000, &v3), NULL);
	check_fault(0x10001, entry_bitmap_fault(0x10001, &v3), "reserved");
	check_fault(2, entry_bitmap_fault(2, &v3), "reserved");
	check_fault(ENTRY_COPIED | 0x10000,
	    entry_bitmap_fault(ENTRY_COPIED | 0x10000, &v3), "reserved");
	check_fault(HOST_END, entry_bitmap_fault(HOST_END, &v3), "past");
}
END_TEST

/* ---- compressed ---- */

START_TEST(compressed_entry_splits_where_the_cluster_size_says)
{
	static const struct {
		unsigned cluster_bits;
		uint64_t entry, host;
		uint32_t bytes;
	} rows[] = {
		/* x = 62 - (cluster_bits - 8) bits of host offset */
		{ 9, ENTRY_COMPRESSED | 0x200, 0x200, 512 },
		{ 9, ENTRY_COMPRESSED | 1ull << 61 | 0x3ff, 0x3ff, 513 },
		{ 16, ENTRY_COMPRESSED | 0x10000, 0x10000, 512 },
		{ 16, ENTRY_COMPRESSED | 0x100ff, 0x100ff, 512 - 255 },
		{ 16, ENTRY_COMPRESSED | 5ull << 54 | 0x100ff, 0x100ff,
		    6 * 512 - 255 },
		{ 16, ENTRY_COMPRESSED | 255ull << 54 | 0x10000, 0x10000,
		    131072 },
		{ 16, ENTRY_COMPRESSED | ((1ull << 54) - 1), (1ull << 54) - 1,
		    1 },
		{ 21, ENTRY_COMPRESSED | 1ull << 49 | 0x200000, 0x200000,
		    1024 },
		{ 21, ENTRY_COMPRESSED | 8191ull << 49 | 0x200000, 0x200000,
		    4194304 },
	};
	unsigned i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct entry_span span = entry_compressed(rows[i].entry,
		    rows[i].cluster_bits);

		ck_assert_uint_eq(span.host, rows[i].host);
		ck_assert_uint_eq(span.bytes, rows[i].bytes);
	}
	ck_assert_uint_eq(entry_compressed_host_end(9), 1ull << 56);
	ck_assert_uint_eq(entry_compressed_host_end(13), 1ull << 56);
	ck_assert_uint_eq(entry_compressed_host_end(14), 1ull << 56);
	ck_assert_uint_eq(entry_compressed_host_end(15), 1ull << 55);
	ck_assert_uint_eq(entry_compressed_host_end(21), 1ull << 49);
}
END_TEST

/* The entry of a stream names its sectors, all of them and no more. */
START_TEST(compressed_entry_names_the_sectors_of_its_stream)
{
	for (unsigned bits = 9; bits <= 21; bits++) {
		uint32_t cluster_bytes = 1u << bits;

		for (uint64_t host = 5ull << 21; host < (5ull << 21) + 1024;
		    host += 73) {
			uint32_t bytes = 1 + (uint32_t)(host * 7919 %
			    cluster_bytes);
			uint64_t entry = entry_of_compressed(host, bytes,
			    bits);
			struct entry_span span = entry_compressed(entry, bits);

			ck_assert_int_eq(entry_kind(entry),
			    CLUSTER_COMPRESSED);
			ck_assert_uint_eq(span.host, host);
			ck_assert_uint_eq(host + span.bytes,
			    (host + bytes + 511) & ~511ull);
		}
	}
	/* To the very end of a sector. */
	ck_assert_uint_eq(entry_compressed(entry_of_compressed(0x10100,
	    0x100, 16), 16).bytes, 0x100);
}
END_TEST

static const struct judged compressed_entries[] = {
	{ ENTRY_COMPRESSED | 0x10000, NULL },
	{ ENTRY_COMPRESSED | 0x12345, NULL },
	/* The last sector of the file, and a stream that ends with the file
	 * while its sectors do not. */
	{ ENTRY_COMPRESSED | (HOST_END - 512), NULL },
	{ ENTRY_COMPRESSED | (HOST_END - 1), NULL },
	{ ENTRY_COMPRESSED | 127ull << 54 | (HOST_END - 512), NULL },
	{ ENTRY_COMPRESSED | 128ull << 54 | (HOST_END - 512), "past the end" },
	{ ENTRY_COMPRESSED | HOST_END, "past the end" },
	{ ENTRY_COMPRESSED | ((1ull << 54) - 1), "past the end" },
	{ ENTRY_COMPRESSED, "header" },
	{ ENTRY_COMPRESSED | 0xffff, "header" },
	{ ENTRY_COMPRESSED | ENTRY_COPIED | 0x10000, "copied" },
};

START_TEST(compressed_entry_is_judged)
{
	const struct judged *judged = &compressed_entries[_i];

	check_fault(judged->entry, entry_l2_fault(judged->entry, &v2),
	    judged->text);
}
END_TEST

START_TEST(compressed_offset_past_56_bits_is_a_fault)
{
	uint64_t entry = ENTRY_COMPRESSED | 1ull << 56 | 0x10000;

	check_fault(entry, entry_l2_fault(entry, &endless), "reserved");
	entry = ENTRY_COMPRESSED | ((1ull << 56) - 512);
	check_fault(entry, entry_l2_fault(entry, &endless), NULL);
}
END_TEST

/* ---- refcounts ---- */

/* Bit number of a block, counted as the format does: bytes in order, in a
 * byte from the least significant, wider refcounts most significant first. */
static bool
model_bit(const uint8_t *block, unsigned order, size_t index, unsigned bit)
{
	size_t width = (size_t)1 << order, byte;

	if (width < 8)
		return block[index * width / 8] >> (index * width % 8 + bit) &
		    1;
	byte = index * width / 8 + width / 8 - 1 - bit / 8;
	return block[byte] >> bit % 8 & 1;
}

START_TEST(refcount_of_every_width_is_where_the_format_has_it)
{
	unsigned order = (unsigned)_i, bit;
	uint8_t block[512];
	size_t count = sizeof(block) * 8 >> order, index;
	uint64_t value;

	srandom(order + 1);
	for (index = 0; index < sizeof(block); index++)
		block[index] = (uint8_t)random();
	for (index = 0; index < count; index++) {
		value = entry_refcount_get(block, order, index);
		ck_assert_uint_le(value, entry_refcount_max(order));
		for (bit = 0; bit < 1u << order; bit++)
			ck_assert_uint_eq(value >> bit & 1,
			    model_bit(block, order, index, bit));
	}
}
END_TEST

START_TEST(setting_a_refcount_leaves_its_neighbours)
{
	unsigned order = (unsigned)_i;
	uint8_t block[64], before[64];
	size_t count = sizeof(block) * 8 >> order, index, other;
	uint64_t max = entry_refcount_max(order), value;

	srandom(order + 1);
	for (index = 0; index < sizeof(block); index++)
		block[index] = (uint8_t)random();
	for (index = 0; index < count; index++) {
		memcpy(before, block, sizeof(block));
		value = max - entry_refcount_get(block, order, index);
		entry_refcount_set(block, order, index, value);
		for (other = 0; other < count; other++)
			ck_assert_uint_eq(
			    entry_refcount_get(block, order, other),
			    other == index ? value :
			    entry_refcount_get(before, order, other));
	}
}
END_TEST

START_TEST(refcount_max_is_all_its_bits)
{
	static const uint64_t max[] = {
		1, 3, 15, 255, 65535, UINT32_MAX, UINT64_MAX,
	};

	ck_assert_uint_eq(entry_refcount_max((unsigned)_i), max[_i]);
}
END_TEST

#define COUNT(array)	((int)(sizeof(array) / sizeof((array)[0])))

int
main(void)
{
	Suite *suite = suite_create("entry");
	TCase *tables = tcase_create("tables");
	TCase *compressed = tcase_create("compressed");
	TCase *refcounts = tcase_create("refcounts");

	tcase_add_test(tables, entries_are_big_endian);
	tcase_add_test(tables, kind_follows_from_flags_and_host);
	tcase_add_test(tables, host_is_bits_9_to_55);
	tcase_add_loop_test(tables, l1_entry_is_judged, 0, COUNT(l1_entries));
	tcase_add_loop_test(tables, l2_entry_is_judged, 0, COUNT(l2_entries));
	tcase_add_test(tables, zero_flag_is_a_fault_in_version_2);
	tcase_add_test(tables, refcount_table_entry_has_all_bits_from_9);
	tcase_add_test(tables, bitmap_table_entry_is_an_offset_or_a_fill);
	tcase_add_test(compressed,
	    compressed_entry_splits_where_the_cluster_size_says);
	tcase_add_test(compressed,
	    compressed_entry_names_the_sectors_of_its_stream);
	tcase_add_loop_test(compressed, compressed_entry_is_judged, 0,
	    COUNT(compressed_entries));
	tcase_add_test(compressed, compressed_offset_past_56_bits_is_a_fault);
	tcase_add_loop_test(refcounts,
	    refcount_of_every_width_is_where_the_format_has_it, 0, 7);
	tcase_add_loop_test(refcounts,
	    setting_a_refcount_leaves_its_neighbours, 0, 7);
	tcase_add_loop_test(refcounts, refcount_max_is_all_its_bits, 0, 7);
	suite_add_tcase(suite, tables);
	suite_add_tcase(suite, compressed);
	suite_add_tcase(suite, refcounts);
	return test_main(suite);
}
