/* SPDX-License-Identifier: MIT */
/*
 * Guards the path policy: a name inside an image opens files in the image's
 * own directory, below it, and in directories a person allowed, and nothing
 * else, by whatever detour; chains end; and each refusal says what to type.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "qcow2/chain.h"
#include "qcow2/header.h"
#include "runtime/file.h"
#include "tests/unit/test_runtime.h"

/*
 * The tree of each test:
 *	vms/top, vms/base, vms/sub/mid, vms/sub/base	files
 *	golden/base, golden-other/base			files
 *	vms/link	-> base
 *	vms/away	-> ../golden
 *	link-to-vms	-> vms
 *	vms/pipe	a FIFO
 */
static char root[256];
static struct error error;
static struct chain *chain;
static struct file *files[IMAGE_CHAIN_MAX + 2];
static unsigned file_count;
static enum image_format format;
static struct image_options options;

static const char *
path_of(const char *name)
{
	static char paths[4][512];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, 512, "%s/%s", root, name);
	return path;
}

static void
make_file(const char *name)
{
	int fd = open(path_of(name), O_CREAT | O_WRONLY, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, name, strlen(name)), (int)strlen(name));
	close(fd);
}

static void
make_tree(void)
{
	static const char *const directories[] = {
		"vms", "vms/sub", "golden", "golden-other",
	};
	static const char *const names[] = {
		"vms/top", "vms/base", "vms/sub/mid", "vms/sub/base",
		"golden/base", "golden-other/base",
	};
	unsigned i;

	strcpy(root, "/tmp/qnbd-chain-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	for (i = 0; i < 4; i++)
		ck_assert_int_eq(mkdir(path_of(directories[i]), 0700), 0);
	for (i = 0; i < 6; i++)
		make_file(names[i]);
	ck_assert_int_eq(symlink("base", path_of("vms/link")), 0);
	ck_assert_int_eq(symlink("../golden", path_of("vms/away")), 0);
	ck_assert_int_eq(symlink("vms", path_of("link-to-vms")), 0);
	ck_assert_int_eq(mkfifo(path_of("vms/pipe"), 0600), 0);
	memset(&options, 0, sizeof(options));
	memset(&error, 0, sizeof(error));
	file_count = 0;
	chain = NULL;
}

static int
remove_entry(const char *path, const struct stat *st, int type,
    struct FTW *place)
{
	(void)st;
	(void)type;
	(void)place;
	return remove(path);
}

static void
remove_tree(void)
{
	chain_free(chain);
	while (file_count > 0)
		file_close(files[--file_count]);
	nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* Begins a chain with the file at path, as a person would type it. */
static void
begin(const char *path)
{
	ck_assert_int_eq(file_open(AT_FDCWD, path, 0, 0, &files[0]), 0);
	file_count = 1;
	ck_assert_msg(chain_create(path, files[0], &options, &chain,
	    &error) == 0, "%s", error.message);
}

/* Opens what a header with this name and format leads to. */
static int
next(const char *name, const char *said)
{
	static struct header header;
	int err;

	header.backing = true;
	strcpy(header.backing_name, name);
	strcpy(header.backing_format, said);
	err = chain_open_next(chain, &header, &files[file_count], &format,
	    &error);
	if (!err)
		file_count++;
	return err;
}

static void
must_open(const char *name, const char *path)
{
	const struct file *file;

	ck_assert_msg(next(name, "raw") == 0, "%s: %s", name, error.message);
	file = files[file_count - 1];
	ck_assert_str_eq(file->name, path_of(path));
	ck_assert(!file->writable);
}

static void
must_refuse(const char *name, int negative_errno, const char *text)
{
	int err = next(name, "raw");

	ck_assert_msg(err == negative_errno, "%s: %d (%s)", name, err,
	    err ? error.message : "opened");
	ck_assert_msg(strstr(error.message, text) != NULL,
	    "\"%s\" says nothing of \"%s\"", error.message, text);
}

/* ---- where files may be ---- */

START_TEST(file_beside_or_below_the_image_is_opened)
{
	static const char *const names[][2] = {
		{ "base", "vms/base" },
		{ "./base", "vms/base" },
		{ ".//sub/./base", "vms/sub/base" },
		{ "sub/base", "vms/sub/base" },
		{ "sub/../base", "vms/sub/../base" },
		{ "../vms/base", "vms/base" },
	};

	begin(path_of("vms/top"));
	must_open(names[_i][0], names[_i][1]);
}
END_TEST

START_TEST(absolute_name_below_the_images_directory_is_opened)
{
	begin(path_of("vms/top"));
	must_open(path_of("vms/sub/base"), "vms/sub/base");
}
END_TEST

START_TEST(image_may_be_typed_relative_to_the_current_directory)
{
	ck_assert_int_eq(chdir(path_of("vms/sub")), 0);
	begin("../top");
	ck_assert_int_eq(next("base", "raw"), 0);
	ck_assert_str_eq(files[1]->name, path_of("vms/sub/../base"));
	chain_free(chain);
	file_close(files[1]);
	file_close(files[0]);
	begin("mid");
	must_open("base", "vms/sub/base");
}
END_TEST

START_TEST(image_may_be_typed_by_way_of_a_symbolic_link)
{
	begin(path_of("link-to-vms/top"));
	must_open("base", "link-to-vms/base");
	/* The directory counts by either of its names. */
	must_open(path_of("vms/sub/base"), "vms/sub/base");
}
END_TEST

START_TEST(file_elsewhere_is_refused)
{
	static const char *const names[] = {
		"../golden/base", "sub/../../golden/base", "./../golden/base",
		"..", "../", "../vms/../golden/base", "/etc/passwd",
	};

	begin(path_of("vms/top"));
	must_refuse(names[_i], -EACCES, "not in its own directory");
	ck_assert_int_eq(error.exit_code, 77);
	ck_assert_ptr_nonnull(strstr(error.hint, "--backing-dir "));
}
END_TEST

START_TEST(absolute_name_elsewhere_is_refused_naming_its_directory)
{
	char hint[600];

	begin(path_of("vms/top"));
	must_refuse(path_of("golden/base"), -EACCES, "names the backing file");
	snprintf(hint, sizeof(hint), "to allow it: --backing-dir %s",
	    path_of("golden"));
	ck_assert_str_eq(error.hint, hint);
	must_refuse(path_of("vms/../golden/base"), -EACCES, "names the");
}
END_TEST

START_TEST(file_in_an_allowed_directory_is_opened)
{
	const char *const directories[] = { path_of("golden") };

	options.backing_dirs = directories;
	options.backing_dirs_count = 1;
	begin(path_of("vms/top"));
	must_open(_i ? "../golden/base" : path_of("golden/base"),
	    "golden/base");
	/* Its own directory is the one that it is in now. */
	must_refuse(path_of("vms/base"), -EACCES, "golden/base names");
}
END_TEST

/* /golden allows nothing in /golden-other. */
START_TEST(directory_whose_name_begins_alike_is_refused)
{
	const char *const directories[] = { path_of("golden") };

	options.backing_dirs = directories;
	options.backing_dirs_count = 1;
	begin(path_of("vms/top"));
	must_refuse(path_of("golden-other/base"), -EACCES, "not in its own");
	must_refuse("../golden-other/base", -EACCES, "not in its own");
}
END_TEST

START_TEST(allowed_directory_may_be_typed_with_dots_and_links)
{
	const char *const directories[] = {
		path_of(_i ? "vms/away" : "vms//../golden/."),
	};

	options.backing_dirs = directories;
	options.backing_dirs_count = 1;
	begin(path_of("vms/top"));
	must_open(path_of("golden/base"), "golden/base");
}
END_TEST

/* The walk begins where the fewest links are in the way. */
START_TEST(allowed_link_below_the_images_directory_is_followed)
{
	const char *const directories[] = { path_of("vms/away") };

	options.backing_dirs = directories;
	options.backing_dirs_count = 1;
	begin(path_of("vms/top"));
	must_open(path_of("vms/away/base"), "vms/away/base");
}
END_TEST

START_TEST(allowed_directory_that_is_missing_is_an_error)
{
	const char *const directories[] = { path_of("no-such") };

	options.backing_dirs = directories;
	options.backing_dirs_count = 1;
	ck_assert_int_eq(file_open(AT_FDCWD, path_of("vms/top"), 0, 0,
	    &files[0]), 0);
	file_count = 1;
	ck_assert_int_eq(chain_create("top", files[0], &options, &chain,
	    &error), -ENOENT);
	ck_assert_ptr_nonnull(strstr(error.message, "no-such"));
}
END_TEST

START_TEST(symbolic_links_on_the_way_are_refused)
{
	static const char *const names[] = { "link", "away/base" };

	begin(path_of("vms/top"));
	must_refuse(names[_i], -ELOOP, "is reached through a symbolic link");
}
END_TEST

START_TEST(names_are_relative_to_the_file_they_stand_in)
{
	begin(path_of("vms/top"));
	must_open("sub/mid", "vms/sub/mid");
	must_open("base", "vms/sub/base");
}
END_TEST

/* What the top may name is not what those below it may name. */
START_TEST(file_below_may_not_climb_to_the_tops_directory)
{
	begin(path_of("vms/top"));
	must_open("sub/mid", "vms/sub/mid");
	must_refuse("../base", -EACCES, "not in its own directory");
}
END_TEST

/* ---- what may be opened ---- */

START_TEST(names_with_a_protocol_are_refused)
{
	static const char *const names[] = {
		"nbd://127.0.0.1/", "file:base", "json:{\"driver\":\"raw\"}",
		":base", "base:with-colon",
	};

	begin(path_of("vms/top"));
	must_refuse(names[_i], -EACCES, "only plain file names");
}
END_TEST

START_TEST(colon_after_a_slash_is_no_protocol)
{
	make_file("vms/a:b");
	begin(path_of("vms/top"));
	must_open("./a:b", "vms/a:b");
}
END_TEST

START_TEST(anything_but_a_regular_file_is_refused)
{
	const char *const directories[] = { "/dev" };
	static const char *const names[] = { "pipe", "sub", "/dev/null", "." };

	options.backing_dirs = directories;
	options.backing_dirs_count = 1;
	begin(path_of("vms/top"));
	if (strcmp(names[_i], ".") == 0)
		must_refuse(names[_i], -EACCES, "not in its own directory");
	else
		must_refuse(names[_i], _i == 1 ? -EISDIR : -EINVAL,
		    "is not a regular file");
}
END_TEST

/* Puts the name of a block device that may be opened into path. */
static bool
find_block_device(char *path, size_t bytes)
{
	DIR *devices = opendir("/sys/block");
	const struct dirent *entry;
	bool found = false;
	int fd;

	while (devices && !found && (entry = readdir(devices))) {
		snprintf(path, bytes, "/dev/%s", entry->d_name);
		fd = *entry->d_name == '.' ? -1 : open(path, O_RDONLY);
		found = fd >= 0;
		if (found)
			close(fd);
	}
	if (devices)
		closedir(devices);
	return found;
}

START_TEST(block_device_is_refused)
{
	const char *const directories[] = { "/dev" };
	char path[300];

	if (!find_block_device(path, sizeof(path))) {
		puts("block_device_is_refused: none may be opened here");
		return;
	}
	options.backing_dirs = directories;
	options.backing_dirs_count = 1;
	begin(path_of("vms/top"));
	must_refuse(path, -EINVAL, "is not a regular file");
}
END_TEST

START_TEST(missing_file_is_named_with_the_chain_and_a_way_out)
{
	begin(path_of("vms/top"));
	must_open("sub/mid", "vms/sub/mid");
	must_refuse("gone.qcow2", -ENOENT, "needs its backing file gone.qcow2");
	ck_assert_ptr_nonnull(strstr(error.message,
	    path_of("vms/sub/gone.qcow2 does not exist")));
	ck_assert_ptr_nonnull(strstr(error.hint,
	    "top -> sub/mid -> gone.qcow2 (missing)"));
	ck_assert_ptr_nonnull(strstr(error.hint,
	    "qnbd rebase --unsafe -b NEWPATH -F raw "));
}
END_TEST

START_TEST(names_do_not_reach_the_terminal_raw)
{
	begin(path_of("vms/top"));
	must_refuse("\033[2Jgone", -ENOENT, "\\x1b[2Jgone");
	ck_assert_ptr_null(strchr(error.message, '\033'));
	ck_assert_ptr_null(strchr(error.hint, '\033'));
	make_file("vms/\033[2J");
	ck_assert_int_eq(next("\033[2J", "raw"), 0);
	ck_assert_ptr_null(strchr(files[1]->name, '\033'));
}
END_TEST

START_TEST(header_without_a_backing_file_ends_the_chain)
{
	static const struct header header;
	struct file *file = (struct file *)&header;

	begin(path_of("vms/top"));
	ck_assert_int_eq(chain_open_next(chain, &header, &file, &format,
	    &error), 0);
	ck_assert_ptr_null(file);
}
END_TEST

/* ---- formats ---- */

START_TEST(format_is_what_the_header_says)
{
	begin(path_of("vms/top"));
	ck_assert_int_eq(next("base", "qcow2"), 0);
	ck_assert_int_eq(format, IMAGE_QCOW2);
	ck_assert_int_eq(next("sub/base", "raw"), 0);
	ck_assert_int_eq(format, IMAGE_RAW);
}
END_TEST

START_TEST(format_is_not_guessed)
{
	begin(path_of("vms/top"));
	ck_assert_int_eq(next("base", ""), -EINVAL);
	ck_assert_ptr_nonnull(strstr(error.message, "never guessed"));
	ck_assert_ptr_nonnull(strstr(error.hint,
	    "qnbd rebase --unsafe -F qcow2 -b base "));
	ck_assert_ptr_nonnull(strstr(error.hint, "--backing-format"));
}
END_TEST

START_TEST(unsupported_format_is_named)
{
	begin(path_of("vms/top"));
	ck_assert_int_eq(next("base", "vm\033dk"), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(error.message, "\"vm\\x1bdk\""));
}
END_TEST

START_TEST(told_format_rules_below_the_top_and_fills_in_further_down)
{
	options.backing_format_told = true;
	options.backing_format = IMAGE_RAW;
	begin(path_of("vms/top"));
	ck_assert_int_eq(next("sub/mid", "qcow2"), 0);
	ck_assert_int_eq(format, IMAGE_RAW);
	ck_assert_int_eq(next("base", "qcow2"), 0);
	ck_assert_int_eq(format, IMAGE_QCOW2);
	make_file("vms/sub/third");
	ck_assert_int_eq(next("third", ""), 0);
	ck_assert_int_eq(format, IMAGE_RAW);
}
END_TEST

/* ---- ends ---- */

START_TEST(chain_that_comes_back_is_refused)
{
	begin(path_of("vms/top"));
	must_open("sub/mid", "vms/sub/mid");
	must_open("base", "vms/sub/base");
	must_refuse(path_of("vms/sub/mid"), -ELOOP, "comes back");
	ck_assert_ptr_nonnull(strstr(error.message,
	    "top -> sub/mid -> base -> "));
}
END_TEST

START_TEST(file_that_is_its_own_backing_file_is_refused)
{
	begin(path_of("vms/top"));
	ck_assert_int_eq(link(path_of("vms/top"), path_of("vms/hard")), 0);
	must_refuse(_i ? "hard" : "top", -ELOOP, "comes back");
}
END_TEST

START_TEST(chain_ends_at_64_files_below_the_top)
{
	char name[16], path[32];
	unsigned i;

	begin(path_of("vms/top"));
	for (i = 0; i <= IMAGE_CHAIN_MAX; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		snprintf(path, sizeof(path), "vms/%s", name);
		make_file(path);
		if (i < IMAGE_CHAIN_MAX)
			must_open(name, path);
	}
	must_refuse(name, -ELOOP, "more than 64 files");
}
END_TEST

static TCase *
case_of_places(void)
{
	TCase *places = tcase_create("places");

	tcase_add_checked_fixture(places, make_tree, remove_tree);
	tcase_add_loop_test(places, file_beside_or_below_the_image_is_opened,
	    0, 6);
	tcase_add_test(places,
	    absolute_name_below_the_images_directory_is_opened);
	tcase_add_test(places,
	    image_may_be_typed_relative_to_the_current_directory);
	tcase_add_test(places,
	    image_may_be_typed_by_way_of_a_symbolic_link);
	tcase_add_loop_test(places, file_elsewhere_is_refused, 0, 7);
	tcase_add_test(places,
	    absolute_name_elsewhere_is_refused_naming_its_directory);
	tcase_add_loop_test(places, file_in_an_allowed_directory_is_opened, 0,
	    2);
	tcase_add_test(places, directory_whose_name_begins_alike_is_refused);
	tcase_add_loop_test(places,
	    allowed_directory_may_be_typed_with_dots_and_links, 0, 2);
	tcase_add_test(places,
	    allowed_link_below_the_images_directory_is_followed);
	tcase_add_test(places, allowed_directory_that_is_missing_is_an_error);
	tcase_add_loop_test(places, symbolic_links_on_the_way_are_refused, 0,
	    2);
	tcase_add_test(places, names_are_relative_to_the_file_they_stand_in);
	tcase_add_test(places,
	    file_below_may_not_climb_to_the_tops_directory);
	return places;
}

static TCase *
case_of_kinds(void)
{
	TCase *kinds = tcase_create("kinds");

	tcase_add_checked_fixture(kinds, make_tree, remove_tree);
	tcase_add_loop_test(kinds, names_with_a_protocol_are_refused, 0, 5);
	tcase_add_test(kinds, colon_after_a_slash_is_no_protocol);
	tcase_add_loop_test(kinds, anything_but_a_regular_file_is_refused, 0,
	    4);
	tcase_add_test(kinds, block_device_is_refused);
	tcase_add_test(kinds,
	    missing_file_is_named_with_the_chain_and_a_way_out);
	tcase_add_test(kinds, names_do_not_reach_the_terminal_raw);
	tcase_add_test(kinds, header_without_a_backing_file_ends_the_chain);
	tcase_add_test(kinds, format_is_what_the_header_says);
	tcase_add_test(kinds, format_is_not_guessed);
	tcase_add_test(kinds, unsupported_format_is_named);
	tcase_add_test(kinds,
	    told_format_rules_below_the_top_and_fills_in_further_down);
	return kinds;
}

int
main(void)
{
	Suite *suite = suite_create("chain");
	TCase *ends = tcase_create("ends");

	tcase_add_checked_fixture(ends, make_tree, remove_tree);
	tcase_add_test(ends, chain_that_comes_back_is_refused);
	tcase_add_loop_test(ends,
	    file_that_is_its_own_backing_file_is_refused, 0, 2);
	tcase_add_test(ends, chain_ends_at_64_files_below_the_top);
	suite_add_tcase(suite, case_of_places());
	suite_add_tcase(suite, case_of_kinds());
	suite_add_tcase(suite, ends);
	return test_main(suite);
}
