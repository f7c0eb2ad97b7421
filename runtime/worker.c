/* SPDX-License-Identifier: MIT */
#include "runtime/worker.h"

#include <pthread.h>
#include <stdbool.h>
#include "runtime/loop.h"
#include "runtime/loop_internal.h"
#include "runtime/thread.h"

#define WORKERS_MAX 64

static struct {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct worker_job *first;
	struct worker_job *last;
	unsigned threads_count;
	bool stopping;
	pthread_t threads[WORKERS_MAX];
} pool = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.more = PTHREAD_COND_INITIALIZER,
};

/* The oldest job, or NULL when the pool stops; waits for it. */
static struct worker_job *
take_job(void)
{
	struct worker_job *job;

	pthread_mutex_lock(&pool.lock);
	while (!pool.first && !pool.stopping)
		pthread_cond_wait(&pool.more, &pool.lock);
	job = pool.first;
	if (job)
		pool.first = job->next;
	pthread_mutex_unlock(&pool.lock);
	return job;
}

/* After the post the job is its owner's again. */
static void
run_job(struct worker_job *job)
{
	job->fn(job->arg);
	loop_post(job->loop, &job->task);
}

static void *
worker(void *unused)
{
	struct worker_job *job;

	(void)unused;
	while ((job = take_job()))
		run_job(job);
	return NULL;
}

/* Called with the lock held.  Fewer threads than CPUs are good enough. */
static void
start_threads(void)
{
	unsigned wanted = thread_cpus();

	if (wanted > WORKERS_MAX)
		wanted = WORKERS_MAX;
	while (pool.threads_count < wanted &&
	    !thread_start(&pool.threads[pool.threads_count], "qnbd-worker",
	    worker, NULL))
		pool.threads_count++;
}

/* False if there is no thread to be had. */
static bool
queue_job(struct worker_job *job)
{
	bool queued;

	pthread_mutex_lock(&pool.lock);
	if (!pool.threads_count)
		start_threads();
	queued = pool.threads_count > 0;
	if (queued) {
		job->next = NULL;
		if (pool.first)
			pool.last->next = job;
		else
			pool.first = job;
		pool.last = job;
		pthread_cond_signal(&pool.more);
	}
	pthread_mutex_unlock(&pool.lock);
	return queued;
}

/*
 * A simulated loop runs the job here and now, since its order must not depend
 * on threads; without threads that is slow but still right.
 */
void
worker_submit(struct worker_job *job)
{
	job->loop = loop_self();
	if (loop_is_simulated(job->loop) || !queue_job(job))
		run_job(job);
}

struct worker_wait {
	struct worker_job job;
	struct co *co;
};

static void
wake_waiter(struct task *task)
{
	co_wake(container_of(task, struct worker_wait, job.task)->co);
}

co_fn void
worker_run(void (*fn)(void *arg), void *arg)
{
	struct worker_wait wait = {
		.job.task.run = wake_waiter,
		.job.fn = fn,
		.job.arg = arg,
		.co = co_self(),
	};

	loop_self()->elsewhere++;
	worker_submit(&wait.job);
	co_suspend();
	loop_self()->elsewhere--;
}

void
worker_stop(void)
{
	unsigned i;

	pthread_mutex_lock(&pool.lock);
	pool.stopping = true;
	pthread_cond_broadcast(&pool.more);
	pthread_mutex_unlock(&pool.lock);
	for (i = 0; i < pool.threads_count; i++)
		pthread_join(pool.threads[i], NULL);
	pool.threads_count = 0;
	pool.stopping = false;
}
