/* SPDX-License-Identifier: MIT */
/*
 * Every operation on the disk fails once, and from then on.
 *
 * A scenario (scenarios.c) is run without trouble to count its operations of
 * each kind, in each file of a chain, and then again for each of them, which
 * returns an error, is short or is interrupted; under several orders of
 * completion.  What is right after that stands in run.h.
 *
 *	faults [NAME]	only scenarios whose names contain NAME
 *
 * Guards against: errors that are swallowed or turned into others, requests
 * that never end, tables in memory that a failed write left wrong, clusters
 * given out twice, a failed sync that is tried again into success, short and
 * interrupted operations that lose or repeat bytes.
 */
#include <errno.h>
#include <string.h>
#include "runtime/sanitizers.h"
#include "tests/fault/run.h"

/* Orders of completion, results of a kind, and operations from one on. */
#ifdef WITH_ASAN
#define SEEDS 1
#define KINDS_MAX 1
#define STRIDE 3
#else
#define SEEDS 2
#define KINDS_MAX 3
#define STRIDE 1
#endif

/* Where a run takes long because there is much to read. */
#define LARGE_BYTES (2u << 20)

/* ---- all the trouble there is ---- */

struct troubles {
	int result;
	unsigned kinds;
	bool once;
	bool for_good;
};

static void
try_each(const struct scenario *scenario, const struct base *base,
    struct trouble *trouble, const struct troubles *troubles)
{
	uint64_t count;

	trouble->result = 0;
	count = run_scenario(scenario, base, trouble, NULL);
	trouble->result = troubles->result;
	for (trouble->nth = 1; trouble->nth <= count;
	    trouble->nth += STRIDE) {
		trouble->for_good = false;
		if (troubles->once)
			run_scenario(scenario, base, trouble, NULL);
		trouble->for_good = true;
		if (troubles->for_good)
			run_scenario(scenario, base, trouble, NULL);
	}
}

static void
try_scenario(const struct scenario *scenario, const struct troubles *troubles)
{
	unsigned seeds = scenario->layout.disk_bytes < LARGE_BYTES ? SEEDS :
	    1;
	struct base base;

	base_create(&base, &scenario->layout);
	for (struct trouble trouble = {0}; trouble.seed < seeds;
	    trouble.seed++)
		for (trouble.layer = 0; trouble.layer < base.layers;
		    trouble.layer++)
			for (unsigned bit = 1; bit <= FILE_SIM_ANY; bit *= 2) {
				trouble.kind = bit;
				if (troubles->kinds & bit)
					try_each(scenario, &base, &trouble,
					    troubles);
			}
	base_free(&base);
}

#define MOVES (FILE_SIM_READ | FILE_SIM_WRITE)

START_TEST(io_errors)
{
	try_scenario(&scenarios[_i], &(struct troubles){
		-EIO, FILE_SIM_ANY, true, true,
	});
}
END_TEST

START_TEST(no_space)
{
	try_scenario(&scenarios[_i], &(struct troubles){
		-ENOSPC, FILE_SIM_WRITE | FILE_SIM_ZERO | FILE_SIM_ALLOCATE |
		FILE_SIM_SYNC, true, true,
	});
}
END_TEST

/* All but a byte of a sector, a byte, a sector; and some again and again. */
START_TEST(short_results)
{
	static const int once[] = {511, 1, 512};

	for (unsigned i = 0; i < KINDS_MAX; i++)
		try_scenario(&scenarios[_i], &(struct troubles){
			once[i], MOVES, true, false,
		});
	try_scenario(&scenarios[_i], &(struct troubles){
		700, MOVES, false, true,
	});
}
END_TEST

START_TEST(interrupted)
{
	static const int results[] = {-EINTR, -EAGAIN, -ECANCELED};

	for (unsigned i = 0; i < KINDS_MAX; i++)
		try_scenario(&scenarios[_i], &(struct troubles){
			results[i], FILE_SIM_ANY, true, false,
		});
}
END_TEST

/* For the scenarios whose names contain part. */
static void
add_tests(TCase *tests, const char *part)
{
	for (int i = 0; i < (int)scenarios_count; i++) {
		if (!strstr(scenarios[i].name, part))
			continue;
		tcase_add_loop_test(tests, io_errors, i, i + 1);
		tcase_add_loop_test(tests, no_space, i, i + 1);
		tcase_add_loop_test(tests, short_results, i, i + 1);
		tcase_add_loop_test(tests, interrupted, i, i + 1);
	}
}

int
main(int argc, char **argv)
{
	Suite *suite = suite_create("faults");
	TCase *tests = tcase_create("faults");

	if (SEEDS == 1)
		puts("the sanitizer is slow: every third operation, one order "
		    "of completion, of short results 511 and 700 bytes, of "
		    "interruptions EINTR");
	tcase_set_timeout(tests, 120);
	add_tests(tests, argc > 1 ? argv[1] : "");
	suite_add_tcase(suite, tests);
	return run_main(suite);
}
