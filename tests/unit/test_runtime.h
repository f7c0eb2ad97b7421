/* SPDX-License-Identifier: MIT */
/*
 * What the unit tests of runtime/ share: running coroutines on a loop that
 * ends with the last of them, and a main().
 */
#ifndef TESTS_UNIT_TEST_RUNTIME_H
#define TESTS_UNIT_TEST_RUNTIME_H
#include <check.h>
#include <stddef.h>
#include <stdint.h>
#include "runtime/co.h"
#include "runtime/loop.h"

/* Makes the calling thread's loop, runs fn(arg) on it as a coroutine, and
 * ends it when that and all from test_spawn() are done. */
void test_run(void (*fn)(void *arg), void *arg);

/* A fixture for tests that leave the engine to the system. */
void test_any_engine(void);

/* Starts another coroutine, from one that test_run() started. */
void test_spawn(void (*fn)(void *arg), void *arg);

/* length bytes that depend on seed and position; and whether they still do. */
void test_fill(void *data, size_t length, unsigned seed);
void test_verify(const void *data, size_t length, unsigned seed);

uint64_t test_now_ms(void);

/* A new directory below TMPDIR, removed with its files at exit. */
const char *test_directory(void);

/* Runs the suite; what main() returns. */
int test_main(Suite *suite);

#endif
