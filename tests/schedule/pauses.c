/* SPDX-License-Identifier: MIT */
/*
 * A request held at each step that it has (pause.h), and others that meet it
 * there: who waits, who does not, what they see, and whether the file would
 * survive a crash at that moment.
 *
 * Guards against: claims that let an overlapping change pass, or that hold up
 * somebody else; flushes that wait for requests which came after them or are
 * not answered yet; new content that shows before it is complete; a state of
 * the file, at any step, that a check finds corrupt; reuse of a cluster while
 * its punch is under way.
 */
#include <stdlib.h>
#include "qcow2/entry.h"
#include "runtime/loop.h"
#include "tests/schedule/pause.h"
#include "tests/schedule/races.h"

#define DISK_BYTES (8u << 20)

/* Not mapped, in the first table and in one that is not there yet. */
#define E (4 * CLUSTER)
#define NEW_TABLE (2u << 20)

/* Mapped, by another table, for those who have nothing to do with it. */
#define APART (4u << 20)

/* How a request fares that meets the one that is held. */
enum waits {
	GOES_ON,
	WAITS,
	EITHER,
};

/* A request that comes to a point, and how others fare that meet it there. */
struct scene {
	enum pause_point point;
	enum action action;
	uint64_t guest;
	size_t length;
	uint8_t value;		/* written, or read */
	uint8_t before;		/* what stood there */
	enum waits overlapping;	/* a write to the same place */
	enum waits flush;
	bool is_hidden;		/* readers still see what stood there */
};

static const struct scene scenes[] = {
	{PAUSE_TABLE_LOAD, ACTION_WRITE, E, CLUSTER, 0x22, 0,
	    WAITS, GOES_ON, false},
	{PAUSE_TABLE_LOAD, ACTION_READ, B, CLUSTER, 0x11, 0x11,
	    WAITS, GOES_ON, false},
	{PAUSE_TABLE_NEW, ACTION_WRITE, NEW_TABLE, CLUSTER, 0x22, 0,
	    WAITS, GOES_ON, true},
	{PAUSE_COPY, ACTION_WRITE, A, HALF, 0x22, 0x11,
	    WAITS, GOES_ON, false},
	{PAUSE_DATA, ACTION_WRITE, E, CLUSTER, 0x22, 0,
	    WAITS, GOES_ON, true},
	{PAUSE_LINK, ACTION_WRITE, E, CLUSTER, 0x22, 0,
	    WAITS, GOES_ON, true},
	{PAUSE_DATA, ACTION_WRITE, B, CLUSTER, 0x22, 0x11,
	    GOES_ON, GOES_ON, true},
	{PAUSE_LINK, ACTION_WRITE, B, CLUSTER, 0x22, 0x11,
	    GOES_ON, GOES_ON, false},
	{PAUSE_READ, ACTION_READ, B, CLUSTER, 0x11, 0x11,
	    GOES_ON, GOES_ON, false},
	{PAUSE_CUT, ACTION_FLUSH, E, CLUSTER, 0x33, 0x33,
	    GOES_ON, WAITS, true},
	{PAUSE_FIRST_SYNC, ACTION_FLUSH, E, CLUSTER, 0x33, 0x33,
	    GOES_ON, WAITS, true},
	{PAUSE_BETWEEN_SYNCS, ACTION_FLUSH, E, CLUSTER, 0x33, 0x33,
	    GOES_ON, WAITS, true},
	{PAUSE_LAST_SYNC, ACTION_FLUSH, E, CLUSTER, 0x33, 0x33,
	    GOES_ON, WAITS, true},
	{PAUSE_STABLE, ACTION_FLUSH, E, CLUSTER, 0x33, 0x33,
	    GOES_ON, WAITS, true},
	{PAUSE_PUNCH, ACTION_DISCARD, C, CLUSTER, 0, 0x11,
	    GOES_ON, EITHER, false},
	{PAUSE_REUSE, ACTION_DISCARD, C, CLUSTER, 0, 0x11,
	    GOES_ON, EITHER, false},
};

#define SCENES (sizeof(scenes) / sizeof(scenes[0]))

/* Each is played under so many seeds. */
#define SCENE_SEEDS 4

co_fn static void
prepare(struct world *world)
{
	world_write(world, A, 4 * CLUSTER, 0x11);
	world_write(world, APART, 4 * CLUSTER, 0x11);
}

/*
 * Something to flush: E is mapped, to the cluster that D had, so that its entry
 * must wait for its data.
 */
co_fn static void
make_dirty(struct world *world)
{
	world_discard(world, D, CLUSTER);
	flush_all(world);
	world_write(world, E, CLUSTER, 0x33);
}

/* Starts what is to be held. */
co_fn static void
enter(struct world *world, const struct scene *scene, struct pause *pause,
    struct request *request)
{
	if (scene->action == ACTION_FLUSH)
		make_dirty(world);
	pause_begin(pause, world, scene->point, scene->guest, scene->value);
	*request = request_of(scene->action, scene->guest, scene->length,
	    scene->value, 0);
	if (scene->action == ACTION_FLUSH)
		request->length = 0;
	request_start(world, 1, request);
	if (scene->action == ACTION_DISCARD) {
		request_wait(request);
		world_flush(world);
	}
	pause_await(pause);
}

static void
judge(const struct scene *scene, const char *who, enum waits expected,
    bool done)
{
	ck_assert_msg(expected == EITHER || done == (expected == GOES_ON),
	    "%s %s while action %d on 0x%llx is held before: %s", who,
	    done ? "went on" : "waits", scene->action,
	    (unsigned long long)scene->guest, pause_name(scene->point));
}

/* What has nothing to do with it must not even notice. */
co_fn static void
live_apart(struct world *world)
{
	world_expect(world, APART, CLUSTER, 0x11);
	world_write(world, APART + CLUSTER, CLUSTER, 0x55);
	world_zero(world, APART + 2 * CLUSTER, CLUSTER, 0);
	world_discard(world, APART + 3 * CLUSTER, CLUSTER);
	world_write(world, APART + 4 * CLUSTER, HALF, 0x66);
}

co_fn static void
check_apart(struct world *world)
{
	world_expect(world, APART, CLUSTER, 0x11);
	world_expect(world, APART + CLUSTER, CLUSTER, 0x55);
	world_expect(world, APART + 2 * CLUSTER, 2 * CLUSTER, 0);
	world_expect(world, APART + 4 * CLUSTER, HALF, 0x66);
	world_expect(world, APART + 4 * CLUSTER + HALF, HALF, 0);
}

/* One of two writes at once came last; of one after the other, the second. */
co_fn static void
check_place(struct world *world, const struct scene *scene)
{
	uint8_t data[CLUSTER];

	ck_assert_int_eq(image_read(world->image, scene->guest, data,
	    scene->length, NULL), 0);
	if (is_all(data, scene->length, 0x44))
		return;
	ck_assert_int_eq(scene->overlapping, GOES_ON);
	ck_assert(scene->action == ACTION_WRITE);
	ck_assert(is_all(data, scene->length, scene->value));
}

co_fn static void
meet(struct world *world)
{
	const struct scene *scene = world->arg;
	struct request held, flush = request_of(ACTION_FLUSH, 0, 0, 0, 0);
	struct request overlapping = request_of(ACTION_WRITE, scene->guest,
	    scene->length, 0x44, 0);
	struct pause pause;

	enter(world, scene, &pause, &held);
	if (scene->is_hidden)
		world_expect(world, scene->guest, scene->length,
		    scene->before);
	live_apart(world);
	ck_assert_uint_eq(world_check(world).corruptions, 0);
	request_start(world, 0, &flush);
	pause_world();
	judge(scene, "a flush", scene->flush, flush.done);
	request_start(world, 0, &overlapping);
	pause_world();
	judge(scene, "a write", scene->overlapping, overlapping.done);
	ck_assert_uint_eq(world_check(world).corruptions, 0);
	pause_end(&pause);
	request_finish(&overlapping);
	request_finish(&flush);
	if (scene->action == ACTION_READ)
		request_wait(&held);
	else if (scene->action != ACTION_DISCARD)
		request_finish(&held);
	free(held.data);
	check_place(world, scene);
	check_apart(world);
}

START_TEST(each_step_of_a_request)
{
	struct world_options options = {
		.seed = _i % SCENE_SEEDS, .disk_bytes = DISK_BYTES,
	};
	struct world world;

	world_prepare(&world, &options, prepare);
	world_compress(&world, A, 0x11);
	world.arg = (void *)(uintptr_t)&scenes[_i / SCENE_SEEDS];
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, meet);
	world_finish(&world);
}
END_TEST

/* ---- what else happens at one step ---- */

/*
 * The entries that a barrier is writing are frozen: what changes meanwhile
 * belongs to the next one, whose flush must not be answered by the first.
 */
co_fn static void
change_between_syncs(struct world *world)
{
	struct request flushes[] = {
		request_of(ACTION_FLUSH, 0, 0, 0, 0),
		request_of(ACTION_FLUSH, 0, 0, 0, 0),
	};
	struct pause pause, again;
	uint64_t at;

	make_dirty(world);
	at = world_l2_entry(world, B);
	pause_begin(&pause, world, PAUSE_BETWEEN_SYNCS, 0, 0);
	pause_begin(&again, world, PAUSE_LAST_SYNC, 0, 0);
	request_start(world, 1, &flushes[0]);
	pause_await(&pause);
	world_discard(world, B, CLUSTER);
	request_start(world, 0, &flushes[1]);
	pause_world();
	pause_end(&pause);
	pause_await(&again);
	/* The first barrier's entries are written, without the discard. */
	ck_assert_uint_ne(world_peek64(world, at), 0);
	pause_world();
	ck_assert(!flushes[0].done && !flushes[1].done);
	pause_end(&again);
	request_finish(&flushes[0]);
	request_finish(&flushes[1]);
	ck_assert_uint_eq(world_peek64(world, at), 0);
}

START_TEST(a_change_between_the_syncs)
{
	struct world world;

	world_prepare(&world, &(struct world_options){
		.seed = _i, .disk_bytes = DISK_BYTES,
	}, prepare);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, change_between_syncs);
	world_finish(&world);
}
END_TEST

/* A cluster is free when its punch has ended, not when it took effect. */
co_fn static void
write_before_reuse(struct world *world)
{
	struct pause pause;
	uint64_t host;

	world_write(world, A, CLUSTER, 0x11);
	world_flush(world);
	host = world_host(world, A);
	world_discard(world, A, CLUSTER);
	pause_begin(&pause, world, PAUSE_REUSE, 0, 0);
	world_flush(world);
	pause_await(&pause);
	world_write(world, B, CLUSTER, 0x22);
	ck_assert_uint_ne(world_host(world, B), host);
	pause_end(&pause);
	pause_world();
	world_write(world, C, CLUSTER, 0x33);
	ck_assert_uint_eq(world_host(world, C), host);
	world_expect(world, A, CLUSTER, 0);
	world_expect(world, B, CLUSTER, 0x22);
	world_expect(world, C, CLUSTER, 0x33);
}

START_TEST(no_reuse_before_the_punch_has_ended)
{
	world_play(&(struct world_options){.seed = _i}, write_before_reuse);
}
END_TEST

/* A flush that is stable but not answered covers nothing that comes now. */
co_fn static void
write_when_stable(struct world *world)
{
	struct request first = request_of(ACTION_FLUSH, 0, 0, 0, 0);
	struct request second = request_of(ACTION_FLUSH, 0, 0, 0, 0);
	uint64_t syncs = file_sim_count(world->disk, FILE_SIM_SYNC);
	struct pause pause;

	world_write(world, A, CLUSTER, 0x11);
	pause_begin(&pause, world, PAUSE_STABLE, 0, 0);
	request_start(world, 1, &first);
	pause_await(&pause);
	world_write(world, A, CLUSTER, 0x22);
	syncs = file_sim_count(world->disk, FILE_SIM_SYNC);
	request_start(world, 0, &second);
	pause_world();
	ck_assert(!second.done);
	pause_end(&pause);
	request_finish(&first);
	request_finish(&second);
	ck_assert_uint_gt(file_sim_count(world->disk, FILE_SIM_SYNC), syncs);
}

START_TEST(a_write_after_the_sync_before_its_answer)
{
	world_play(&(struct world_options){.seed = _i}, write_when_stable);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("pauses");
	TCase *tests = tcase_create("pauses");

	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, each_step_of_a_request, 0,
	    (int)SCENES * SCENE_SEEDS);
	tcase_add_loop_test(tests, a_change_between_the_syncs, 0, RACE_SEEDS);
	tcase_add_loop_test(tests, no_reuse_before_the_punch_has_ended, 0,
	    RACE_SEEDS);
	tcase_add_loop_test(tests, a_write_after_the_sync_before_its_answer,
	    0, RACE_SEEDS);
	suite_add_tcase(suite, tests);
	return world_main(suite);
}
