/* SPDX-License-Identifier: MIT */
#include "server/write_back.h"

#include <fcntl.h>
#include <unistd.h>

static void
tell_kernel(void *arg)
{
	struct write_back *write_back = arg;

	(void)sync_file_range(write_back->fd, (off_t)write_back->begun,
	    (off_t)(write_back->end - write_back->begun),
	    SYNC_FILE_RANGE_WRITE);
}

static void
told(struct task *task)
{
	struct worker_job *job = container_of(task, struct worker_job, task);
	struct write_back *write_back = job->arg;

	write_back->begun = write_back->end;
	write_back->running = false;
	if (write_back->waiter)
		co_wake(write_back->waiter);
}

void
write_back_open(struct write_back *write_back, const char *path)
{
	*write_back = (struct write_back){
		.fd = open(path, O_WRONLY | O_CLOEXEC),
	};
}

void
write_back_advance(struct write_back *write_back, uint64_t end)
{
	if (write_back->fd < 0 || write_back->running ||
	    end <= write_back->begun)
		return;
	write_back->end = end;
	write_back->running = true;
	write_back->job = (struct worker_job){
		.task.run = told, .fn = tell_kernel, .arg = write_back,
	};
	worker_submit(&write_back->job);
}

co_fn void
write_back_close(struct write_back *write_back)
{
	if (write_back->running) {
		write_back->waiter = co_self();
		co_suspend();
	}
	if (write_back->fd >= 0)
		close(write_back->fd);
	write_back->fd = -1;
}
