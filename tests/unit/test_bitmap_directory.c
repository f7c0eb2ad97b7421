/* SPDX-License-Identifier: MIT */
/*
 * Guards the loading of the bitmap directory: names and tables are found past
 * extra data, and lengths that lie are refused.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bitmap_directory.h"
#include "qcow2/bytes.h"
#include "qcow2/header.h"
#include "runtime/file.h"
#include "tests/unit/test_qcow2.h"
#include "tests/unit/test_runtime.h"

#define TABLE	(5u * MADE_CLUSTER_BYTES)

static uint8_t image[MADE_FILE_BYTES];
static struct header header;
static struct bitmap_directory directory;
static struct error error;
static size_t used;		/* of the directory */
static int result;

/* Writes an entry of the directory behind those that it has. */
static void
put_bitmap(const char *name, uint32_t flags, uint32_t extra_bytes)
{
	uint8_t *entry = image + MADE_BITMAPS + used;
	size_t name_bytes = strlen(name);

	bytes_put64(entry, TABLE);
	bytes_put32(entry + 8, 2);
	bytes_put32(entry + 12, flags);
	entry[16] = 1;
	entry[17] = 16;
	bytes_put16(entry + 18, (uint16_t)name_bytes);
	bytes_put32(entry + 20, extra_bytes);
	memcpy(entry + 24 + extra_bytes, name, name_bytes);
	used += (24 + extra_bytes + name_bytes + 7) & ~(size_t)7;
}

co_fn static void
load(void *file)
{
	result = bitmap_directory_load(file, &header, &directory, &error);
}

/* Loads a directory of count bitmaps and bytes bytes. */
static void
load_directory(uint32_t count, uint64_t bytes)
{
	uint8_t extension[24] = { 0 };

	bytes_put32(extension, count);
	bytes_put64(extension + 8, bytes);
	bytes_put64(extension + 16, MADE_BITMAPS);
	make_header(image, 3);
	bytes_put64(image + 88, HEADER_BITMAPS);
	make_extension(image, 112, HEADER_EXTENSION_BITMAPS, extension, 24);
	ck_assert_int_eq(header_parse("x.qcow2", image, sizeof(image), &header,
	    &error), 0);
	with_file(image, sizeof(image), sizeof(image), load);
	header_free(&header);
}

static void
must_refuse(const char *text)
{
	ck_assert_int_eq(result, -EINVAL);
	ck_assert_msg(strstr(error.message, text) != NULL,
	    "\"%s\" says nothing of \"%s\"", error.message, text);
	ck_assert_uint_eq(directory.count, 0);
	ck_assert_ptr_null(directory.list);
}

START_TEST(bitmaps_are_found_past_extra_data)
{
	put_bitmap("monday", BITMAP_AUTO, 0);
	put_bitmap("tuesday", BITMAP_IN_USE | BITMAP_EXTRA_DATA_COMPATIBLE,
	    1001);
	put_bitmap("wednesday", 0, 0);
	load_directory(3, used);
	ck_assert_msg(result == 0, "refused: %s", error.message);
	ck_assert_uint_eq(directory.count, 3);
	ck_assert_str_eq(directory.list[0].name, "monday");
	ck_assert_str_eq(directory.list[1].name, "tuesday");
	ck_assert_str_eq(directory.list[2].name, "wednesday");
	ck_assert_uint_eq(directory.list[0].flags, BITMAP_AUTO);
	ck_assert_uint_eq(directory.list[2].table_offset, TABLE);
	ck_assert_uint_eq(directory.list[2].table_entries, 2);
	ck_assert_uint_eq(directory.list[2].type, 1);
	ck_assert_uint_eq(directory.list[2].granularity_bits, 16);
	bitmap_directory_free(&directory);
}
END_TEST

START_TEST(image_without_bitmaps_has_an_empty_directory)
{
	make_header(image, 3);
	ck_assert_int_eq(header_parse("x.qcow2", image, sizeof(image), &header,
	    &error), 0);
	with_file(image, sizeof(image), sizeof(image), load);
	ck_assert_int_eq(result, 0);
	ck_assert_uint_eq(directory.count, 0);
}
END_TEST

START_TEST(faulty_extension_is_reported)
{
	load_directory(0, 64);
	must_refuse("x.qcow2: bitmaps extension: the number of bitmaps");
}
END_TEST

START_TEST(padding_of_the_last_entry_may_be_cut)
{
	put_bitmap("monday", 0, 0);
	load_directory(1, 30);
	ck_assert_int_eq(result, 0);
	bitmap_directory_free(&directory);
	load_directory(1, 29);
	must_refuse("entry 0");
}
END_TEST

/* One number of the second entry that is out of bounds. */
static const struct wrong_field {
	unsigned offset, bytes;
	uint64_t value;
} wrong_fields[] = {
	{ 0, 8, 0 },
	{ 0, 8, TABLE + 8 },
	{ 0, 8, MADE_FILE_BYTES },
	{ 0, 8, 0xfffffffffffff000 },
	{ 8, 4, 0x8000001 },
	{ 8, 4, 0xffffffff },
	{ 8, 4, 11 * 512 + 1 },
	{ 12, 4, 8 },
	{ 12, 4, 0x80000000 },
	{ 17, 1, 64 },
	{ 18, 2, 0 },
	{ 18, 2, 1024 },
	{ 20, 4, 0xffffffff },
	{ 20, 4, 4096 },
};

START_TEST(wrong_field_of_an_entry_is_refused)
{
	const struct wrong_field *wrong = &wrong_fields[_i];
	uint8_t *field;

	put_bitmap("monday", 0, 0);
	field = image + MADE_BITMAPS + used + wrong->offset;
	put_bitmap("tuesday", 0, 0);
	if (wrong->bytes == 8)
		bytes_put64(field, wrong->value);
	else if (wrong->bytes == 4)
		bytes_put32(field, (uint32_t)wrong->value);
	else if (wrong->bytes == 2)
		bytes_put16(field, (uint16_t)wrong->value);
	else
		*field = (uint8_t)wrong->value;
	load_directory(2, used);
	must_refuse("x.qcow2: entry 1 of the bitmap directory, at 0x4020");
}
END_TEST

START_TEST(names_are_listed_as_far_as_they_fit)
{
	char text[64];

	put_bitmap("monday", 0, 0);
	put_bitmap("tue\033sday", 0, 0);
	put_bitmap("wednesday", 0, 0);
	load_directory(3, used);
	ck_assert_str_eq(bitmap_directory_names(&directory, text,
	    sizeof(text)), "\"monday\", \"tue\\x1bsday\", \"wednesday\"");
	ck_assert_str_eq(bitmap_directory_names(&directory, text, 48),
	    "\"monday\", \"tue\\x1bsday\" and 1 more");
	ck_assert_str_eq(bitmap_directory_names(&directory, text, 24),
	    "\"monday\" and 2 more");
	ck_assert_str_eq(bitmap_directory_names(&directory, text, 23),
	    "3 bitmaps");
	bitmap_directory_free(&directory);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("bitmap_directory");
	TCase *loading = tcase_create("loading");

	tcase_add_test(loading, bitmaps_are_found_past_extra_data);
	tcase_add_test(loading, image_without_bitmaps_has_an_empty_directory);
	tcase_add_test(loading, faulty_extension_is_reported);
	tcase_add_test(loading, padding_of_the_last_entry_may_be_cut);
	tcase_add_loop_test(loading, wrong_field_of_an_entry_is_refused, 0,
	    sizeof(wrong_fields) / sizeof(wrong_fields[0]));
	tcase_add_test(loading, names_are_listed_as_far_as_they_fit);
	suite_add_tcase(suite, loading);
	return test_main(suite);
}
