/* SPDX-License-Identifier: MIT */
#include "runtime/file_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>
#include "runtime/thread.h"

/*
 * A write into the page cache takes less time than waking a thread, so one
 * thread takes this many; anything else may wait for the disk and gets a
 * thread of its own.
 */
#define QUICK_BATCH 8

static struct {
	pthread_mutex_t lock;
	pthread_cond_t woken;
	struct op_list queue;
	unsigned threads;
	unsigned idle;		/* waiting and not called yet */
	unsigned calls;		/* for threads that are to wake up */
} pool = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.woken = PTHREAD_COND_INITIALIZER,
};

static bool
is_quick(const struct op *op)
{
	return op->kind == OP_WRITEV && !(op->flags & OP_DSYNC);
}

static int64_t
run_op(const struct op *op)
{
	ssize_t result;

	switch (op->kind) {
	case OP_READV:
		result = preadv(op->fd, op->iov, (int)op->iov_count,
		    (off_t)op->offset);
		break;
	case OP_WRITEV:
		result = pwritev2(op->fd, op->iov, (int)op->iov_count,
		    (off_t)op->offset, op->flags & OP_DSYNC ? RWF_DSYNC : 0);
		break;
	case OP_FDATASYNC:
		result = fdatasync(op->fd);
		break;
	case OP_FALLOCATE:
		result = fallocate(op->fd, (int)op->flags, (off_t)op->offset,
		    (off_t)op->length);
		break;
	default:
		return -EINVAL;
	}
	return result < 0 ? -errno : result;
}

/* The next operation, or several quick ones of one loop.  Under the lock. */
static struct op_list
take_batch(void)
{
	struct op_list batch = {0};
	struct op *op = op_list_take(&pool.queue);
	struct loop *loop = op->loop;
	unsigned count = 1;

	op_list_append(&batch, op);
	while (is_quick(op) && count < QUICK_BATCH) {
		op = pool.queue.first;
		if (!op || op->loop != loop || !is_quick(op))
			break;
		op_list_append(&batch, op_list_take(&pool.queue));
		count++;
	}
	return batch;
}

/* Once they are done the operations are their owners' again. */
static void
run_batch(struct op_list *batch)
{
	struct loop *loop = batch->first->loop;
	struct task_list tasks = {0};
	struct op *op;

	while ((op = op_list_take(batch))) {
		op->result = run_op(op);
		task_list_append(&tasks, &op->task);
	}
	file_pool_done(loop, &tasks);
}

static void *
file_thread(void *unused)
{
	struct op_list batch;

	(void)unused;
	pthread_mutex_lock(&pool.lock);
	for (;;) {
		while (!pool.queue.first) {
			pool.idle++;
			while (!pool.calls)
				pthread_cond_wait(&pool.woken, &pool.lock);
			pool.calls--;
		}
		batch = take_batch();
		pthread_mutex_unlock(&pool.lock);
		run_batch(&batch);
		pthread_mutex_lock(&pool.lock);
	}
	return NULL;
}

/* Wakes or starts a thread; if there is none to be had, those at work do. */
static void
call_thread(void)
{
	pthread_t thread;

	if (pool.idle > 0) {
		pool.idle--;
		pool.calls++;
		pthread_cond_signal(&pool.woken);
		return;
	}
	if (pool.threads == FILE_POOL_THREADS_MAX ||
	    thread_start(&thread, "qnbd-file", file_thread, NULL))
		return;
	pthread_detach(thread);
	pool.threads++;
}

static unsigned
threads_wanted(const struct op_list *list)
{
	unsigned slow = 0, quick = 0;
	const struct op *op;

	for (op = list->first; op; op = op->engine_next) {
		if (is_quick(op))
			quick++;
		else
			slow++;
	}
	return slow + (quick + QUICK_BATCH - 1) / QUICK_BATCH;
}

void
file_pool_run(struct op_list *list)
{
	unsigned wanted = threads_wanted(list);
	struct op_list here = {0};
	struct op_list batch;
	struct op *op;

	pthread_mutex_lock(&pool.lock);
	while ((op = op_list_take(list)))
		op_list_append(&pool.queue, op);
	while (wanted-- > 0)
		call_thread();
	if (pool.threads == 0) {
		here = pool.queue;
		pool.queue.first = NULL;
	}
	pthread_mutex_unlock(&pool.lock);
	while ((op = op_list_take(&here))) {
		batch = (struct op_list){0};
		op_list_append(&batch, op);
		run_batch(&batch);
	}
}
