/* SPDX-License-Identifier: MIT */
#include "tests/unit/test_runtime.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A coroutine and what keeps its loop running; one thread's loop each. */
struct spawned {
	struct co_start start;
	void (*fn)(void *arg);
	void *arg;
};

static __thread unsigned running;

static co_fn void
run_spawned(void *arg)
{
	struct spawned *spawned = arg;

	spawned->fn(spawned->arg);
	free(spawned);
	if (--running == 0)
		loop_stop(loop_self());
}

void
test_spawn(void (*fn)(void *arg), void *arg)
{
	struct spawned *spawned = malloc(sizeof(*spawned));

	ck_assert_ptr_nonnull(spawned);
	spawned->fn = fn;
	spawned->arg = arg;
	running++;
	co_start(&spawned->start, run_spawned, spawned);
}

void
test_any_engine(void)
{
	ck_assert_int_gt(loop_engine_select(LOOP_AUTO), 0);
}

void
test_run(void (*fn)(void *arg), void *arg)
{
	struct loop *loop;

	ck_assert_int_eq(loop_create(1, &loop), 0);
	test_spawn(fn, arg);
	loop_run(loop);
	loop_free(loop);
}

/* A period that is prime, so that no shift by a page or a sector fits. */
static uint8_t
pattern(size_t position, unsigned seed)
{
	return (uint8_t)(position % 251 + seed * 7 + position / 65536);
}

void
test_fill(void *data, size_t length, unsigned seed)
{
	for (size_t i = 0; i < length; i++)
		((uint8_t *)data)[i] = pattern(i, seed);
}

void
test_verify(const void *data, size_t length, unsigned seed)
{
	for (size_t i = 0; i < length; i++)
		if (((const uint8_t *)data)[i] != pattern(i, seed))
			ck_abort_msg("wrong byte at %zu of %zu", i, length);
}

uint64_t
test_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static char directory[256];
static pid_t directory_owner;

static void
remove_directory(void)
{
	DIR *stream;
	struct dirent *entry;

	if (getpid() != directory_owner)
		return;
	stream = opendir(directory);
	while (stream && (entry = readdir(stream)))
		unlinkat(dirfd(stream), entry->d_name, 0);
	if (stream)
		closedir(stream);
	rmdir(directory);
}

const char *
test_directory(void)
{
	const char *top = getenv("TMPDIR");

	snprintf(directory, sizeof(directory), "%s/qnbd-test-XXXXXX",
	    top && strlen(top) < 64 ? top : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	directory_owner = getpid();
	atexit(remove_directory);
	return directory;
}

int
test_main(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
