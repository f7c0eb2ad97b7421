/* SPDX-License-Identifier: MIT */
/*
 * A thread that runs a loop of its own, until it is told to end.
 */
#ifndef RUNTIME_LOOP_THREAD_H
#define RUNTIME_LOOP_THREAD_H

#include <pthread.h>
#include "runtime/loop.h"

struct loop_thread {
	struct loop *loop;	/* once it is started */
	pthread_t thread;
	void (*last)(void *arg);
	void *arg;
};

/*
 * Starts it; index is for its name, loops_max as loop_create()'s.  Before the
 * loop goes, last(arg) is called on the thread, unless last is NULL.  -errno.
 */
int loop_thread_start(struct loop_thread *thread, unsigned index,
    unsigned loops_max, void (*last)(void *arg), void *arg);

/* Stops the loop, which has nothing in flight, and waits for the end. */
void loop_thread_end(struct loop_thread *thread);

#endif
