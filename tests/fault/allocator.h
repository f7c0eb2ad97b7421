/* SPDX-License-Identifier: MIT */
/*
 * An allocator that fails when it is told to.
 *
 * Copies of the engine's libraries call it in place of the C library's
 * functions (allocator_calls.c); so it is the engine alone that runs out of
 * memory, not the simulator nor the test.
 */
#ifndef TESTS_FAULT_ALLOCATOR_H
#define TESTS_FAULT_ALLOCATOR_H

#include <stdbool.h>
#include <stdint.h>

/* The nth allocation from now on fails, 0: none; and all after it. */
void allocator_begin(uint64_t nth, bool for_good);

/* Counts an allocation; if it shall fail, errno is set. */
bool allocator_fails(void);

/* None fails any more; how many were tried, and how many of them failed. */
uint64_t allocator_end(uint64_t *failedp);

#endif
