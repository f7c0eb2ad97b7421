/* SPDX-License-Identifier: MIT */
/*
 * Crashes while `qnbd create` makes an image: at every moment the name stands
 * for what it did before, or for an image that is whole and clean.
 *
 * The real command runs on real files.  The linker puts functions of this file
 * in the place of file_open(), which records what is done to the new file, and
 * of those that give it its name, which mark the record.  From that all states
 * of the new file are built in which the name could have reached the disk.
 *
 * Guards against: a name given before the content is stable, a name that is
 * not made stable itself, an existing file that is written to.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "qcow2/check.h"
#include "qcow2/image.h"
#include "runtime/file_record.h"
#include "server/commands.h"
#include "tests/crash/state.h"
#include "tests/unit/test_runtime.h"

#define NEW_FILE 1
#define OLD_FILE 2
#define WORDS_MAX 12
#define READ_BYTES 65536

/* What one run of the command did, and when. */
struct creation {
	struct record_log *log;
	uint64_t named;		/* the name may be there from here on, */
	uint64_t names_synced;	/* and must be from here on; 0: never */
	unsigned new_files;
	uint64_t size_bytes;	/* of the disk that was asked for */
	/* Of a state. */
	struct file *file;
	struct sim *sim;
	uint64_t judged;
};

static struct creation creation;

/* ---- in the place of others ---- */

int __real_file_open(int directory_fd, const char *path, unsigned flags,
    uint64_t resolve, struct file **filep);
int __wrap_file_open(int directory_fd, const char *path, unsigned flags,
    uint64_t resolve, struct file **filep);
int __real_renameat2(int old_directory, const char *old_path,
    int new_directory, const char *new_path, unsigned flags);
int __wrap_renameat2(int old_directory, const char *old_path,
    int new_directory, const char *new_path, unsigned flags);
int __real_rename(const char *old_path, const char *new_path);
int __wrap_rename(const char *old_path, const char *new_path);
int __real_link(const char *old_path, const char *new_path);
int __wrap_link(const char *old_path, const char *new_path);
int __real_fsync(int fd);
int __wrap_fsync(int fd);

/* A number between what was before and what comes after. */
static uint64_t
mark(void)
{
	record_end(creation.log, record_begin(creation.log,
	    &(struct record){.kind = RECORD_REQUEST_FLUSH}), 0);
	return record_log_next(creation.log) - 1;
}

int
__wrap_file_open(int directory_fd, const char *path, unsigned flags,
    uint64_t resolve, struct file **filep)
{
	struct file *file;
	int err = __real_file_open(directory_fd, path, flags, resolve, &file);

	if (err)
		return err;
	if (flags & FILE_CREATE)
		creation.new_files++;
	return file_record_open(creation.log, flags & FILE_CREATE ?
	    NEW_FILE : OLD_FILE, file, false, filep);
}

int
__wrap_renameat2(int old_directory, const char *old_path, int new_directory,
    const char *new_path, unsigned flags)
{
	creation.named = mark();
	return __real_renameat2(old_directory, old_path, new_directory,
	    new_path, flags);
}

int
__wrap_rename(const char *old_path, const char *new_path)
{
	creation.named = mark();
	return __real_rename(old_path, new_path);
}

int
__wrap_link(const char *old_path, const char *new_path)
{
	creation.named = mark();
	return __real_link(old_path, new_path);
}

/* The new file is the only one that is synced without file_open(). */
static int
sync_content(int fd)
{
	size_t index = record_begin(creation.log, &(struct record){
		.kind = RECORD_SYNC, .source = NEW_FILE,
	});
	int result = __real_fsync(fd);

	record_end(creation.log, index, result);
	return result;
}

/* Of a directory it makes names stable, if they were given before. */
int
__wrap_fsync(int fd)
{
	struct stat st;
	int result;

	if (!fstat(fd, &st) && S_ISREG(st.st_mode))
		return sync_content(fd);
	result = __real_fsync(fd);
	if (!result && creation.named)
		creation.names_synced = mark();
	return result;
}

/* ---- judging a state ---- */

co_fn static void
judge(void *arg)
{
	struct creation *made = arg;
	struct image_options options = {
		.format = IMAGE_QCOW2, .writable = true, .no_backing = true,
	};
	static uint8_t data[READ_BYTES];	/* stacks are small */
	struct check_result result;
	struct file *handle;
	struct image *image;
	struct error error;

	ck_assert_msg(!check_file(made->file, "image", &result, &error),
	    "%s", error.message);
	ck_assert_uint_eq(result.corruptions, 0);
	ck_assert_uint_eq(result.leaks, 0);
	ck_assert_uint_eq(result.check_errors, 0);
	ck_assert_int_eq(file_sim_open(made->file, &handle), 0);
	ck_assert_msg(!image_open_file(handle, &options, &image, &error),
	    "%s", error.message);
	ck_assert_uint_eq(image_size_bytes(image), made->size_bytes);
	for (uint64_t offset = 0; offset < made->size_bytes;
	    offset += sizeof(data)) {
		ck_assert_int_eq(image_read(image, offset, data,
		    sizeof(data), NULL), 0);
		ck_assert(!data[0] && !memcmp(data, data + 1,
		    sizeof(data) - 1));
	}
	ck_assert_int_eq(image_close(image), 0);
}

static int
visit(const struct crash_state *state, void *arg)
{
	struct creation *made = arg;
	struct co_start start;

	/* Before that nobody sees it. */
	if (state->point <= made->named)
		return 0;
	made->file = state->file;
	sim_start(made->sim, 0, &start, judge, made);
	ck_assert_int_eq(sim_run(made->sim), SIM_DONE);
	made->judged++;
	return 0;
}

static void
judge_all(void)
{
	struct crash_options options = crash_defaults;
	struct file *empty;

	options.tear_ways = CRASH_TEAR_WAYS;
	ck_assert_int_eq(file_sim_create(NULL, "image", 0, &empty), 0);
	ck_assert_int_eq(sim_create(1, 1, &creation.sim), 0);
	ck_assert_int_eq(crash_explore(creation.log, NEW_FILE, empty,
	    &options, visit, &creation, NULL), 0);
	ck_assert_uint_gt(creation.judged, 0);
	sim_free(creation.sim);
	file_close(empty);
}

/* ---- the command ---- */

/* words: the options, NULL at the end. */
static void
create(const char *const *words, const char *path, const char *size)
{
	char *argv[WORDS_MAX + 4] = {"create"};
	int argc = 1;

	for (; *words; words++)
		argv[argc++] = (char *)(uintptr_t)*words;
	argv[argc++] = (char *)(uintptr_t)path;
	argv[argc++] = (char *)(uintptr_t)size;
	ck_assert_int_eq(create_command.run(&create_command, argc, argv), 0);
}

static void
expect_old_files_untouched(void)
{
	for (size_t i = 0; i < record_log_count(creation.log); i++) {
		const struct record *entry = record_log_at(creation.log, i);

		ck_assert(entry->source != OLD_FILE);
	}
}

static void
try_words(const char *const *words, const char *path)
{
	creation = (struct creation){.size_bytes = 2u << 20};
	ck_assert_int_eq(record_log_create(&creation.log), 0);
	create(words, path, "2M");
	ck_assert_uint_eq(creation.new_files, 1);
	ck_assert_uint_gt(creation.named, 0);
	ck_assert_uint_gt(creation.names_synced, creation.named);
	expect_old_files_untouched();
	judge_all();
	record_log_free(creation.log);
}

#define OPTIONS(text) {"-o", text, NULL}

static const char *const option_lists[][WORDS_MAX] = {
	{NULL},
	OPTIONS("cluster_size=512"),
	OPTIONS("cluster_size=512,refcount_bits=64"),
	OPTIONS("cluster_size=4k,refcount_bits=1"),
	OPTIONS("cluster_size=2M,refcount_bits=64"),
	OPTIONS("compat=0.10"),
	OPTIONS("cluster_size=512,preallocation=metadata"),
	OPTIONS("cluster_size=4k,refcount_bits=1,preallocation=metadata"),
	OPTIONS("preallocation=metadata"),
	OPTIONS("preallocation=full"),
	OPTIONS("cluster_size=2M,preallocation=full"),
};

START_TEST(test_new_image)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/new.qcow2", test_directory());
	try_words(option_lists[_i], path);
	ck_assert_int_eq(unlink(path), 0);
}
END_TEST

/* What is there stays as it is until it is replaced by all of the new one. */
START_TEST(test_replaced_image)
{
	static const char *const nothing[] = {NULL};
	static const char *const force[] = {"--force", NULL};
	char path[512];

	snprintf(path, sizeof(path), "%s/old.qcow2", test_directory());
	try_words(nothing, path);
	try_words(force, path);
	ck_assert_int_eq(unlink(path), 0);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("creation");
	TCase *tcase = tcase_create("creation");

	tcase_set_timeout(tcase, 120);
	tcase_add_loop_test(tcase, test_new_image, 0,
	    sizeof(option_lists) / sizeof(option_lists[0]));
	tcase_add_test(tcase, test_replaced_image);
	suite_add_tcase(suite, tcase);
	return test_main(suite);
}
