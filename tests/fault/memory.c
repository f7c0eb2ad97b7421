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
 * not given back on the way out, requests that never end.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
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
	suite_add_tcase(suite, tests);
	return run_main(suite);
}
