/* SPDX-License-Identifier: MIT */
#include "runtime/writer.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "runtime/loop_internal.h"
#include "runtime/op_list.h"
#include "runtime/thread.h"

/* Writes after which those that are done are posted, however many follow. */
#define POST_BATCH 16

struct writer {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct op_list queue;
	bool asleep;
	bool stopping;
};

static void
write_op(struct op *op)
{
	ssize_t put = pwritev2(op->fd, op->iov, (int)op->iov_count,
	    (off_t)op->offset, op->flags & OP_DSYNC ? RWF_DSYNC : 0);

	op->result = put < 0 ? -errno : put;
}

/* Writes up to POST_BATCH that belong to one loop, and gives them back. */
static void
write_batch(struct op_list *queue)
{
	struct loop *loop = queue->first->loop;
	struct task_list done = {0};

	for (int i = 0; i < POST_BATCH && queue->first &&
	    queue->first->loop == loop; i++) {
		struct op *op = op_list_take(queue);

		write_op(op);
		task_list_append(&done, &op->task);
	}
	loop_post_list(loop, &done);
}

static void *
run(void *arg)
{
	struct writer *writer = arg;

	pthread_mutex_lock(&writer->lock);
	while (!writer->stopping) {
		struct op_list queue = writer->queue;

		writer->queue.first = NULL;
		if (!queue.first) {
			writer->asleep = true;
			pthread_cond_wait(&writer->more, &writer->lock);
			continue;
		}
		pthread_mutex_unlock(&writer->lock);
		while (queue.first)
			write_batch(&queue);
		pthread_mutex_lock(&writer->lock);
	}
	pthread_mutex_unlock(&writer->lock);
	return NULL;
}

int
writer_start(struct writer **writerp)
{
	struct writer *writer = calloc(1, sizeof(*writer));
	int err;

	if (!writer)
		return -ENOMEM;
	pthread_mutex_init(&writer->lock, NULL);
	pthread_cond_init(&writer->more, NULL);
	err = thread_start(&writer->thread, "qnbd-writer", run, writer);
	if (err) {
		free(writer);
		return err;
	}
	*writerp = writer;
	return 0;
}

void
writer_stop(struct writer *writer)
{
	if (!writer)
		return;
	pthread_mutex_lock(&writer->lock);
	assert(!writer->queue.first);
	writer->stopping = true;
	pthread_cond_signal(&writer->more);
	pthread_mutex_unlock(&writer->lock);
	pthread_join(writer->thread, NULL);
	pthread_cond_destroy(&writer->more);
	pthread_mutex_destroy(&writer->lock);
	free(writer);
}

/* What a loop has collected in this turn for one writer. */
static void
hand_over(struct writer *writer, struct op_list *ops)
{
	bool wake;

	pthread_mutex_lock(&writer->lock);
	op_list_join(&writer->queue, ops);
	wake = writer->asleep;
	writer->asleep = false;
	pthread_mutex_unlock(&writer->lock);
	if (wake)
		pthread_cond_signal(&writer->more);
}

/*
 * At the end of a turn the loop's writes go out: to one writer after the
 * other, in runs, since most turns write to one file.
 */
static void
hand_over_all(struct task *task)
{
	struct loop *loop = container_of(task, struct loop, writes_task);
	struct op_list all = loop->writes;

	loop->writes.first = NULL;
	while (all.first) {
		struct writer *writer = all.first->writer;
		struct op_list run_list = {0};

		while (all.first && all.first->writer == writer)
			op_list_append(&run_list, op_list_take(&all));
		hand_over(writer, &run_list);
	}
}

void
writer_submit(struct writer *writer, struct op *op)
{
	struct loop *loop = loop_self();

	op->loop = loop;
	op->writer = writer;
	loop->stats.submitted++;
	if (!loop->writes.first) {
		loop->writes_task.run = hand_over_all;
		loop_at_turn_end(loop, &loop->writes_task);
	}
	op_list_append(&loop->writes, op);
}
