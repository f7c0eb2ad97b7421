/* SPDX-License-Identifier: MIT */
/*
 * Rebase, flatten, commit and a new header while a disk fails: every operation
 * on each of their files fails once, and from then on, or is short; and every
 * allocation.
 *
 * Whatever happens, the overlay shows what it did, by the old header or the new
 * one, and has leaks at most; success is only told of what is done; and once
 * the disk works again, the same work ends.
 *
 * Guards against: errors that are swallowed, a header switched although a copy
 * failed, an overlay emptied although the lower file does not have all of it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/log.h"
#include "runtime/sanitizers.h"
#include "tests/crash/scene.h"
#include "tests/fault/allocator.h"
#include "tests/unit/test_runtime.h"

#define SIZES(top, old, new) .sectors = {top, old, new}

static const struct scene_options scenes[] = {
	{SCENE_REBASE, 1024, 3, false, SIZES(70, 50, 60)},
	{SCENE_REBASE, 512, 2, true, SIZES(40, 60, 30), 100},
	{SCENE_FLATTEN, 1024, 3, false, SIZES(70, 50, 1)},
	{SCENE_COMMIT, 1024, 3, false, SIZES(70, 50, 1)},
	{SCENE_COMMIT, 512, 2, true, SIZES(40, 30, 1)},
	{SCENE_COMMIT, 512, 3, true, SIZES(250, 90, 1), .refcount_bits = 64},
	{SCENE_RENAME, 4096, 3, true, SIZES(1, 1, 1), 700, 100, 0, true},
};

static const struct trouble {
	unsigned kinds;
	int result;
	bool for_good;
} troubles[] = {
	{FILE_SIM_ANY, -EIO, false},
	{FILE_SIM_ANY, -EIO, true},
	{FILE_SIM_WRITE | FILE_SIM_ALLOCATE | FILE_SIM_TRUNCATE, -ENOSPC,
	    false},
	{FILE_SIM_WRITE | FILE_SIM_ALLOCATE | FILE_SIM_TRUNCATE, -ENOSPC,
	    true},
	{FILE_SIM_READ | FILE_SIM_WRITE, 511, false},
};

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* The sanitizer is slow. */
#ifdef WITH_ASAN
#define STRIDE 5
#else
#define STRIDE 1
#endif

static char now[128];

static void
tell(void)
{
	if (*now)
		fprintf(stderr, "in %s\n", now);
}

/* As the files are now. */
static bool
judge(struct scene *scene)
{
	struct file *files[SCENE_FILES];
	bool finished;

	for (unsigned i = 0; i < SCENE_FILES; i++)
		ck_assert_int_eq(file_sim_clone(scene->files[i], NULL,
		    &files[i]), 0);
	scene_judge(scene, files, &finished);
	if (!scene->err && scene->options->work == SCENE_COMMIT)
		scene_judge_committed(scene, files[SCENE_OLD]);
	for (unsigned i = 0; i < SCENE_FILES; i++)
		file_close(files[i]);
	return finished;
}

/* After work that was in trouble, which may have failed with an error. */
static void
judge_twice(struct scene *scene)
{
	if (scene->err) {
		ck_assert_uint_gt(strlen(scene->error.message), 0);
		judge(scene);
		scene_work(scene);
		ck_assert_msg(!scene->err, "again: %s",
		    scene->error.message);
	}
	ck_assert(judge(scene));
	now[0] = '\0';
}

static void
work_in_trouble(struct scene *scene, enum scene_file which, unsigned kind,
    uint64_t nth, const struct trouble *trouble)
{
	struct file_sim_fault fault = {
		.kinds = kind, .nth = nth, .result = trouble->result,
		.from_then_on = trouble->for_good,
	};

	snprintf(now, sizeof(now), "%s %llu of file %u returns %d%s",
	    file_sim_kind_name(kind), (unsigned long long)nth, which,
	    trouble->result, trouble->for_good ? " from then on" : "");
	scene_reset(scene, nth, false);
	file_sim_fail(scene->files[which], &fault);
	scene_work(scene);
	file_sim_heal(scene->files[which]);
	ck_assert(!scene->err || trouble->result < 0);
	judge_twice(scene);
}

static uint64_t
count_operations(struct scene *scene, enum scene_file which, unsigned kind)
{
	uint64_t count;

	scene_reset(scene, 1, false);
	count = file_sim_count(scene->files[which], kind);
	scene_work(scene);
	ck_assert_msg(!scene->err, "%s", scene->error.message);
	ck_assert(judge(scene));
	return file_sim_count(scene->files[which], kind) - count;
}

START_TEST(chain_is_whole_after_a_fault)
{
	const struct trouble *trouble = &troubles[_i % COUNT(troubles)];
	uint64_t runs = 0;
	struct scene scene;

	log_set_level(LOG_LEVEL_ERROR);
	atexit(tell);
	scene_create(&scene, &scenes[_i / COUNT(troubles)]);
	for (unsigned which = 0; which < SCENE_FILES; which++)
		for (unsigned kind = 1; kind <= FILE_SIM_ANY; kind *= 2) {
			uint64_t count = 0;

			if (trouble->kinds & kind)
				count = count_operations(&scene, which, kind);
			for (uint64_t nth = 1; nth <= count; nth += STRIDE) {
				work_in_trouble(&scene, which, kind, nth,
				    trouble);
				runs++;
			}
		}
	scene_free(&scene);
	ck_assert_uint_gt(runs, 0);
	printf("%llu runs\n", (unsigned long long)runs);
}
END_TEST

/* How many there were. */
static uint64_t
work_without_memory(struct scene *scene, uint64_t nth, bool for_good)
{
	uint64_t tried, failed;

	snprintf(now, sizeof(now), "allocation %llu fails%s",
	    (unsigned long long)nth, for_good ? " from then on" : "");
	scene_reset(scene, nth, false);
	allocator_begin(nth, for_good);
	scene_work(scene);
	tried = allocator_end(&failed);
	ck_assert(!scene->err || failed > 0);
	judge_twice(scene);
	return tried;
}

START_TEST(chain_is_whole_without_memory)
{
	struct scene scene;
	uint64_t count;

	log_set_level(LOG_LEVEL_ERROR);
	atexit(tell);
	scene_create(&scene, &scenes[_i / 2]);
	count = work_without_memory(&scene, 0, false);
	for (uint64_t nth = 1; nth <= count; nth += STRIDE)
		work_without_memory(&scene, nth, _i % 2);
	scene_free(&scene);
	printf("%llu allocations\n", (unsigned long long)count);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("chains");
	TCase *faults = tcase_create("faults");

	tcase_set_timeout(faults, 120);
	tcase_add_loop_test(faults, chain_is_whole_after_a_fault, 0,
	    COUNT(scenes) * COUNT(troubles));
	tcase_add_loop_test(faults, chain_is_whole_without_memory, 0,
	    COUNT(scenes) * 2);
	suite_add_tcase(suite, faults);
	return test_main(suite);
}
