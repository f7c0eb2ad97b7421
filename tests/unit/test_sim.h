/* SPDX-License-Identifier: MIT */
/* Unit tests of the simulator: those that are not in test_sim.c. */
#ifndef TESTS_UNIT_TEST_SIM_H
#define TESTS_UNIT_TEST_SIM_H
#include <check.h>

#define SECOND_NS 1000000000ull

TCase *test_sim_socket(void);

#endif
