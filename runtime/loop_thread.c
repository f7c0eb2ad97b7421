/* SPDX-License-Identifier: MIT */
#include "runtime/loop_thread.h"

#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include "runtime/thread.h"

/* How a thread's loop came out, told to the one who started it. */
struct start {
	struct loop_thread *thread;
	unsigned loops_max;
	sem_t made;
	int err;
};

static void *
run(void *arg)
{
	struct start *start = arg;
	struct loop_thread *thread = start->thread;
	struct loop *loop = NULL;

	start->err = loop_create(start->loops_max, &loop);
	thread->loop = loop;
	if (start->err) {
		sem_post(&start->made);
		return NULL;
	}
	sem_post(&start->made);
	loop_run(loop);
	if (thread->last)
		thread->last(thread->arg);
	loop_free(loop);
	return NULL;
}

int
loop_thread_start(struct loop_thread *thread, unsigned index,
    unsigned loops_max, void (*last)(void *arg), void *arg)
{
	struct start start = {.thread = thread, .loops_max = loops_max};
	char name[16];
	int err;

	*thread = (struct loop_thread){.last = last, .arg = arg};
	sem_init(&start.made, 0, 0);
	snprintf(name, sizeof(name), "loop %u", index);
	err = thread_start(&thread->thread, name, run, &start);
	if (err)
		goto destroy_made;
	while (sem_wait(&start.made) < 0)
		assert(errno == EINTR);
	err = start.err;
	if (err)
		pthread_join(thread->thread, NULL);
destroy_made:
	sem_destroy(&start.made);
	return err;
}

void
loop_thread_end(struct loop_thread *thread)
{
	loop_stop(thread->loop);
	pthread_join(thread->thread, NULL);
}
