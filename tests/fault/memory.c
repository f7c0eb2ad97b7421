/* SPDX-License-Identifier: MIT */
/*
 * Every allocation of the engine fails once, and from then on.
 *
 * The scenarios are those of the disk's faults.  An allocation that fails may
 * fail the requests it was for, with ENOMEM, and nothing else: the tables stay
 * whole, the next flush works, and writing goes on as soon as there is memory.
 *
 *	memory [NAME]	only scenarios whose names contain NAME
 *
 * Guards against: NULL that is used, half a change of tables, memory that is
 * not given back on the way out, requests that never end, tables of a snapshot
 * that could not be applied and are taken for the disk's.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "qcow2/internal.h"
#include "runtime/buf.h"
#include "runtime/sanitizers.h"
#include "tests/fault/allocator.h"
#include "tests/fault/run.h"

#ifdef WITH_ASAN
#define SEEDS 1
#else
#define SEEDS 4
#endif

static uint64_t tried;

static void
begin(void *arg)
{
	const struct trouble *trouble = arg;

	/* What is pooled needs no allocation. */
	buf_pool_drain();
	allocator_begin(trouble->nth, trouble->for_good);
}

static bool
end(void *arg)
{
	uint64_t failed;

	(void)arg;
	tried = allocator_end(&failed);
	return failed > 0;
}

static void
try_each(const struct scenario *scenario, const struct base *base,
    struct trouble *trouble)
{
	struct run_hooks hooks = {.begin = begin, .end = end, .arg = trouble};
	uint64_t count;

	trouble->nth = 0;
	trouble->result = 0;
	run_scenario(scenario, base, trouble, &hooks);
	count = tried;
	trouble->result = -ENOMEM;
	for (trouble->nth = 1; trouble->nth <= count; trouble->nth++)
		run_scenario(scenario, base, trouble, &hooks);
}

START_TEST(no_memory)
{
	const struct scenario *scenario = &scenarios[_i / 2];
	struct trouble trouble = {.for_good = _i % 2};
	struct base base;

	base_create(&base, &scenario->layout);
	for (; trouble.seed < SEEDS; trouble.seed++)
		try_each(scenario, &base, &trouble);
	base_free(&base);
}
END_TEST

/* ---- a snapshot of more tables than are noted without an allocation ---- */

#define TABLE_SPAN (64u * 512)
#define TABLES 20

co_fn static void
write_tables(struct world *world, uint8_t value)
{
	for (unsigned i = 0; i < TABLES; i++)
		world_write(world, i * TABLE_SPAN, 512, value);
}

/* There is none from the nth allocation on, till it has failed or not. */
co_fn static void
apply_without_memory(struct world *world)
{
	struct request apply = request_of(ACTION_SNAPSHOT_APPLY, 1, 0, 0, 0);
	uint64_t *nth = world->arg, failed;

	write_tables(world, 0x11);
	world_snapshot(world, CREATE, 1);
	write_tables(world, 0x22);
	world_flush(world);
	buf_pool_drain();
	allocator_begin(*nth, true);
	request_start(world, 0, &apply);
	if (request_wait(&apply))
		ck_assert_int_eq(apply.err, -ENOMEM);
	allocator_end(&failed);
	/* What is nobody's is used again. */
	world_snapshot(world, DELETE, 1);
	flush_all(world);
	write_tables(world, 0x33);
	world_write(world, TABLES * TABLE_SPAN, 3 * TABLE_SPAN, 0x44);
	flush_all(world);
	ck_assert(!world->image->corrupt);
	*nth = failed > 0 ? *nth + 1 : 0;
}

START_TEST(snapshot_is_not_applied)
{
	struct world_options options = {
		.seed = 1, .cluster_bytes = 512,
		.disk_bytes = 2 * TABLES * TABLE_SPAN,
	};
	uint64_t nth = 1;

	while (nth > 0) {
		struct world world;

		world_create(&world, &options);
		world.arg = &nth;
		ck_assert_int_eq(world_open(&world), 0);
		world_run(&world, apply_without_memory);
		ck_assert_int_eq(world_close(&world), 0);
		ck_assert_uint_eq(world_check(&world).corruptions, 0);
		world_free(&world);
	}
}
END_TEST

int
main(int argc, char **argv)
{
	Suite *suite = suite_create("memory");
	TCase *tests = tcase_create("memory");

	if (SEEDS == 1)
		puts("one order of completion each: the sanitizer is slow");
	tcase_set_timeout(tests, 120);
	for (int i = 0; i < (int)scenarios_count; i++)
		if (argc < 2 || strstr(scenarios[i].name, argv[1]))
			tcase_add_loop_test(tests, no_memory, 2 * i,
			    2 * i + 2);
	if (argc < 2 || strstr("snapshot_is_not_applied", argv[1]))
		tcase_add_test(tests, snapshot_is_not_applied);
	suite_add_tcase(suite, tests);
	return run_main(suite);
}
