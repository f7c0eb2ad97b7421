/* SPDX-License-Identifier: MIT */
/*
 * The thread engine, for where io_uring is refused: epoll for sockets, a pool
 * of threads for files.
 *
 * submit() only queues.  wait() first tries all that is queued: a socket that
 * is ready completes at once, others are armed in epoll; file operations go to
 * the pool together.  (What the page cache can answer never gets here.)
 *
 * Cost: a system call per socket operation and two more (arm, retry) if it had
 * to wait; one epoll_wait per turn; for a file operation, its share of one lock
 * and of a wake each way.
 *
 * epoll is armed for one event at a time.  That costs a system call more than
 * edge triggering, but needs no word from the caller when it closes a
 * descriptor and its number comes back as another socket.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "runtime/file_pool.h"
#include "runtime/loop_internal.h"
#include "runtime/socket_try.h"

#define RECV_BUFFERS 32
#define RECV_STRIDE_BYTES (LOOP_RECV_HEADROOM_BYTES + LOOP_RECV_BYTES)
#define RECV_MEMORY_BYTES ((size_t)RECV_BUFFERS * RECV_STRIDE_BYTES)
#define EVENTS_MAX 256
#define EVENT_FD_TAG UINT64_MAX

/* Where a socket operation is: op->engine_tag. */
enum place {
	PLACE_NOWHERE,		/* done, or a file operation */
	PLACE_QUEUED,
	PLACE_READERS,
	PLACE_WRITERS,
	PLACE_STARVED,
};

/* What waits for a descriptor. */
struct watch {
	struct op_list readers;	/* receives, accepts, polls */
	struct op_list writers;	/* sends, polls for writing */
	uint32_t armed;		/* valid while anything waits */
	bool known;		/* epoll probably has it already */
};

struct threads {
	int epoll_fd;
	int event_fd;
	struct op_list queued;
	struct op_list starved;	/* OP_RECV_POOLED without a buffer */
	struct watch *watches;	/* by descriptor */
	unsigned watches_count;

	char *recv_memory;
	unsigned recv_free_count;
	void *recv_free[RECV_BUFFERS];	/* the warmest is last */

	/* Finished by file threads.  Held while they wake the loop, so that
	 * a loop that has seen its last operation done may go away. */
	pthread_mutex_t done_lock;
	struct task_list done;
};

static void
complete(struct loop *loop, struct op *op, int64_t result)
{
	op->engine_tag = PLACE_NOWHERE;
	loop_complete(loop, op, result);
}

/* Takes a buffer only if bytes are there; the caller saw that one is free. */
static int64_t
recv_pooled(struct threads *threads, struct op *op)
{
	void *data = threads->recv_free[threads->recv_free_count - 1];
	ssize_t count = recv(op->fd, data, LOOP_RECV_BYTES, MSG_DONTWAIT);

	if (count < 0)
		return -errno;
	if (count > 0) {
		threads->recv_free_count--;
		op->pooled = data;
	}
	return count;
}

/* ---- waiting in epoll ---- */

static struct watch *
watch_of(struct threads *threads, int fd)
{
	unsigned count = threads->watches_count;
	struct watch *watches;

	if ((unsigned)fd < count)
		return &threads->watches[fd];
	while (count <= (unsigned)fd)
		count = count ? 2 * count : 64;
	watches = realloc(threads->watches, count * sizeof(*watches));
	if (!watches)
		return NULL;
	for (unsigned i = threads->watches_count; i < count; i++)
		watches[i] = (struct watch){0};
	threads->watches = watches;
	threads->watches_count = count;
	return &watches[fd];
}

/*
 * Makes epoll report fd once for everybody who waits.  Whether epoll knows fd
 * is a guess, since the number may have been closed and come back.
 */
static int
arm(struct threads *threads, struct watch *watch, int fd)
{
	struct epoll_event event = {
		.events = (watch->readers.first ? EPOLLIN | EPOLLRDHUP : 0) |
		    (watch->writers.first ? EPOLLOUT : 0),
		.data.u64 = (uint64_t)fd,
	};
	int err;

	if (!event.events || event.events == watch->armed)
		return 0;
	watch->armed = event.events;
	event.events |= EPOLLONESHOT;
	err = epoll_ctl(threads->epoll_fd,
	    watch->known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
	if (err && errno == ENOENT)
		err = epoll_ctl(threads->epoll_fd, EPOLL_CTL_ADD, fd, &event);
	else if (err && errno == EEXIST)
		err = epoll_ctl(threads->epoll_fd, EPOLL_CTL_MOD, fd, &event);
	watch->known = !err;
	return err ? -errno : 0;
}

/* While nobody waits, fd may be closed and armed says nothing. */
static void
forget_if_unused(struct watch *watch)
{
	if (!watch->readers.first && !watch->writers.first)
		watch->armed = 0;
}

static void
wait_for_socket(struct loop *loop, struct threads *threads, struct op *op)
{
	struct watch *watch = watch_of(threads, op->fd);
	bool writes = op->kind == OP_SEND || op->kind == OP_POLL_OUT;
	struct op_list *list;
	int err;

	if (!watch) {
		complete(loop, op, -ENOMEM);
		return;
	}
	list = writes ? &watch->writers : &watch->readers;
	op->engine_tag = writes ? PLACE_WRITERS : PLACE_READERS;
	op_list_append(list, op);
	err = arm(threads, watch, op->fd);
	if (err) {
		op_list_remove(list, op);
		forget_if_unused(watch);
		complete(loop, op, err);
	}
}

/* Completes op if it can be, else lets it wait.  It is in no list. */
static void
try_or_wait(struct loop *loop, struct threads *threads, struct op *op)
{
	int64_t result;

	if (op->kind == OP_RECV_POOLED && threads->recv_free_count == 0) {
		op->engine_tag = PLACE_STARVED;
		op_list_append(&threads->starved, op);
		return;
	}
	if (op->kind == OP_RECV_POOLED)
		result = recv_pooled(threads, op);
	else
		result = socket_try(op);
	if (result == -EAGAIN)
		wait_for_socket(loop, threads, op);
	else
		complete(loop, op, result);
}

static void
try_list_again(struct loop *loop, struct threads *threads,
    struct op_list *list)
{
	struct op_list waiting = *list;
	struct op *op;

	list->first = NULL;
	while ((op = op_list_take(&waiting)))
		try_or_wait(loop, threads, op);
}

/* The descriptor may be one that nobody waits for any more. */
static void
socket_event(struct loop *loop, struct threads *threads, int fd,
    uint32_t events)
{
	struct watch *watch = watch_of(threads, fd);
	uint32_t trouble = events & (EPOLLHUP | EPOLLERR);
	int err;

	watch->armed = 0;
	if (events & (EPOLLIN | EPOLLRDHUP) || trouble)
		try_list_again(loop, threads, &watch->readers);
	if (events & EPOLLOUT || trouble)
		try_list_again(loop, threads, &watch->writers);
	err = arm(threads, watch, fd);
	assert(!err);	/* epoll has it: it reported it */
}

/* ---- files ---- */

static bool
is_file_op(const struct op *op)
{
	return op->kind == OP_READV || op->kind == OP_WRITEV ||
	    op->kind == OP_FDATASYNC || op->kind == OP_FALLOCATE;
}

/* One wake for all that finished since the loop announced its sleep. */
void
file_pool_done(struct loop *loop, struct task_list *tasks)
{
	struct threads *threads = loop->engine;

	pthread_mutex_lock(&threads->done_lock);
	task_list_join(&threads->done, tasks);
	if (atomic_exchange(&loop->asleep, false))
		loop->ops->wake(loop);
	pthread_mutex_unlock(&threads->done_lock);
}

static void
take_done(struct loop *loop, struct threads *threads)
{
	pthread_mutex_lock(&threads->done_lock);
	task_list_join(&loop->ready, &threads->done);
	pthread_mutex_unlock(&threads->done_lock);
}

/* ---- the engine ---- */

static void
threads_submit(struct loop *loop, struct op *op)
{
	struct threads *threads = loop->engine;

	op->result = 0;
	op->pooled = NULL;
	op->engine_tag = PLACE_QUEUED;
	op_list_append(&threads->queued, op);
}

/*
 * A starved receive may find nothing and leave the buffer to the next, so it
 * is not enough to retry one for each buffer that comes back.
 */
static void
retry_starved(struct loop *loop, struct threads *threads)
{
	struct op *op;

	while (threads->recv_free_count > 0 &&
	    (op = op_list_take(&threads->starved)))
		try_or_wait(loop, threads, op);
}

static void
start_queued(struct loop *loop, struct threads *threads)
{
	struct op_list file_ops = {0};
	struct op *op;

	retry_starved(loop, threads);
	while ((op = op_list_take(&threads->queued))) {
		if (!is_file_op(op)) {
			try_or_wait(loop, threads, op);
			continue;
		}
		op->engine_tag = PLACE_NOWHERE;
		op_list_append(&file_ops, op);
	}
	if (file_ops.first)
		file_pool_run(&file_ops);
}

/* epoll counts in milliseconds; rounded up, so that no timer is early. */
static int
epoll_timeout(int64_t timeout_ns)
{
	int64_t timeout_ms;

	if (timeout_ns < 0)
		return -1;
	timeout_ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
	return timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms;
}

static void
take_events(struct loop *loop, struct threads *threads, int64_t timeout_ns)
{
	struct epoll_event events[EVENTS_MAX];
	uint64_t wakes;
	int count;

	loop->stats.enters++;
	count = epoll_wait(threads->epoll_fd, events, EVENTS_MAX,
	    epoll_timeout(timeout_ns));
	for (int i = 0; i < count; i++) {
		if (events[i].data.u64 == EVENT_FD_TAG) {
			ssize_t got = read(threads->event_fd, &wakes,
			    sizeof(wakes));

			(void)got;	/* it only has to be empty now */
			continue;
		}
		socket_event(loop, threads, (int)events[i].data.u64,
		    events[i].events);
	}
}

/*
 * The second look at done comes after the loop announced its sleep: a file
 * thread either sees that and wakes it, or is seen here.
 */
static void
threads_wait(struct loop *loop, int64_t timeout_ns)
{
	struct threads *threads = loop->engine;

	start_queued(loop, threads);
	take_done(loop, threads);
	if (loop->ready.first) {
		atomic_store(&loop->asleep, false);
		timeout_ns = 0;
	}
	take_events(loop, threads, timeout_ns);
	take_done(loop, threads);
}

static void
threads_wake(struct loop *loop)
{
	struct threads *threads = loop->engine;
	uint64_t one = 1;
	ssize_t put = write(threads->event_fd, &one, sizeof(one));

	assert(put == sizeof(one));
}

static void
threads_cancel(struct loop *loop, struct op *op)
{
	struct threads *threads = loop->engine;
	struct watch *watch;
	bool found = true;

	switch ((enum place)op->engine_tag) {
	case PLACE_NOWHERE:
		return;
	case PLACE_QUEUED:
		if (is_file_op(op))
			return;
		found = op_list_remove(&threads->queued, op);
		break;
	case PLACE_STARVED:
		found = op_list_remove(&threads->starved, op);
		break;
	case PLACE_READERS:
		watch = watch_of(threads, op->fd);
		found = op_list_remove(&watch->readers, op);
		forget_if_unused(watch);
		break;
	case PLACE_WRITERS:
		watch = watch_of(threads, op->fd);
		found = op_list_remove(&watch->writers, op);
		forget_if_unused(watch);
		break;
	}
	assert(found);
	complete(loop, op, op->result > 0 ? op->result : -ECANCELED);
}

static void
threads_recv_put(struct loop *loop, struct op *op)
{
	struct threads *threads = loop->engine;

	assert(threads->recv_free_count < RECV_BUFFERS);
	threads->recv_free[threads->recv_free_count++] = op->pooled;
}

static int
recv_buffers_init(struct threads *threads)
{
	threads->recv_memory = mmap(NULL, RECV_MEMORY_BYTES,
	    PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (threads->recv_memory == MAP_FAILED)
		return -errno;
	for (unsigned i = 0; i < RECV_BUFFERS; i++)
		threads->recv_free[i] = threads->recv_memory +
		    (size_t)i * RECV_STRIDE_BYTES + LOOP_RECV_HEADROOM_BYTES;
	threads->recv_free_count = RECV_BUFFERS;
	return 0;
}

static int
threads_init(struct loop *loop)
{
	struct epoll_event event = {
		.events = EPOLLIN, .data.u64 = EVENT_FD_TAG,
	};
	struct threads *threads = calloc(1, sizeof(*threads));
	int err;

	if (!threads)
		return -ENOMEM;
	err = recv_buffers_init(threads);
	if (err)
		goto free_threads;
	threads->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (threads->epoll_fd < 0) {
		err = -errno;
		goto unmap_buffers;
	}
	threads->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (threads->event_fd < 0) {
		err = -errno;
		goto close_epoll;
	}
	if (epoll_ctl(threads->epoll_fd, EPOLL_CTL_ADD, threads->event_fd,
	    &event)) {
		err = -errno;
		goto close_event;
	}
	err = -pthread_mutex_init(&threads->done_lock, NULL);
	if (err)
		goto close_event;
	loop->engine = threads;
	return 0;
close_event:
	close(threads->event_fd);
close_epoll:
	close(threads->epoll_fd);
unmap_buffers:
	munmap(threads->recv_memory, RECV_MEMORY_BYTES);
free_threads:
	free(threads);
	return err;
}

/* The lock waits for a file thread that is about to leave file_pool_done(). */
static void
threads_destroy(struct loop *loop)
{
	struct threads *threads = loop->engine;

	pthread_mutex_lock(&threads->done_lock);
	assert(!threads->done.first && !threads->queued.first);
	pthread_mutex_unlock(&threads->done_lock);
	pthread_mutex_destroy(&threads->done_lock);
	close(threads->event_fd);
	close(threads->epoll_fd);
	munmap(threads->recv_memory, RECV_MEMORY_BYTES);
	free(threads->watches);
	free(threads);
}

const struct loop_engine_ops loop_threads_ops = {
	.name = "threads",
	.init = threads_init,
	.destroy = threads_destroy,
	.submit = threads_submit,
	.wait = threads_wait,
	.wake = threads_wake,
	.cancel = threads_cancel,
	.recv_put = threads_recv_put,
	.now_ns = loop_clock_ns,
	.random = loop_system_random,
};
