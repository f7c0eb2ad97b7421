/* SPDX-License-Identifier: MIT */
/*
 * Guards the header's parser: that it takes what is right to the edge of every
 * limit, refuses everything past it in words that name file, field and value,
 * and that nothing it does not know is lost when the header is written again.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/header.h"
#include "tests/unit/test_qcow2.h"
#include "tests/unit/test_runtime.h"

static uint8_t cluster[MADE_CLUSTER_BYTES];
static struct header header;
static struct error error;

static int
parse(void)
{
	return header_parse("x.qcow2", cluster, MADE_FILE_BYTES, &header,
	    &error);
}

static void
must_parse(void)
{
	int err = parse();

	ck_assert_msg(err == 0, "refused: %s", error.message);
}

/* The message must have text in it, and begin with the file's name. */
static void
must_refuse(int negative_errno, const char *text)
{
	static const struct header nothing;

	ck_assert_int_eq(parse(), negative_errno);
	ck_assert_msg(strstr(error.message, text) &&
	    strncmp(error.message, "x.qcow2", 7) == 0,
	    "\"%s\" says nothing of \"%s\"", error.message, text);
	ck_assert_mem_eq(&header, &nothing, sizeof(header));
}

static void
put_field(unsigned offset, unsigned bytes, uint64_t value)
{
	if (bytes == 1)
		cluster[offset] = (uint8_t)value;
	else if (bytes == 4)
		bytes_put32(cluster + offset, (uint32_t)value);
	else
		bytes_put64(cluster + offset, value);
}

/* ---- fixed fields ---- */

START_TEST(version_2_has_fixed_refcounts_and_no_features)
{
	make_header(cluster, 2);
	/* What lies behind the header of version 2 are not its fields. */
	make_extension(cluster, 72, 0x12345678, "\377\377\377\377", 4);
	must_parse();
	ck_assert_uint_eq(header.version, 2);
	ck_assert_uint_eq(header.cluster_bits, 12);
	ck_assert_uint_eq(header.size_bytes, 8u << 20);
	ck_assert_uint_eq(header.l1_entries, 4);
	ck_assert_uint_eq(header.l1_offset, MADE_L1);
	ck_assert_uint_eq(header.refcount_table_offset, MADE_REFCOUNT_TABLE);
	ck_assert_uint_eq(header.refcount_table_clusters, 1);
	ck_assert_uint_eq(header.refcount_order, 4);
	ck_assert_uint_eq(header.incompatible, 0);
	ck_assert_uint_eq(header.compatible, 0);
	ck_assert_uint_eq(header.autoclear, 0);
	ck_assert_int_eq(header.compression, COMPRESSION_DEFLATE);
	ck_assert(!header.backing);
	header_free(&header);
}
END_TEST

START_TEST(version_3_has_features_and_refcount_order)
{
	make_header(cluster, 3);
	put_field(72, 8, HEADER_DIRTY | HEADER_CORRUPT | HEADER_COMPRESSION);
	put_field(80, 8, ~0ull);
	put_field(88, 8, 1ull << 63);
	put_field(96, 4, 6);
	put_field(104, 1, COMPRESSION_ZSTD);
	must_parse();
	ck_assert_uint_eq(header.version, 3);
	ck_assert_uint_eq(header.incompatible, 11);
	ck_assert_uint_eq(header.compatible, ~0ull);
	ck_assert_uint_eq(header.autoclear, 1ull << 63);
	ck_assert_uint_eq(header.refcount_order, 6);
	ck_assert_int_eq(header.compression, COMPRESSION_ZSTD);
	header_free(&header);
}
END_TEST

/* One field of a right header, and what must be said of its value. */
static const struct wrong_field {
	unsigned offset, bytes;
	uint64_t value;
	int negative_errno;
	const char *text;
} wrong_fields[] = {
	{ 0, 4, 0, -EINVAL, "0x00000000" },
	{ 4, 4, 1, -ENOTSUP, "version 1" },
	{ 4, 4, 4, -ENOTSUP, "version 4" },
	{ 20, 4, 8, -EINVAL, "cluster_bits is 8" },
	{ 20, 4, 22, -EINVAL, "cluster_bits is 22" },
	{ 20, 4, 0xffffffff, -EINVAL, "cluster_bits is 4294967295" },
	{ 20, 4, 21, -EINVAL, "cut short" },
	{ 24, 8, 1ull << 63, -EINVAL, "size is 9223372036854775808" },
	{ 24, 8, (8u << 20) + 1, -EINVAL, "l1_size is 4" },
	{ 24, 8, INT64_MAX, -EINVAL, "4398046511104 entries" },
	{ 32, 4, 4, -ENOTSUP, "crypt_method is 4" },
	{ 32, 4, 2, -ENOTSUP, "LUKS" },
	{ 32, 4, 3, -ENOTSUP, "crypt_method is 3" },
	{ 36, 4, 3, -EINVAL, "l1_size is 3" },
	{ 36, 4, (4u << 20) + 1, -EINVAL, "more than 33554432" },
	{ 36, 4, 0xffffffff, -EINVAL, "more than 33554432" },
	{ 36, 4, 14 * 512 + 1, -EINVAL, "past the end" },
	{ 40, 8, 0, -EINVAL, "in the header" },
	{ 40, 8, MADE_L1 + 8, -EINVAL, "L1 table at 0x2008 is not aligned" },
	{ 40, 8, MADE_FILE_BYTES, -EINVAL, "past the end" },
	{ 40, 8, 0xfffffffffffff000, -EINVAL, "past the end" },
	{ 48, 8, 0, -EINVAL, "refcount table at 0x0 lies in the header" },
	{ 48, 8, MADE_REFCOUNT_TABLE + 512, -EINVAL, "not aligned" },
	{ 48, 8, MADE_FILE_BYTES, -EINVAL, "past the end" },
	{ 48, 8, 0x7ffffffffffff000, -EINVAL, "past the end" },
	{ 56, 4, 0, -EINVAL, "refcount_table_clusters is 0" },
	{ 56, 4, 16, -EINVAL, "past the end" },
	{ 56, 4, 2049, -EINVAL, "more than 8388608" },
	{ 56, 4, 0xffffffff, -EINVAL, "more than 8388608" },
	{ 60, 4, 1, -EINVAL, "snapshot table at 0x0 lies in the header" },
	{ 60, 4, 65537, -EINVAL, "nb_snapshots is 65537" },
	{ 72, 8, HEADER_DATA_FILE, -ENOTSUP, "external data file" },
	{ 72, 8, HEADER_EXTENDED_L2, -ENOTSUP, "extended L2" },
	{ 72, 8, HEADER_COMPRESSION, -EINVAL, "compression_type is 0" },
	{ 72, 8, 1ull << 5, -ENOTSUP, "unknown: bit 5" },
	{ 72, 8, 1ull << 63, -ENOTSUP, "unknown: bit 63" },
	{ 96, 4, 7, -EINVAL, "refcount_order is 7" },
	{ 96, 4, 0xffffffff, -EINVAL, "refcount_order is 4294967295" },
	{ 100, 4, 0, -EINVAL, "header_length is 0" },
	{ 100, 4, 96, -EINVAL, "header_length is 96" },
	{ 100, 4, 108, -EINVAL, "header_length is 108" },
	{ 100, 4, MADE_CLUSTER_BYTES + 8, -EINVAL, "header_length is 4104" },
	{ 104, 1, 1, -EINVAL, "feature 3, which goes with other types than 0, "
	    "is not set" },
	{ 104, 1, 2, -ENOTSUP, "compression_type is 2" },
};

START_TEST(wrong_field_is_refused_by_name_and_value)
{
	const struct wrong_field *wrong = &wrong_fields[_i];

	make_header(cluster, 3);
	put_field(wrong->offset, wrong->bytes, wrong->value);
	must_refuse(wrong->negative_errno, wrong->text);
}
END_TEST

/* One field of a right header at the last value that is right as well. */
static const struct right_field {
	unsigned offset, bytes;
	uint64_t value;
} right_fields[] = {
	{ 24, 8, 0 },
	{ 24, 8, 1 },
	{ 24, 8, (8u << 20) - 1 },
	{ 36, 4, 14 * 512 },
	{ 40, 8, MADE_FILE_BYTES - MADE_CLUSTER_BYTES },
	{ 48, 8, MADE_FILE_BYTES - MADE_CLUSTER_BYTES },
	{ 56, 4, 15 },
	{ 64, 8, 12345 },	/* where no snapshots are does not matter */
	{ 72, 8, HEADER_DIRTY },
	{ 72, 8, HEADER_CORRUPT },
	{ 96, 4, 0 },
	{ 100, 4, 104 },
	{ 100, 4, MADE_CLUSTER_BYTES },
};

START_TEST(field_at_its_limit_is_taken)
{
	const struct right_field *right = &right_fields[_i];

	make_header(cluster, 3);
	put_field(right->offset, right->bytes, right->value);
	must_parse();
	header_free(&header);
}
END_TEST

START_TEST(table_may_end_in_a_last_cluster_that_is_cut_short)
{
	make_header(cluster, 3);
	put_field(40, 8, MADE_FILE_BYTES - MADE_CLUSTER_BYTES);
	ck_assert_int_eq(header_parse("x.qcow2", cluster,
	    MADE_FILE_BYTES - MADE_CLUSTER_BYTES + 1, &header, &error), 0);
	header_free(&header);
	ck_assert_int_eq(header_parse("x.qcow2", cluster,
	    MADE_FILE_BYTES - MADE_CLUSTER_BYTES, &header, &error), -EINVAL);
}
END_TEST

START_TEST(empty_disk_needs_no_l1_table)
{
	make_header(cluster, 3);
	put_field(24, 8, 0);
	put_field(36, 4, 0);
	put_field(40, 8, 0);
	must_parse();
	ck_assert_uint_eq(header.l1_entries, 0);
	header_free(&header);
}
END_TEST

START_TEST(start_tells_the_cluster_size)
{
	uint32_t cluster_bytes;

	make_header(cluster, 2);
	put_field(20, 4, 21);
	ck_assert_int_eq(header_parse_start("x", cluster, &cluster_bytes,
	    &error), 0);
	ck_assert_uint_eq(cluster_bytes, 2u << 20);
	put_field(20, 4, 9);
	ck_assert_int_eq(header_parse_start("x", cluster, &cluster_bytes,
	    &error), 0);
	ck_assert_uint_eq(cluster_bytes, 512);
}
END_TEST

/* ---- the backing file's name ---- */

START_TEST(backing_name_may_take_1023_bytes_to_the_end)
{
	char name[1024];

	memset(name, 'n', 1023);
	name[1023] = '\0';
	make_header(cluster, 3);
	make_backing(cluster, name);
	must_parse();
	ck_assert(header.backing);
	ck_assert_str_eq(header.backing_name, name);
	header_free(&header);
}
END_TEST

static const struct wrong_name {
	uint64_t offset;
	uint32_t bytes;
	const char *text;
} wrong_names[] = {
	{ 200, 1024, "backing_file_size is 1024" },
	{ 200, 0xffffffff, "backing_file_size is 4294967295" },
	{ MADE_CLUSTER_BYTES - 5, 6, "backing_file_size is 6" },
	{ MADE_CLUSTER_BYTES + 1, 1, "backing_file_offset is 0x1001" },
	{ 0xffffffffffffffff, 1, "backing_file_offset is 0xffffffffffffffff" },
	{ 104, 8, "backing_file_offset is 0x68" },
	{ 200, 8, "zero byte" },
};

START_TEST(backing_name_outside_of_the_first_cluster_is_refused)
{
	const struct wrong_name *wrong = &wrong_names[_i];

	make_header(cluster, 3);
	put_field(8, 8, wrong->offset);
	put_field(16, 4, wrong->bytes);
	must_refuse(-EINVAL, wrong->text);
}
END_TEST

START_TEST(backing_size_without_an_offset_means_nothing)
{
	make_header(cluster, 3);
	put_field(16, 4, 0xffffffff);
	must_parse();
	ck_assert(!header.backing);
	header_free(&header);
}
END_TEST

START_TEST(extensions_end_where_the_backing_name_begins)
{
	static const uint8_t data[MADE_CLUSTER_BYTES];
	size_t end;

	make_header(cluster, 3);
	make_backing(cluster, "base");
	/* Without an end mark, up to the name's first byte. */
	end = make_extension(cluster, 112, 0x1111, data,
	    MADE_CLUSTER_BYTES - 112 - 8 - 4);
	ck_assert_uint_eq(end, MADE_CLUSTER_BYTES);
	must_parse();
	ck_assert_uint_eq(header.extension_count, 1);
	header_free(&header);
	put_field(116, 4, MADE_CLUSTER_BYTES - 112 - 8 - 3);
	must_refuse(-EINVAL, "0x00001111 at 0x70 is 3973 bytes long, where "
	    "3972 are left");
}
END_TEST

/* ---- extensions ---- */

START_TEST(extension_with_a_huge_length_is_refused)
{
	static const uint32_t lengths[] = {
		MADE_CLUSTER_BYTES, 0x7fffffff, 0x80000000, 0xfffffff8,
		0xffffffff,
	};

	make_header(cluster, 3);
	make_extension(cluster, 112, 0x1111, "", 0);
	put_field(116, 4, lengths[_i]);
	must_refuse(-EINVAL, "header extension 0x00001111 at 0x70");
}
END_TEST

START_TEST(backing_format_is_read)
{
	make_header(cluster, 2);
	make_extension(cluster, 72, HEADER_EXTENSION_BACKING_FORMAT, "raw", 3);
	must_parse();
	ck_assert_str_eq(header.backing_format, "raw");
	header_free(&header);
}
END_TEST

START_TEST(backing_format_of_16_bytes_or_with_a_zero_is_refused)
{
	make_header(cluster, 3);
	make_extension(cluster, 112, HEADER_EXTENSION_BACKING_FORMAT,
	    "sixteen bytes...", 16);
	must_refuse(-EINVAL, "16 bytes long");
	make_header(cluster, 3);
	make_extension(cluster, 112, HEADER_EXTENSION_BACKING_FORMAT,
	    "raw\0x", 5);
	must_refuse(-EINVAL, "zero byte");
}
END_TEST

START_TEST(known_extension_twice_is_refused)
{
	size_t end;

	make_header(cluster, 3);
	end = make_extension(cluster, 112, HEADER_EXTENSION_BACKING_FORMAT,
	    "raw", 3);
	make_extension(cluster, end, HEADER_EXTENSION_BACKING_FORMAT,
	    "qcow2", 5);
	must_refuse(-EINVAL, "0xe2792aca is there twice");
}
END_TEST

START_TEST(more_extensions_than_the_limit_are_refused)
{
	uint8_t *large = calloc(1, 65536);
	size_t offset = 112;
	unsigned i;

	ck_assert_ptr_nonnull(large);
	make_header(large, 3);
	bytes_put32(large + 20, 16);
	bytes_put64(large + 40, 65536);
	bytes_put64(large + 48, 65536);
	for (i = 0; i < HEADER_EXTENSIONS_MAX; i++)
		offset = make_extension(large, offset, 0x1111, "", 0);
	ck_assert_int_eq(header_parse("x", large, 1 << 20, &header, &error), 0);
	ck_assert_uint_eq(header.extension_count, HEADER_EXTENSIONS_MAX);
	header_free(&header);
	make_extension(large, offset, 0x1111, "", 0);
	ck_assert_int_eq(header_parse("x", large, 1 << 20, &header, &error),
	    -EINVAL);
	free(large);
}
END_TEST

static void
put_feature_name(uint8_t record[48], unsigned type, unsigned bit,
    const char *name)
{
	memset(record, 0, 48);
	record[0] = (uint8_t)type;
	record[1] = (uint8_t)bit;
	memcpy(record + 2, name, strlen(name));
}

START_TEST(unknown_features_are_called_by_the_names_in_the_image)
{
	uint8_t table[3 * 48];

	/* The first is of another feature set; the last fills its room and
	 * would write to the terminal. */
	put_feature_name(table, 1, 40, "compatible thing");
	put_feature_name(table + 48, 0, 40, "shiny thing");
	put_feature_name(table + 96, 0, 41,
	    "\033]0;0123456789012345678901234567890123456789\n");
	make_header(cluster, 3);
	make_extension(cluster, 112, HEADER_EXTENSION_FEATURE_NAMES, table,
	    sizeof(table));
	put_field(72, 8, 7ull << 40);
	must_refuse(-ENOTSUP, "bit 40 (shiny thing), bit 41 (\\x1b]0;01234567"
	    "89012345678901234567890123456789\\x0a), bit 42");
	ck_assert_ptr_null(strchr(error.message, '\033'));
}
END_TEST

START_TEST(many_unknown_features_make_one_bounded_message)
{
	make_header(cluster, 3);
	put_field(72, 8, ~0ull);
	must_refuse(-ENOTSUP, "bit 5, bit 6, bit 7, bit 8, bit 9, bit 10, "
	    "bit 11, bit 12");
}
END_TEST

/* ---- bitmaps ---- */

static void
put_bitmaps(uint8_t data[24], uint32_t count, uint64_t bytes, uint64_t offset)
{
	memset(data, 0, 24);
	bytes_put32(data, count);
	bytes_put64(data + 8, bytes);
	bytes_put64(data + 16, offset);
}

START_TEST(bitmaps_are_valid_only_with_their_autoclear_bit)
{
	uint8_t data[24];

	put_bitmaps(data, 2, 64, MADE_BITMAPS);
	make_header(cluster, 3);
	make_extension(cluster, 112, HEADER_EXTENSION_BITMAPS, data, 24);
	must_parse();
	ck_assert(header.bitmaps.present && !header.bitmaps.fault);
	ck_assert_uint_eq(header.bitmaps.count, 2);
	ck_assert_uint_eq(header.bitmaps.directory_bytes, 64);
	ck_assert_uint_eq(header.bitmaps.directory_offset, MADE_BITMAPS);
	ck_assert(!header_bitmaps_valid(&header));
	header_free(&header);
	put_field(88, 8, HEADER_BITMAPS);
	must_parse();
	ck_assert(header_bitmaps_valid(&header));
	header_free(&header);
}
END_TEST

static const struct wrong_bitmaps {
	uint32_t count, reserved;
	uint64_t bytes, offset;
	uint32_t extension_bytes;
} wrong_bitmaps[] = {
	{ 0, 0, 64, MADE_BITMAPS, 24 },
	{ 65536, 0, 65536 * 24, MADE_BITMAPS, 24 },
	{ 1, 1, 64, MADE_BITMAPS, 24 },
	{ 1, 0, 23, MADE_BITMAPS, 24 },
	{ 3, 0, 71, MADE_BITMAPS, 24 },
	{ 1, 0, 65535 * 1024 + 1, MADE_BITMAPS, 24 },
	{ 1, 0, UINT64_MAX, MADE_BITMAPS, 24 },
	{ 1, 0, 64, MADE_BITMAPS + 8, 24 },
	{ 1, 0, 64, 0, 24 },
	{ 1, 0, 64, MADE_FILE_BYTES, 24 },
	{ 1, 0, 64, 0xfffffffffffff000, 24 },
	{ 1, 0, 64, MADE_BITMAPS, 23 },
	{ 1, 0, 64, MADE_BITMAPS, 0 },
};

START_TEST(faulty_bitmaps_do_not_keep_the_image_shut)
{
	const struct wrong_bitmaps *wrong = &wrong_bitmaps[_i];
	uint8_t data[24];

	put_bitmaps(data, wrong->count, wrong->bytes, wrong->offset);
	bytes_put32(data + 4, wrong->reserved);
	make_header(cluster, 3);
	put_field(88, 8, HEADER_BITMAPS);
	make_extension(cluster, 112, HEADER_EXTENSION_BITMAPS, data,
	    wrong->extension_bytes);
	must_parse();
	ck_assert(header.bitmaps.present && header.bitmaps.fault);
	ck_assert(!header_bitmaps_valid(&header));
	header_free(&header);
}
END_TEST

/* ---- writing ---- */

/* A header with everything in it, in an order of its own. */
static void
make_full_header(void)
{
	uint8_t bitmaps[24];
	size_t end;

	put_bitmaps(bitmaps, 1, 64, MADE_BITMAPS);
	make_header(cluster, 3);
	put_field(60, 4, 2);
	put_field(64, 8, MADE_SNAPSHOTS);
	put_field(72, 8, HEADER_COMPRESSION);
	put_field(80, 8, 0x8000000000000001);
	put_field(88, 8, 0x4000000000000001);
	put_field(96, 4, 0);
	put_field(100, 4, 136);
	memcpy(cluster + 104, "\1future fields, kept\0all of them", 32);
	end = make_extension(cluster, 136, 0xfeedface, "unknown one", 11);
	end = make_extension(cluster, end, HEADER_EXTENSION_BITMAPS, bitmaps,
	    24);
	end = make_extension(cluster, end, 0x00000001, "", 0);
	end = make_extension(cluster, end, HEADER_EXTENSION_BACKING_FORMAT,
	    "qcow2", 5);
	end = make_extension(cluster, end, 0xfeedface, "unknown again", 13);
	end += 8;
	memcpy(cluster + end, "base.qcow2", 10);
	put_field(8, 8, end);
	put_field(16, 4, 10);
}

START_TEST(header_is_written_as_it_was_read)
{
	uint8_t built[MADE_CLUSTER_BYTES];

	make_full_header();
	must_parse();
	ck_assert_uint_eq(header.extension_count, 5);
	memset(built, 0xee, sizeof(built));
	ck_assert_int_eq(header_build(&header, built, sizeof(built)), 0);
	ck_assert_mem_eq(built, cluster, sizeof(built));
	header_free(&header);
}
END_TEST

START_TEST(version_2_header_is_written_as_it_was_read)
{
	uint8_t built[MADE_CLUSTER_BYTES];
	size_t end;

	make_header(cluster, 2);
	end = make_extension(cluster, 72, 0xfeedface, "unknown", 7) + 8;
	memcpy(cluster + end, "base", 4);
	put_field(8, 8, end);
	put_field(16, 4, 4);
	must_parse();
	memset(built, 0xee, sizeof(built));
	ck_assert_int_eq(header_build(&header, built, sizeof(built)), 0);
	ck_assert_mem_eq(built, cluster, sizeof(built));
	header_free(&header);
}
END_TEST

START_TEST(header_that_does_not_fit_is_not_written)
{
	static uint8_t data[MADE_CLUSTER_BYTES];
	uint8_t built[MADE_CLUSTER_BYTES];
	uint32_t room = MADE_CLUSTER_BYTES - 112 - 8 - 8;

	make_header(cluster, 3);
	must_parse();
	ck_assert_int_eq(header_add_extension(&header, 7, data, room), 0);
	ck_assert_int_eq(header_build(&header, built, sizeof(built)), 0);
	header.backing = true;
	strcpy(header.backing_name, "b");
	memset(built, 0xee, sizeof(built));
	ck_assert_int_eq(header_build(&header, built, sizeof(built)), -ENOSPC);
	ck_assert_uint_eq(built[0], 0xee);
	header_free(&header);
}
END_TEST

START_TEST(patches_change_what_a_rewrite_would)
{
	uint8_t built[MADE_CLUSTER_BYTES];
	struct header_patch patches[5];
	unsigned i;

	make_full_header();
	must_parse();
	patches[0] = header_patch_incompatible(header.incompatible |= 1);
	patches[1] = header_patch_autoclear(header.autoclear = 2);
	patches[2] = header_patch_disk(&header,
	    header.size_bytes = 0x0807060504030201,
	    header.l1_entries = 0x01020304,
	    header.l1_offset = 0x1112131415161718);
	patches[3] = header_patch_refcount_table(
	    header.refcount_table_offset = 0x2122232425262728,
	    header.refcount_table_clusters = 0x31323334);
	patches[4] = header_patch_snapshots(
	    header.snapshot_count = 0x41424344,
	    header.snapshots_offset = 0x5152535455565758);
	for (i = 0; i < 5; i++)
		memcpy(cluster + patches[i].offset, patches[i].data,
		    patches[i].bytes);
	ck_assert_int_eq(header_build(&header, built, sizeof(built)), 0);
	ck_assert_mem_eq(built, cluster, sizeof(built));
	header_free(&header);
}
END_TEST

/* ---- policy ---- */

START_TEST(corrupt_images_may_only_be_read)
{
	static const struct {
		uint64_t bits;
		const char *text;
	} states[] = {
		{ HEADER_CORRUPT, "x.qcow2 is marked as corrupt" },
		{ HEADER_DIRTY | HEADER_CORRUPT, "is marked as corrupt" },
	};

	make_header(cluster, 3);
	must_parse();
	ck_assert_int_eq(header_check_policy("x.qcow2", &header, true, &error),
	    0);
	header.incompatible = HEADER_DIRTY;
	ck_assert_int_eq(header_check_policy("x.qcow2", &header, true, &error),
	    0);
	header.incompatible = states[_i].bits;
	ck_assert_int_eq(header_check_policy("x.qcow2", &header, false,
	    &error), 0);
	ck_assert_int_eq(header_check_policy("x.qcow2", &header, true, &error),
	    -EROFS);
	ck_assert_ptr_nonnull(strstr(error.message, states[_i].text));
	ck_assert_ptr_nonnull(strstr(error.hint,
	    "qnbd check --repair all x.qcow2"));
	header_free(&header);
}
END_TEST

/* ---- files ---- */

static int load_result;

co_fn static void
load(void *file)
{
	load_result = header_load(file, &header, &error);
}

START_TEST(header_of_a_file_is_loaded)
{
	make_full_header();
	with_file(cluster, sizeof(cluster), MADE_FILE_BYTES, load);
	ck_assert_msg(load_result == 0, "refused: %s", error.message);
	ck_assert_str_eq(header.backing_name, "base.qcow2");
	header_free(&header);
}
END_TEST

START_TEST(file_that_is_cut_short_is_refused)
{
	static const struct {
		size_t bytes;
		const char *text;
	} cuts[] = {
		{ 0, "is not a qcow2 image" },
		{ 3, "is not a qcow2 image" },
		{ 7, "version 0" },
		{ 20, "cluster_bits is 0" },
		{ 24, "cut short: it has 24 bytes" },
		{ 512, "cut short: it has 512 bytes" },
		{ MADE_CLUSTER_BYTES - 1, "cut short" },
	};

	make_full_header();
	with_file(cluster, cuts[_i].bytes, cuts[_i].bytes, load);
	ck_assert_int_lt(load_result, 0);
	ck_assert_msg(strstr(error.message, cuts[_i].text) != NULL,
	    "\"%s\" says nothing of \"%s\"", error.message, cuts[_i].text);
}
END_TEST

#define COUNT(array)	((int)(sizeof(array) / sizeof((array)[0])))

static TCase *
case_of_fields(void)
{
	TCase *fields = tcase_create("fields");

	tcase_add_test(fields, version_2_has_fixed_refcounts_and_no_features);
	tcase_add_test(fields, version_3_has_features_and_refcount_order);
	tcase_add_loop_test(fields, wrong_field_is_refused_by_name_and_value,
	    0, COUNT(wrong_fields));
	tcase_add_loop_test(fields, field_at_its_limit_is_taken, 0,
	    COUNT(right_fields));
	tcase_add_test(fields,
	    table_may_end_in_a_last_cluster_that_is_cut_short);
	tcase_add_test(fields, empty_disk_needs_no_l1_table);
	tcase_add_test(fields, start_tells_the_cluster_size);
	tcase_add_test(fields, backing_name_may_take_1023_bytes_to_the_end);
	tcase_add_loop_test(fields,
	    backing_name_outside_of_the_first_cluster_is_refused, 0,
	    COUNT(wrong_names));
	tcase_add_test(fields, backing_size_without_an_offset_means_nothing);
	return fields;
}

static TCase *
case_of_extensions(void)
{
	TCase *extensions = tcase_create("extensions");

	tcase_add_test(extensions,
	    extensions_end_where_the_backing_name_begins);
	tcase_add_loop_test(extensions,
	    extension_with_a_huge_length_is_refused, 0, 5);
	tcase_add_test(extensions, backing_format_is_read);
	tcase_add_test(extensions,
	    backing_format_of_16_bytes_or_with_a_zero_is_refused);
	tcase_add_test(extensions, known_extension_twice_is_refused);
	tcase_add_test(extensions, more_extensions_than_the_limit_are_refused);
	tcase_add_test(extensions,
	    unknown_features_are_called_by_the_names_in_the_image);
	tcase_add_test(extensions,
	    many_unknown_features_make_one_bounded_message);
	tcase_add_test(extensions,
	    bitmaps_are_valid_only_with_their_autoclear_bit);
	tcase_add_loop_test(extensions,
	    faulty_bitmaps_do_not_keep_the_image_shut, 0,
	    COUNT(wrong_bitmaps));
	return extensions;
}

int
main(void)
{
	Suite *suite = suite_create("header");
	TCase *writing = tcase_create("writing");
	TCase *files = tcase_create("files");

	tcase_add_test(writing, header_is_written_as_it_was_read);
	tcase_add_test(writing, version_2_header_is_written_as_it_was_read);
	tcase_add_test(writing, header_that_does_not_fit_is_not_written);
	tcase_add_test(writing, patches_change_what_a_rewrite_would);
	tcase_add_loop_test(files, corrupt_images_may_only_be_read,
	    0, 2);
	tcase_add_test(files, header_of_a_file_is_loaded);
	tcase_add_loop_test(files, file_that_is_cut_short_is_refused, 0, 7);
	suite_add_tcase(suite, case_of_fields());
	suite_add_tcase(suite, case_of_extensions());
	suite_add_tcase(suite, writing);
	suite_add_tcase(suite, files);
	return test_main(suite);
}
