/* SPDX-License-Identifier: MIT */
/*
 * Guards the loading of the snapshot table: entries of every age of the format
 * are understood, extra data of the future is kept, and lengths that lie are
 * refused before anything is read or allocated by them.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/header.h"
#include "qcow2/snapshot.h"
#include "runtime/file.h"
#include "tests/unit/test_qcow2.h"
#include "tests/unit/test_runtime.h"

#define IMAGE_BYTES	(1u << 20)

static uint8_t image[IMAGE_BYTES];
static struct header header;
static struct snapshot_table table;
static struct error error;
static int result;

/* An image whose header says count snapshots, with an empty table. */
static void
make_image(uint32_t count)
{
	memset(image, 0, sizeof(image));
	make_header(image, 3);
	bytes_put32(image + 60, count);
	bytes_put64(image + 64, MADE_SNAPSHOTS);
	ck_assert_int_eq(header_parse("x.qcow2", image, IMAGE_BYTES, &header,
	    &error), 0);
}

/* Writes an entry of the table at *offsetp and moves on. */
static void
put_entry(size_t *offsetp, const char *id, const char *name,
    const void *extra, uint32_t extra_bytes)
{
	uint8_t *entry = image + MADE_SNAPSHOTS + *offsetp;
	size_t id_bytes = strlen(id), name_bytes = strlen(name);

	bytes_put64(entry, MADE_L1);
	bytes_put32(entry + 8, 4);
	bytes_put16(entry + 12, (uint16_t)id_bytes);
	bytes_put16(entry + 14, (uint16_t)name_bytes);
	bytes_put32(entry + 16, 1700000000);
	bytes_put32(entry + 20, 999999999);
	bytes_put64(entry + 24, 123456789012);
	bytes_put32(entry + 32, 77);
	bytes_put32(entry + 36, extra_bytes);
	if (extra_bytes)
		memcpy(entry + 40, extra, extra_bytes);
	memcpy(entry + 40 + extra_bytes, id, id_bytes);
	memcpy(entry + 40 + extra_bytes + id_bytes, name, name_bytes);
	*offsetp += (40 + extra_bytes + id_bytes + name_bytes + 7) & ~(size_t)7;
}

co_fn static void
load(void *file)
{
	result = snapshot_table_load(file, &header, &table, &error);
}

static void
must_load(void)
{
	with_file(image, sizeof(image), sizeof(image), load);
	ck_assert_msg(result == 0, "refused: %s", error.message);
	ck_assert_uint_eq(table.count, header.snapshot_count);
}

static void
must_refuse(const char *text)
{
	with_file(image, sizeof(image), sizeof(image), load);
	ck_assert_int_eq(result, -EINVAL);
	ck_assert_msg(strstr(error.message, text) != NULL,
	    "\"%s\" says nothing of \"%s\"", error.message, text);
	ck_assert_uint_eq(table.count, 0);
	ck_assert_ptr_null(table.list);
	header_free(&header);
}

static void
end(void)
{
	snapshot_table_free(&table);
	header_free(&header);
}

START_TEST(no_snapshots_make_an_empty_table)
{
	make_image(0);
	must_load();
	ck_assert_uint_eq(table.bytes, 0);
	end();
}
END_TEST

START_TEST(all_fields_of_an_entry_are_decoded)
{
	uint8_t extra[24];
	size_t bytes = 0;
	const struct snapshot *snapshot;

	bytes_put64(extra, 5000000000);
	bytes_put64(extra + 8, 1 << 20);
	bytes_put64(extra + 16, 42);
	make_image(1);
	put_entry(&bytes, "1", "before the upgrade", extra, 24);
	must_load();
	ck_assert_uint_eq(table.bytes, bytes);
	snapshot = &table.list[0];
	ck_assert_str_eq(snapshot->id, "1");
	ck_assert_str_eq(snapshot->name, "before the upgrade");
	ck_assert_uint_eq(snapshot->l1_offset, MADE_L1);
	ck_assert_uint_eq(snapshot->l1_entries, 4);
	ck_assert_uint_eq(snapshot->date_seconds, 1700000000);
	ck_assert_uint_eq(snapshot->date_nanoseconds, 999999999);
	ck_assert_uint_eq(snapshot->vm_clock_ns, 123456789012);
	ck_assert_uint_eq(snapshot->vm_state_bytes, 5000000000);
	ck_assert_uint_eq(snapshot->disk_bytes, 1 << 20);
	ck_assert_uint_eq(snapshot->icount, 42);
	end();
}
END_TEST

START_TEST(fields_that_an_older_entry_lacks_have_their_defaults)
{
	uint8_t extra[16];
	size_t bytes = 0;

	bytes_put64(extra, 88);
	bytes_put64(extra + 8, 99);
	make_image(3);
	put_entry(&bytes, "1", "none", NULL, 0);
	put_entry(&bytes, "2", "state", extra, 8);
	put_entry(&bytes, "3", "disk", extra, 16);
	must_load();
	ck_assert_uint_eq(table.list[0].vm_state_bytes, 77);
	ck_assert_uint_eq(table.list[0].disk_bytes, 8u << 20);
	ck_assert_uint_eq(table.list[0].icount, SNAPSHOT_NO_ICOUNT);
	ck_assert_uint_eq(table.list[1].vm_state_bytes, 88);
	ck_assert_uint_eq(table.list[1].disk_bytes, 8u << 20);
	ck_assert_uint_eq(table.list[2].disk_bytes, 99);
	ck_assert_uint_eq(table.list[2].icount, SNAPSHOT_NO_ICOUNT);
	end();
}
END_TEST

START_TEST(extra_data_of_the_future_is_kept)
{
	uint8_t extra[SNAPSHOT_EXTRA_BYTES_MAX];
	size_t bytes = 0;

	test_fill(extra, sizeof(extra), 3);
	make_image(2);
	put_entry(&bytes, "1", "future", extra, sizeof(extra));
	put_entry(&bytes, "2", "odd", extra, 29);
	must_load();
	ck_assert_uint_eq(table.list[0].extra_bytes, sizeof(extra));
	ck_assert_mem_eq(table.list[0].extra, extra, sizeof(extra));
	ck_assert_str_eq(table.list[0].name, "future");
	ck_assert_uint_eq(table.list[1].extra_bytes, 29);
	ck_assert_str_eq(table.list[1].id, "2");
	ck_assert_str_eq(table.list[1].name, "odd");
	end();
}
END_TEST

/* More than the window holds at once. */
START_TEST(long_names_and_many_entries_are_loaded)
{
	char *name = malloc(65536);
	size_t bytes = 0;
	unsigned i;

	ck_assert_ptr_nonnull(name);
	memset(name, 'n', 65535);
	name[65535] = '\0';
	make_image(1003);
	for (i = 0; i < 1000; i++)
		put_entry(&bytes, "id", "name", NULL, 0);
	for (i = 0; i < 3; i++)
		put_entry(&bytes, name, name, NULL, 0);
	must_load();
	ck_assert_uint_eq(table.bytes, bytes);
	ck_assert_str_eq(table.list[999].name, "name");
	ck_assert_str_eq(table.list[1002].id, name);
	ck_assert_str_eq(table.list[1002].name, name);
	free(name);
	end();
}
END_TEST

START_TEST(extra_data_past_its_limit_is_refused)
{
	static const uint32_t lengths[] = { 1025, 0x7fffffff, 0xffffffff };
	size_t bytes = 0;

	make_image(2);
	put_entry(&bytes, "1", "fine", NULL, 0);
	bytes_put32(image + MADE_SNAPSHOTS + bytes + 36, lengths[_i]);
	must_refuse("x.qcow2: entry 1 of the snapshot table, at 0x3030");
}
END_TEST

/* Its last entry would be completed by the zeros that follow the file. */
START_TEST(table_past_the_end_of_the_file_is_refused)
{
	uint64_t last_cluster = IMAGE_BYTES - MADE_CLUSTER_BYTES;
	unsigned i;

	make_image(4);
	header.snapshots_offset = last_cluster;
	for (i = 0; i < 4; i++)
		bytes_put32(image + last_cluster + i * (40 + 1024) + 36, 1024);
	must_refuse("x.qcow2: the snapshot table at 0xff000 (4256 bytes) lies "
	    "past the end of the file");
}
END_TEST

START_TEST(names_with_a_zero_byte_are_refused)
{
	size_t bytes = 0;

	make_image(1);
	put_entry(&bytes, "1", "fine", NULL, 0);
	image[MADE_SNAPSHOTS + 42] = '\0';
	must_refuse("entry 0");
}
END_TEST

START_TEST(place_of_the_l1_table_is_judged_on_demand)
{
	static const struct {
		uint64_t offset;
		uint32_t entries;
		const char *text;
	} places[] = {
		{ MADE_L1, 4, NULL },
		{ 0, 0, NULL },
		{ IMAGE_BYTES - MADE_CLUSTER_BYTES, 512, NULL },
		{ IMAGE_BYTES - MADE_CLUSTER_BYTES, 513, "past the end" },
		{ MADE_L1, (4u << 20) + 1, "too long" },
		{ MADE_L1, UINT32_MAX, "too long" },
		{ MADE_L1 + 8, 4, "aligned" },
		{ 0, 4, "header" },
		{ 0xfffffffffffff000, 4, "past the end" },
	};
	struct snapshot snapshot = { .l1_offset = places[_i].offset,
	    .l1_entries = places[_i].entries };
	const char *fault;

	make_image(0);
	fault = snapshot_l1_fault(&snapshot, &header, IMAGE_BYTES);
	if (places[_i].text)
		ck_assert(fault && strstr(fault, places[_i].text));
	else
		ck_assert_ptr_null(fault);
	end();
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("snapshot");
	TCase *entries = tcase_create("entries");
	TCase *limits = tcase_create("limits");

	tcase_add_test(entries, no_snapshots_make_an_empty_table);
	tcase_add_test(entries, all_fields_of_an_entry_are_decoded);
	tcase_add_test(entries,
	    fields_that_an_older_entry_lacks_have_their_defaults);
	tcase_add_test(entries, extra_data_of_the_future_is_kept);
	tcase_add_test(entries, long_names_and_many_entries_are_loaded);
	tcase_add_loop_test(limits, extra_data_past_its_limit_is_refused, 0,
	    3);
	tcase_add_test(limits, table_past_the_end_of_the_file_is_refused);
	tcase_add_test(limits, names_with_a_zero_byte_are_refused);
	tcase_add_loop_test(limits, place_of_the_l1_table_is_judged_on_demand,
	    0, 9);
	suite_add_tcase(suite, entries);
	suite_add_tcase(suite, limits);
	return test_main(suite);
}
