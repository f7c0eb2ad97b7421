/* SPDX-License-Identifier: MIT */
/*
 * The recorder.  Guards against: events numbered in another order than they
 * happened, operations that are passed on changed or recorded other than they
 * were done, a buffer that changes under I/O unnoticed, an export that other
 * explorers of dm-log-writes logs would misread, and a draft that waits for the
 * disk.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/file_record.h"
#include "runtime/file_sim.h"
#include "tests/unit/test_runtime.h"

struct fixture {
	struct record_log *log;
	struct file *disk;	/* the test's own handle */
	struct file *file;	/* records what is done to the disk */
};

static void
setup(struct fixture *fixture, struct sim *sim)
{
	struct file *inner;

	ck_assert_int_eq(record_log_create(&fixture->log), 0);
	ck_assert_int_eq(file_sim_create(sim, "disk", 0, &fixture->disk), 0);
	ck_assert_int_eq(file_sim_open(fixture->disk, &inner), 0);
	ck_assert_int_eq(file_record_open(fixture->log, 3, inner, true,
	    &fixture->file), 0);
}

static void
teardown(struct fixture *fixture)
{
	file_close(fixture->file);
	file_close(fixture->disk);
	record_log_free(fixture->log);
}

static void
check_entry(const struct fixture *fixture, size_t index,
    enum record_kind kind, uint64_t offset, uint64_t length, int64_t result)
{
	const struct record *entry = record_log_at(fixture->log, index);

	ck_assert_int_eq(entry->kind, kind);
	ck_assert_uint_eq(entry->source, 3);
	ck_assert_uint_eq(entry->offset, offset);
	ck_assert_uint_eq(entry->length, length);
	ck_assert_int_eq(entry->result, result);
	ck_assert_uint_eq(entry->submitted, 2 * index + 1);
	ck_assert_uint_eq(entry->completed, 2 * index + 2);
}

START_TEST(test_every_operation_is_recorded)
{
	struct fixture f;
	struct iovec iov[2] = {{"hel", 3}, {"lo", 2}};
	char back[5];

	file_sim_plain();
	setup(&f, NULL);
	ck_assert_int_eq(file_pwritev(f.file, iov, 2, 10, FILE_DSYNC), 0);
	ck_assert_int_eq(file_pread(f.file, back, 5, 10), 0);
	ck_assert_int_eq(memcmp(back, "hello", 5), 0);
	ck_assert_int_eq(file_fallocate(f.file, FILE_ALLOCATE, 0, 8192), 0);
	ck_assert_int_eq(file_fallocate(f.file, FILE_ZERO, 1, 2), 0);
	ck_assert_int_eq(file_fallocate(f.file, FILE_PUNCH, 4096, 4096), 0);
	ck_assert_int_eq(file_truncate(f.file, 4096), 0);
	ck_assert_int_eq(file_fdatasync(f.file), 0);
	check_entry(&f, 0, RECORD_WRITE, 10, 5, 5);
	ck_assert_uint_eq(record_log_at(f.log, 0)->flags, RECORD_DSYNC);
	ck_assert_int_eq(memcmp(record_log_at(f.log, 0)->data, "hello", 5), 0);
	check_entry(&f, 1, RECORD_READ, 10, 5, 5);
	check_entry(&f, 2, RECORD_ALLOCATE, 0, 8192, 0);
	check_entry(&f, 3, RECORD_ZERO, 1, 2, 0);
	check_entry(&f, 4, RECORD_PUNCH, 4096, 4096, 0);
	check_entry(&f, 5, RECORD_TRUNCATE, 4096, 0, 0);
	check_entry(&f, 6, RECORD_SYNC, 0, 0, 0);
	ck_assert_uint_eq(record_log_count(f.log), 7);
	ck_assert_uint_eq(record_log_next(f.log), 15);
	ck_assert_int_eq(file_size(f.file), 4096);
	ck_assert_int_eq(file_seek_hole(f.file, 0), 4096);
	ck_assert_uint_eq(file_record_changed(f.file), 0);
	teardown(&f);
}
END_TEST

/* Nor does it take room that it does not want. */
START_TEST(test_draft_is_not_made_stable)
{
	struct fixture f;

	file_sim_plain();
	setup(&f, NULL);
	file_make_draft(f.file);
	ck_assert_int_eq(file_pwrite(f.file, "hello", 5, 0, FILE_DSYNC), 0);
	ck_assert_int_eq(file_fdatasync(f.file), 0);
	ck_assert_int_eq(file_make_room(f.file, 0, 4096), -EOPNOTSUPP);
	ck_assert_uint_eq(record_log_count(f.log), 1);
	check_entry(&f, 0, RECORD_WRITE, 0, 5, 5);
	ck_assert_uint_eq(record_log_at(f.log, 0)->flags, 0);
	teardown(&f);
}
END_TEST

/* Each try is an entry of its own, with what the disk made of it. */
START_TEST(test_short_and_failed_operations)
{
	struct fixture f;

	file_sim_plain();
	setup(&f, NULL);
	file_sim_fail(f.disk, &(struct file_sim_fault){
		.kinds = FILE_SIM_WRITE, .nth = 1, .result = 2,
	});
	file_sim_fail(f.disk, &(struct file_sim_fault){
		.kinds = FILE_SIM_SYNC, .nth = 1, .result = -EIO,
	});
	ck_assert_int_eq(file_pwrite(f.file, "hello", 5, 0, 0), 0);
	ck_assert_int_eq(file_fdatasync(f.file), -EIO);
	check_entry(&f, 0, RECORD_WRITE, 0, 5, 2);
	check_entry(&f, 1, RECORD_WRITE, 2, 3, 3);
	ck_assert_int_eq(memcmp(record_log_at(f.log, 1)->data, "llo", 3), 0);
	check_entry(&f, 2, RECORD_SYNC, 0, 0, -EIO);
	teardown(&f);
}
END_TEST

struct overlap {
	struct fixture fixture;
	struct co_start starts[2];
	char slow[512];
	size_t request;
};

co_fn static void
write_slowly(void *arg)
{
	struct overlap *overlap = arg;

	ck_assert_int_eq(file_pwrite(overlap->fixture.file, overlap->slow,
	    sizeof(overlap->slow), 0, 0), 0);
}

/* Changes the buffer of the other's write, and has a request going on. */
co_fn static void
meddle(void *arg)
{
	struct overlap *overlap = arg;
	struct record_log *log = overlap->fixture.log;
	size_t request = record_begin(log, &(struct record){
		.kind = RECORD_REQUEST_FLUSH, .source = 9,
	});

	loop_sleep(1000000000);
	overlap->slow[100]++;
	ck_assert_int_eq(file_fdatasync(overlap->fixture.file), 0);
	record_end(log, request, 0);
	overlap->request = request;
}

START_TEST(test_concurrent_events_are_numbered)
{
	struct file_sim_hold hold = {.kinds = FILE_SIM_WRITE};
	struct overlap overlap = {0};
	const struct record *write, *request, *sync;
	struct sim *sim;

	ck_assert_int_eq(sim_create(1, 2, &sim), 0);
	setup(&overlap.fixture, sim);
	file_sim_hold(overlap.fixture.disk, &hold);
	sim_start(sim, 0, &overlap.starts[0], write_slowly, &overlap);
	sim_start(sim, 1, &overlap.starts[1], meddle, &overlap);
	ck_assert_int_eq(sim_run(sim), SIM_HELD);
	file_sim_release(overlap.fixture.disk, &hold);
	ck_assert_int_eq(sim_run(sim), SIM_DONE);
	ck_assert_uint_eq(record_log_count(overlap.fixture.log), 3);
	request = record_log_at(overlap.fixture.log, overlap.request);
	write = record_log_at(overlap.fixture.log, 1 - overlap.request);
	sync = record_log_at(overlap.fixture.log, 2);
	ck_assert_int_eq(write->kind, RECORD_WRITE);
	ck_assert_uint_eq(request->submitted + write->submitted, 3);
	ck_assert_uint_eq(sync->submitted, 3);
	ck_assert_uint_eq(sync->completed, 4);
	ck_assert_uint_eq(request->completed, 5);
	ck_assert_uint_eq(write->completed, 6);
	ck_assert_int_eq(write->data[100], 0);
	ck_assert_uint_eq(file_record_changed(overlap.fixture.file), 1);
	teardown(&overlap.fixture);
	sim_free(sim);
}
END_TEST

/* ---- the export ---- */

/* An entry as a reader of the format sees it. */
struct exported {
	uint64_t sector, sectors, flags, data_length;
	char text[480];
};

static uint64_t
take_number(FILE *stream)
{
	uint64_t number;

	ck_assert_uint_eq(fread(&number, sizeof(number), 1, stream), 1);
	return le64toh(number);
}

/* data gets the first sector that was written. */
static struct exported
take_entry(FILE *stream, char data[512])
{
	struct exported entry = {0};

	entry.sector = take_number(stream);
	entry.sectors = take_number(stream);
	entry.flags = take_number(stream);
	entry.data_length = take_number(stream);
	ck_assert_uint_eq(fread(entry.text, 480, 1, stream), 1);
	for (uint64_t i = 0; i < entry.sectors && !(entry.flags & 4); i++) {
		char sector[512];

		ck_assert_uint_eq(fread(sector, 512, 1, stream), 1);
		if (i == 0)
			memcpy(data, sector, 512);
	}
	return entry;
}

static void
expect(FILE *stream, uint64_t sector, uint64_t sectors, uint64_t flags,
    char data[512])
{
	struct exported entry = take_entry(stream, data);

	ck_assert_uint_eq(entry.sector, sector);
	ck_assert_uint_eq(entry.sectors, sectors);
	ck_assert_uint_eq(entry.flags, flags);
	ck_assert_uint_eq(entry.data_length, 0);
}

static void
expect_mark(FILE *stream, const char *begin)
{
	char data[512];
	struct exported entry = take_entry(stream, data);

	ck_assert_uint_eq(entry.flags, 8);
	ck_assert_uint_eq(entry.data_length, strlen(entry.text));
	ck_assert_msg(!strncmp(entry.text, begin, strlen(begin)), "%s",
	    entry.text);
}

/* The third write begins before the flush, and completes while it runs. */
static void
fill_log(struct record_log *log)
{
	uint8_t ones[1024], twos[512], threes[8];
	struct record entries[] = {
		{.kind = RECORD_WRITE, .submitted = 1, .completed = 4,
		    .offset = 0, .length = 1024, .result = 1024,
		    .data = ones},
		{.kind = RECORD_WRITE, .submitted = 2, .completed = 3,
		    .offset = 1024, .length = 512, .result = 512,
		    .data = twos},
		{.kind = RECORD_WRITE, .submitted = 5, .completed = 7,
		    .offset = 4, .length = 8, .result = 8, .data = threes},
		{.kind = RECORD_SYNC, .submitted = 6, .completed = 8},
		{.kind = RECORD_WRITE, .submitted = 9, .completed = 10,
		    .offset = 512, .length = 512, .result = 512,
		    .flags = RECORD_DSYNC, .data = twos},
		{.kind = RECORD_REQUEST_TRIM, .submitted = 11,
		    .completed = RECORD_NEVER},
		{.kind = RECORD_PUNCH, .submitted = 12, .completed = 13,
		    .offset = 500, .length = 1000},
		{.kind = RECORD_WRITE, .submitted = 14, .completed = 15,
		    .source = 1, .length = 8, .result = 8, .data = threes},
		{.kind = RECORD_SYNC, .submitted = 16, .completed = 17,
		    .result = -EIO},
		{.kind = RECORD_TRUNCATE, .submitted = 18, .completed = 19,
		    .offset = 99},
	};

	memset(ones, 1, sizeof(ones));
	memset(twos, 2, sizeof(twos));
	memset(threes, 3, sizeof(threes));
	for (size_t i = 0; i < sizeof(entries) / sizeof(*entries); i++)
		record_add(log, &entries[i]);
}

/* In order of completion, and what no flush made stable after it. */
static void
check_export(FILE *stream)
{
	char data[512];

	ck_assert_uint_eq(take_number(stream), 0x6a736677736872ull);
	ck_assert_uint_eq(take_number(stream), 1);
	ck_assert_uint_eq(take_number(stream), 10);
	ck_assert_uint_eq(take_number(stream) & UINT32_MAX, 512);
	ck_assert_int_eq(fseek(stream, 512, SEEK_SET), 0);
	expect(stream, 2, 1, 0, data);
	ck_assert_int_eq(data[0], 2);
	expect(stream, 0, 2, 0, data);
	ck_assert_int_eq(data[0], 1);
	expect(stream, 0, 0, 1, data);
	expect(stream, 1, 1, 2, data);
	ck_assert_int_eq(data[0], 2);
	expect_mark(stream, "received trim connection 0");
	/* Eight bytes, completed to a sector. */
	expect(stream, 0, 1, 0, data);
	ck_assert_int_eq(data[3], 1);
	ck_assert_int_eq(data[4], 3);
	ck_assert_int_eq(data[12], 1);
	/* A hole from 500 to 1500: head, middle, tail. */
	expect(stream, 0, 1, 0, data);
	ck_assert_int_eq(data[499], 1);
	ck_assert_int_eq(data[500], 0);
	expect(stream, 1, 1, 4, data);
	expect(stream, 2, 1, 0, data);
	ck_assert_int_eq(data[475], 0);
	ck_assert_int_eq(data[476], 2);
	expect_mark(stream, "truncate 99");
	ck_assert_int_eq(fgetc(stream), EOF);
}

START_TEST(test_export)
{
	struct record_log *log;
	char path[512];
	FILE *stream;

	snprintf(path, sizeof(path), "%s/log", test_directory());
	ck_assert_int_eq(record_log_create(&log), 0);
	fill_log(log);
	ck_assert_int_eq(record_export(log, 0, NULL, path), 0);
	stream = fopen(path, "rb");
	ck_assert_ptr_nonnull(stream);
	check_export(stream);
	fclose(stream);
	unlink(path);
	ck_assert_int_eq(record_export(log, 0, NULL, "/nonexistent/log"),
	    -ENOENT);
	record_log_free(log);
}
END_TEST

/* What was on the disk before is what completes a sector. */
START_TEST(test_export_knows_the_base)
{
	struct record_log *log;
	struct file *base;
	char path[512], data[512];
	FILE *stream;

	snprintf(path, sizeof(path), "%s/log", test_directory());
	ck_assert_int_eq(record_log_create(&log), 0);
	ck_assert_int_eq(file_sim_create(NULL, "base", 0, &base), 0);
	file_sim_poke(base, "before", 6, 100);
	record_add(log, &(struct record){
		.kind = RECORD_WRITE, .submitted = 1, .completed = 2,
		.offset = 103, .length = 1, .result = 1,
		.data = (uint8_t []){'X'},
	});
	ck_assert_int_eq(record_export(log, 0, base, path), 0);
	stream = fopen(path, "rb");
	ck_assert_ptr_nonnull(stream);
	ck_assert_int_eq(fseek(stream, 512, SEEK_SET), 0);
	expect(stream, 0, 1, 0, data);
	ck_assert_int_eq(memcmp(data + 100, "befXre", 6), 0);
	fclose(stream);
	unlink(path);
	file_close(base);
	record_log_free(log);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("record");
	TCase *tcase = tcase_create("record");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_every_operation_is_recorded);
	tcase_add_test(tcase, test_draft_is_not_made_stable);
	tcase_add_test(tcase, test_short_and_failed_operations);
	tcase_add_test(tcase, test_concurrent_events_are_numbered);
	tcase_add_test(tcase, test_export);
	tcase_add_test(tcase, test_export_knows_the_base);
	suite_add_tcase(suite, tcase);
	return test_main(suite);
}
