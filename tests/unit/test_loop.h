/* SPDX-License-Identifier: MIT */
/*
 * Unit tests of the loop, on both engines, and what they share.  _i of each
 * test is the engine.
 */
#ifndef TESTS_UNIT_TEST_LOOP_H
#define TESTS_UNIT_TEST_LOOP_H
#include "tests/unit/test_runtime.h"

#define MILLISECOND_NS 1000000ull

TCase *test_loop_cancel(void);
TCase *test_loop_file(void);
TCase *test_loop_pooled(void);
TCase *test_loop_socket(void);
TCase *test_loop_turn(void);

/* 0: whatever the system allows, which should be io_uring; 1: threads. */
void select_engine(int engine);
void run_on_engine(int engine, void (*fn)(void *arg));

/* A pair of connected sockets, non-blocking; and text into one of them. */
void make_pair(int fds[2]);
void put(int fd, const char *text);

/* One OP_RECV; its result. */
co_fn int64_t receive(int fd, void *data, size_t size);

/* Coroutines that receive an x from, or send it 5 ms later to, *(int *)arg. */
co_fn void receive_x(void *arg);
co_fn void write_later(void *arg);

#endif
