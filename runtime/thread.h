/* SPDX-License-Identifier: MIT */
/*
 * Helper threads: the log's writer, workers, file threads.
 *
 * They take no signals, so that a signal always goes to whoever opened
 * signals.h, even if a helper was started before.
 */
#ifndef RUNTIME_THREAD_H
#define RUNTIME_THREAD_H

#include <pthread.h>

/*
 * Starts fn(arg); name is what ps and gdb show, at most 15 bytes.  Whoever
 * starts a thread joins or detaches it.  0 or -errno.
 */
int thread_start(pthread_t *thread, const char *name, void *(*fn)(void *arg),
    void *arg);

/* CPUs this process may run on, at least 1. */
unsigned thread_cpus(void);

#endif
