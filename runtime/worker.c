/* SPDX-License-Identifier: MIT */
#include "runtime/worker.h"

#include <pthread.h>
#include "runtime/loop.h"
#include "runtime/loop_internal.h"
#include "runtime/thread.h"

#define WORKERS_MAX 64

struct job_list {
	struct worker_job *first;
	struct worker_job *last;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct job_list jobs;
	struct job_list humble_jobs;
	unsigned humble_running;
	bool humble_is_next;	/* where both kinds wait */
	unsigned threads_count;
	bool stopping;
	pthread_t threads[WORKERS_MAX];
} pool = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.more = PTHREAD_COND_INITIALIZER,
};

static void
list_append(struct job_list *list, struct worker_job *job)
{
	job->next = NULL;
	if (list->first)
		list->last->next = job;
	else
		list->first = job;
	list->last = job;
}

/* ---- a worker; the functions up to take_job() with the lock held ---- */

static bool
humble_may_run(void)
{
	return pool.humble_jobs.first && (pool.humble_running == 0 ||
	    pool.humble_running < pool.threads_count / 2);
}

/* The list that the next job comes from, or NULL if none may run. */
static struct job_list *
choose_list(void)
{
	if (humble_may_run() && (pool.humble_is_next || !pool.jobs.first))
		return &pool.humble_jobs;
	return pool.jobs.first ? &pool.jobs : NULL;
}

/* Who takes a job sees to it that somebody comes for the one behind it. */
static struct worker_job *
list_take(struct job_list *list)
{
	struct worker_job *job = list->first;

	list->first = job->next;
	pool.humble_is_next = !job->humble;
	pool.humble_running += job->humble;
	if (choose_list())
		pthread_cond_signal(&pool.more);
	return job;
}

/* The next job, or NULL when the pool stops; waits for it. */
static struct worker_job *
take_job(bool was_humble)
{
	struct worker_job *job = NULL;
	struct job_list *list;

	pthread_mutex_lock(&pool.lock);
	pool.humble_running -= was_humble;
	while (!(list = choose_list()) && !pool.stopping)
		pthread_cond_wait(&pool.more, &pool.lock);
	if (list)
		job = list_take(list);
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
	bool humble = false;

	(void)unused;
	while ((job = take_job(humble))) {
		humble = job->humble;
		run_job(job);
	}
	return NULL;
}

/* ---- the pool ---- */

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
		list_append(job->humble ? &pool.humble_jobs : &pool.jobs, job);
		if (choose_list())
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

static co_fn void
run_and_wait(void (*fn)(void *arg), void *arg, bool humble)
{
	struct worker_wait wait = {
		.job.task.run = wake_waiter,
		.job.fn = fn,
		.job.arg = arg,
		.job.humble = humble,
		.co = co_self(),
	};

	loop_self()->elsewhere++;
	worker_submit(&wait.job);
	co_suspend();
	loop_self()->elsewhere--;
}

co_fn void
worker_run(void (*fn)(void *arg), void *arg)
{
	run_and_wait(fn, arg, false);
}

co_fn void
worker_run_humbly(void (*fn)(void *arg), void *arg)
{
	run_and_wait(fn, arg, true);
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
