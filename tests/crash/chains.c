/* SPDX-License-Identifier: MIT */
/*
 * Crashes while a chain changes: rebase, flatten, commit, and the header alone.
 *
 * The work is recorded, and all states of each of its files are built and
 * judged: the overlay shows what it did, by the header it has then, which is
 * the old or the new one and no mixture.  Of a commit, the lower file has all
 * of it, stably, before the overlay loses any; so the overlay's states are held
 * against the lower file as it was found, before that, or as it was after.
 *
 * Guards against: a header switched before the copies are stable, one that is
 * torn, clusters of the overlay given up before the lower file has them, or
 * freed before the entries that pointed to them.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include "tests/crash/scene.h"
#include "tests/crash/state.h"

#define SIZES(top, old, new) .sectors = {top, old, new}

static const struct scene_options scenes[] = {
	{SCENE_REBASE, 1024, 3, false, SIZES(96, 96, 96)},
	{SCENE_REBASE, 512, 3, true, SIZES(61, 41, 80)},
	{SCENE_REBASE, 4096, 2, true, SIZES(150, 200, 70), 700},
	{SCENE_REBASE, 1024, 2, false, SIZES(97, 33, 120)},
	{SCENE_REBASE, 4096, 3, true, SIZES(131, 60, 200), 1023},
	{SCENE_FLATTEN, 1024, 3, false, SIZES(99, 80, 1)},
	{SCENE_FLATTEN, 512, 2, true, SIZES(61, 99, 1)},
	{SCENE_FLATTEN, 4096, 3, true, SIZES(131, 131, 1), .extension_bytes =
	    64},
	{SCENE_COMMIT, 1024, 3, false, SIZES(99, 80, 1)},
	{SCENE_COMMIT, 1024, 3, true, SIZES(99, 80, 1)},
	{SCENE_COMMIT, 512, 2, false, SIZES(61, 99, 1)},
	{SCENE_COMMIT, 4096, 3, true, SIZES(200, 200, 1)},
	/* Some of its refcount blocks count nothing any more. */
	{SCENE_COMMIT, 512, 3, true, SIZES(250, 200, 1), .refcount_bits = 64},
	{SCENE_RENAME, 4096, 3, true, SIZES(1, 1, 1), 10},
	{SCENE_RENAME, 4096, 3, true, SIZES(1, 1, 1), 10, .no_format = true},
	{SCENE_RENAME, 4096, 3, true, SIZES(1, 1, 1), 1023},
	{SCENE_RENAME, 4096, 3, true, SIZES(1, 1, 1), 700, 100, 0, true},
	{SCENE_RENAME, 4096, 3, true, SIZES(1, 1, 1), 300, 60, 0,
	    true},
	{SCENE_RENAME, 4096, 2, true, SIZES(1, 1, 1), 1000, 300},
	{SCENE_RENAME, 4096, 3, true, SIZES(1, 1, 1), 1000, 900},
	{SCENE_RENAME, 65536, 3, true, SIZES(1, 1, 1), 1023, 32, 0,
	    true},
	{SCENE_RENAME, 1024, 3, true, SIZES(1, 1, 1), 200},
	{SCENE_RENAME, 512, 3, true, SIZES(1, 1, 1), 200},
};

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* Orders of completion of each. */
#define SEEDS 3

struct exploration {
	struct scene *scene;
	enum scene_file which;
	struct file *old_after;	/* of a commit, in plain mode */
	uint64_t finished, unfinished;
	char text[256];
};

/* For a failure: a test runs in a process of its own. */
static const char *now = "";

static void
tell(void)
{
	if (*now)
		fprintf(stderr, "in %s\n", now);
}

static int
visit(const struct crash_state *state, void *arg)
{
	struct exploration *exploration = arg;
	struct scene *scene = exploration->scene;
	struct file *files[SCENE_FILES] = {NULL};
	bool committed = state->point > scene->committed, finished;

	snprintf(exploration->text, sizeof(exploration->text),
	    "file %u, %s", exploration->which, state->text);
	now = exploration->text;
	files[exploration->which] = state->file;
	if (exploration->which == SCENE_TOP && committed)
		files[SCENE_OLD] = exploration->old_after;
	scene_judge(scene, files, &finished);
	if (exploration->which == SCENE_OLD && committed)
		scene_judge_committed(scene, state->file);
	exploration->finished += finished;
	exploration->unfinished += !finished;
	now = "";
	return 0;
}

static uint64_t
explore(struct scene *scene, enum scene_file which)
{
	struct crash_options options = crash_defaults;
	struct exploration exploration = {.scene = scene, .which = which};
	struct crash_counts counts;

	ck_assert_int_eq(file_sim_clone(scene->files[SCENE_OLD], NULL,
	    &exploration.old_after), 0);
	options.tear_ways = CRASH_TEAR_WAYS;
	crash_explore(scene->log, which, scene->found[which], &options,
	    visit, &exploration, &counts);
	file_close(exploration.old_after);
	if (which == SCENE_TOP) {
		ck_assert_uint_gt(exploration.finished, 0);
		if (scene->options->work != SCENE_COMMIT)
			ck_assert_uint_gt(exploration.unfinished, 0);
	}
	return counts.distinct;
}

START_TEST(chain_is_whole_after_a_crash)
{
	struct scene scene;
	uint64_t states = 0;

	atexit(tell);
	scene_create(&scene, &scenes[_i]);
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		scene_reset(&scene, seed, true);
		scene_work(&scene);
		ck_assert_msg(!scene.err, "%s", scene.error.message);
		states += explore(&scene, SCENE_TOP);
		if (scenes[_i].work == SCENE_COMMIT)
			states += explore(&scene, SCENE_OLD);
	}
	scene_free(&scene);
	printf("scene %d: %llu states\n", _i, (unsigned long long)states);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("chains");
	TCase *crashes = tcase_create("crashes");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(crashes, 300);
	tcase_add_loop_test(crashes, chain_is_whole_after_a_crash, 0,
	    COUNT(scenes));
	suite_add_tcase(suite, crashes);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
