/* SPDX-License-Identifier: MIT */
/*
 * The loop's core: ready tasks, turns, the inbox, sleeping.
 *
 * Cost per turn: one engine wait (with io_uring one system call, whatever the
 * number of operations), one look at an atomic for the inbox, one clock read
 * if a timer is set.  Cost of a post to another loop: its inbox lock, and one
 * eventfd write if it sleeps.
 */
#include "runtime/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include "runtime/buf.h"
#include "runtime/log.h"
#include "runtime/loop_internal.h"
#include "runtime/splice_pipe.h"
#include "runtime/writer.h"

/*
 * Tasks of one turn.  Few enough that a client gets the first replies of a
 * burst while the rest is worked on, and sends its next requests meanwhile;
 * enough to share the turn's system calls.
 */
#define TURN_TASKS_MAX 24

/* An idle loop gives its warm buffers back after this. */
#define IDLE_NS 1000000000ull

static __thread struct loop *self;

/* Loops made so far in this process. */
static atomic_uint loops_made;

/* What loop_engine_select() decided for the process. */
static const struct loop_engine_ops *selected = &loop_uring_ops;

struct loop *
loop_self(void)
{
	return self;
}

unsigned
loop_index(const struct loop *loop)
{
	return loop->index;
}

void
loop_set_self(struct loop *loop)
{
	self = loop;
}

/* ---- making and freeing ---- */

int
loop_create_with(const struct loop_engine_ops *ops, unsigned loops_max,
    struct loop **loopp)
{
	struct loop *loop = aligned_alloc(64, sizeof(*loop));
	int err;

	assert(loops_max > 0);
	if (!loop)
		return -ENOMEM;
	*loop = (struct loop){
		.ops = ops, .index = atomic_fetch_add(&loops_made, 1),
	};
	loop->co_alive_max = CO_ALIVE_MAX / loops_max;
	if (loop->co_alive_max == 0)
		loop->co_alive_max = 1;
	err = -pthread_mutex_init(&loop->inbox_lock, NULL);
	if (err)
		goto free_loop;
	err = ops->init(loop);
	if (err)
		goto destroy_lock;
	*loopp = loop;
	return 0;
destroy_lock:
	pthread_mutex_destroy(&loop->inbox_lock);
free_loop:
	free(loop);
	return err;
}

int
loop_create(unsigned loops_max, struct loop **loopp)
{
	int err = loop_create_with(selected, loops_max, loopp);

	if (!err)
		self = *loopp;
	return err;
}

static bool
has_pools(void)
{
	return buf_pool_bytes() > 0 || splice_pipe_kept();
}

static void
drain_pools(void)
{
	buf_pool_drain();
	splice_pipe_drain();
}

void
loop_free(struct loop *loop)
{
	if (!loop)
		return;
	/* Not before the last who posted or stopped has let go of it. */
	pthread_mutex_lock(&loop->inbox_lock);
	assert(!loop->inbox.first);
	pthread_mutex_unlock(&loop->inbox_lock);
	assert(!loop->ready.first && loop->co_alive == 0);
	if (self == loop) {
		co_pool_drain();
		drain_pools();
		self = NULL;
	}
	loop->ops->destroy(loop);
	pthread_mutex_destroy(&loop->inbox_lock);
	free(loop);
}

int
loop_engine_select(enum loop_engine wanted)
{
	struct loop *trial;
	int err;

	selected = &loop_threads_ops;
	if (wanted == LOOP_THREADS)
		return LOOP_THREADS;
	err = loop_create_with(&loop_uring_ops, 1, &trial);
	if (err && wanted == LOOP_URING)
		return err;
	if (err) {
		log_warning("%s\n  running on the thread engine instead "
		    "(slower)", err == -EPERM || err == -EACCES ?
		    "io_uring is not permitted here (kernel.io_uring_disabled "
		    "or a container's seccomp profile)" :
		    "io_uring does not work on this system");
		return LOOP_THREADS;
	}
	loop_free(trial);
	selected = &loop_uring_ops;
	return LOOP_URING;
}

const char *
loop_engine_name(void)
{
	return selected->name;
}

/* ---- tasks ---- */

/*
 * Called with the inbox locked: a loop that has seen what it was woken for may
 * be freed, and loop_free() waits for the lock.
 */
static void
wake_if_asleep(struct loop *loop)
{
	if (!atomic_exchange(&loop->asleep, false))
		return;
	loop->wakes++;
	loop->ops->wake(loop);
}

void
loop_post_list(struct loop *loop, struct task_list *tasks)
{
	void (*posted)(struct loop *loop);

	if (loop == self) {
		task_list_join(&loop->ready, tasks);
		return;
	}
	posted = loop->ops->posted;
	pthread_mutex_lock(&loop->inbox_lock);
	task_list_join(&loop->inbox, tasks);
	atomic_store(&loop->inbox_full, true);
	if (!posted)
		wake_if_asleep(loop);
	pthread_mutex_unlock(&loop->inbox_lock);
	if (posted)
		posted(loop);
}

void
loop_post(struct loop *loop, struct task *task)
{
	struct task_list tasks = {0};

	task_list_append(&tasks, task);
	loop_post_list(loop, &tasks);
}

void
loop_take_inbox(struct loop *loop)
{
	if (!atomic_load_explicit(&loop->inbox_full, memory_order_relaxed))
		return;
	pthread_mutex_lock(&loop->inbox_lock);
	task_list_join(&loop->ready, &loop->inbox);
	atomic_store(&loop->inbox_full, false);
	pthread_mutex_unlock(&loop->inbox_lock);
}

/* In sim each task is a turn. */
void
loop_post_next_turn(struct task *task)
{
	if (loop_is_simulated(self))
		loop_post(self, task);
	else
		task_list_append(&self->next_turn, task);
}

void
loop_at_turn_end(struct loop *loop, struct task *task)
{
	assert(loop == self);
	task_list_append(&loop->turn_end, task);
}

unsigned
loop_run_ready(struct loop *loop, unsigned tasks_max)
{
	unsigned count = 0;
	struct task *task;

	while (count < tasks_max && (task = task_list_take(&loop->ready))) {
		task->run(task);
		count++;
	}
	return count;
}

bool
loop_run_turn_end(struct loop *loop)
{
	struct task_list tasks = loop->turn_end;
	struct task *task;

	loop->turn_end.first = NULL;
	if (!tasks.first)
		return false;
	while ((task = task_list_take(&tasks)))
		task->run(task);
	return true;
}

/* ---- turns ---- */

/*
 * How long this turn may block.  Announces the sleep, then looks at the inbox
 * once more: a post either sees the announcement or is seen here.
 */
static int64_t
prepare_sleep(struct loop *loop)
{
	int64_t timeout_ns;

	if (loop->ready.first || loop->next_turn.first ||
	    atomic_load(&loop->stopping))
		return 0;
	timeout_ns = loop_timeout_ns(loop);
	if (timeout_ns == 0)
		return 0;
	atomic_store(&loop->asleep, true);
	if (!atomic_load(&loop->inbox_full) && !atomic_load(&loop->stopping))
		return timeout_ns;
	atomic_store(&loop->asleep, false);
	return 0;
}

/* Warm buffers and pipes are worth keeping only while there is work. */
static int64_t
idle_timeout(int64_t timeout_ns)
{
	if (!has_pools())
		return timeout_ns;
	if (timeout_ns < 0 || timeout_ns > (int64_t)IDLE_NS)
		return IDLE_NS;
	return timeout_ns;
}

void
loop_run(struct loop *loop)
{
	assert(loop == self);
	while (!atomic_load(&loop->stopping)) {
		uint64_t turn_ops = loop->stats.submitted;
		int64_t timeout_ns;

		loop_run_timers(loop);
		loop_run_ready(loop, TURN_TASKS_MAX);
		while (loop_run_turn_end(loop))
			continue;
		timeout_ns = prepare_sleep(loop);
		if (timeout_ns != 0)
			timeout_ns = idle_timeout(timeout_ns);
		loop->ops->wait(loop, timeout_ns);
		atomic_store_explicit(&loop->asleep, false,
		    memory_order_relaxed);
		loop_take_inbox(loop);
		task_list_join(&loop->ready, &loop->next_turn);
		loop->stats.turns++;
		if (timeout_ns == (int64_t)IDLE_NS && !loop->ready.first &&
		    turn_ops == loop->stats.submitted)
			drain_pools();
	}
	atomic_store(&loop->stopping, false);
}

void
loop_stop(struct loop *loop)
{
	pthread_mutex_lock(&loop->inbox_lock);
	atomic_store(&loop->stopping, true);
	if (loop != self)
		wake_if_asleep(loop);
	pthread_mutex_unlock(&loop->inbox_lock);
}

/* ---- operations ---- */

void
loop_submit(struct op *op)
{
	struct loop *loop = self;

	op->loop = loop;
	loop->stats.submitted++;
	loop->ops->submit(loop, op);
}

void
loop_cancel(struct op *op)
{
	assert(op->loop == self);
	op->loop->ops->cancel(op->loop, op);
}

static void
wake_waiter(struct task *task)
{
	struct op *op = container_of(task, struct op, task);

	co_resume(op->co);
}

int64_t
loop_wait(struct op *op)
{
	op->task.run = wake_waiter;
	op->co = co_self();
	loop_submit(op);
	co_suspend();
	return op->result;
}

int64_t
loop_wait_writer(struct writer *writer, struct op *op)
{
	op->task.run = wake_waiter;
	op->co = co_self();
	self->elsewhere++;
	writer_submit(writer, op);
	co_suspend();
	self->elsewhere--;
	return op->result;
}

struct call {
	struct task task;
	void (*fn)(void *arg);
	void *arg;
	struct co *co;
};

static void
run_call(struct task *task)
{
	struct call *call = container_of(task, struct call, task);

	call->fn(call->arg);
	co_wake(call->co);
}

void
loop_call(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct call call = {
		.task.run = run_call, .fn = fn, .arg = arg, .co = co_self(),
	};

	loop_post(loop, &call.task);
	co_suspend();
}

void
loop_recv_put(struct op *op)
{
	/* It may never have been submitted. */
	if (!op->pooled)
		return;
	assert(op->loop == self);
	op->loop->ops->recv_put(op->loop, op);
	op->pooled = NULL;
}

void
loop_shutdown_fd(struct loop *loop, int fd)
{
	if (loop->ops->shutdown_fd)
		loop->ops->shutdown_fd(loop, fd);
	else
		(void)shutdown(fd, SHUT_RDWR);
}

void
loop_close_fd(struct loop *loop, int fd)
{
	if (loop->ops->close_fd)
		loop->ops->close_fd(loop, fd);
	else
		(void)close(fd);
}

/* ---- sleeping ---- */

struct sleeper {
	struct timer timer;
	struct co *co;
};

static void
wake_sleeper(struct task *task)
{
	struct timer *timer = container_of(task, struct timer, task);

	co_resume(container_of(timer, struct sleeper, timer)->co);
}

void
loop_sleep(uint64_t delay_ns)
{
	struct sleeper sleeper = {.co = co_self()};

	sleeper.timer.task.run = wake_sleeper;
	timer_start(self, &sleeper.timer, loop_now_ns(self) + delay_ns);
	co_suspend();
}

static void
retry_starts(struct task *task)
{
	struct timer *timer = container_of(task, struct timer, task);
	struct loop *loop = container_of(timer, struct loop, co_retry);

	task_list_join(&loop->ready, &loop->co_waiting);
}

void
loop_retry_starts(struct loop *loop)
{
	if (loop->co_alive > 0 || loop->co_retry.running)
		return;
	loop->co_retry.task.run = retry_starts;
	timer_start(loop, &loop->co_retry, loop_now_ns(loop) + 100000000);
}

/* ---- clock, random, numbers ---- */

uint64_t
loop_now_ns(struct loop *loop)
{
	return loop->ops->now_ns(loop);
}

uint64_t
loop_random(struct loop *loop)
{
	return loop->ops->random(loop);
}

uint64_t
loop_clock_ns(struct loop *loop)
{
	struct timespec now;

	(void)loop;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

uint64_t
loop_system_random(struct loop *loop)
{
	uint64_t bits;
	ssize_t got = getrandom(&bits, sizeof(bits), 0);

	(void)loop;
	assert(got == sizeof(bits));
	return bits;
}

void
loop_stats(struct loop *loop, struct loop_stats *stats)
{
	*stats = loop->stats;
	pthread_mutex_lock(&loop->inbox_lock);
	stats->wakes = loop->wakes;
	pthread_mutex_unlock(&loop->inbox_lock);
}
