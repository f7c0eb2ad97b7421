/* SPDX-License-Identifier: MIT */
/*
 * Stopping long work between two of its pieces: after stop_begin(), the first
 * SIGINT, SIGTERM or SIGHUP is only noted, and the second of a kind ends the
 * process at once.
 */
#ifndef SERVER_STOP_H
#define SERVER_STOP_H

#include <stdbool.h>

void stop_begin(void);
bool stop_is_wanted(void);

#endif
