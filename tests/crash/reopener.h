/* SPDX-License-Identifier: MIT */
/*
 * A reopener: who opens a crew's image anew, in place, beside the clients.
 * Each time is a flush in the record.
 */
#ifndef TESTS_CRASH_REOPENER_H
#define TESTS_CRASH_REOPENER_H

#include "runtime/co.h"

struct crew;

/* As often as the crew's options say. */
co_fn void reopener_work(struct crew *crew);

#endif
