/* SPDX-License-Identifier: MIT */
/*
 * A loop: one thread that runs tasks, and the operations they wait for.
 *
 * A turn runs everything that is ready, then the end-of-turn tasks (which
 * gather replies), then hands all queued operations to the kernel and takes
 * all completions in one step.  Completions only make tasks ready.
 *
 * The loop is a seam.  Engines: io_uring; threads (epoll for sockets, a
 * thread pool for files) where io_uring is refused; and sim, which runs any
 * number of loops on one thread in an order drawn from a seed.
 */
#ifndef RUNTIME_LOOP_H
#define RUNTIME_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "runtime/co.h"

struct loop;
struct writer;

enum loop_engine {
	LOOP_AUTO,	/* io_uring if permitted, else threads */
	LOOP_URING,
	LOOP_THREADS,
};

/*
 * Says which engine loops of this process will use: decides once, by a trial
 * ring.  Under LOOP_AUTO a refusal of io_uring is logged in one warning and
 * leads to LOOP_THREADS.  Returns LOOP_URING or LOOP_THREADS, or -errno where
 * LOOP_URING was demanded and is refused.
 */
int loop_engine_select(enum loop_engine wanted);
const char *loop_engine_name(void);

/*
 * Makes the calling thread's loop; loops_max is how many loops the process
 * will have (it divides CO_ALIVE_MAX).  -errno on failure.
 */
int loop_create(unsigned loops_max, struct loop **loopp);

/* Runs until loop_stop(); the calling thread made it. */
void loop_run(struct loop *loop);

/* Makes loop_run() return after its current turn; from any thread. */
void loop_stop(struct loop *loop);

/* Frees a loop that is not running and has nothing in flight. */
void loop_free(struct loop *loop);

/* The calling thread's loop (in sim: the one that is running), or NULL. */
struct loop *loop_self(void);

/* How many loops were made before it; for sharding counters, modulo. */
unsigned loop_index(const struct loop *loop);

/* Makes task ready on loop; from any thread.  Order per poster is kept. */
void loop_post(struct loop *loop, struct task *task);

/* The same for all of tasks, at the cost of one; leaves the list empty. */
void loop_post_list(struct loop *loop, struct task_list *tasks);

/*
 * Makes task ready on the calling thread's loop once it has been to the
 * kernel: what has arrived there by then comes first.
 */
void loop_post_next_turn(struct task *task);

/* Runs task when this turn has nothing ready any more; own loop only. */
void loop_at_turn_end(struct loop *loop, struct task *task);

/* Nanoseconds of a monotonic clock (virtual in sim). */
uint64_t loop_now_ns(struct loop *loop);

/* Random bits: getrandom(2), or the seed's sequence in sim. */
uint64_t loop_random(struct loop *loop);

/* ---- operations ---- */

enum op_kind {
	OP_READV,	/* fd, iov, iov_count, offset -> bytes */
	OP_WRITEV,	/* the same, flags: OP_DSYNC -> bytes */
	OP_FDATASYNC,	/* fd */
	OP_FALLOCATE,	/* fd, flags: fallocate(2)'s mode, offset, length */
	OP_ACCEPT,	/* fd -> the new fd, non-blocking, close-on-exec */
	OP_RECV,	/* fd, iov (one), OP_WAIT_ALL -> bytes, 0 at end */
	OP_RECV_POOLED,	/* fd -> bytes, and a buffer of the loop's own */
	OP_SEND,	/* fd, iov, iov_count, OP_BY_PIECES -> bytes (short
			   only on error) */
	OP_POLL_IN,	/* fd: readable */
	OP_POLL_OUT,	/* fd: writable; not in sim */
};

#define OP_DSYNC	1u
#define OP_WAIT_ALL	2u
#define OP_BY_PIECES	4u	/* OP_SEND: the socket knows no MSG_WAITALL */

/* What one OP_RECV_POOLED yields at most. */
#define LOOP_RECV_BYTES (128 * 1024)

/*
 * Bytes in front of those that are the receiver's to write, too: there it
 * puts what the receive before left over, and has one piece to parse.
 */
#define LOOP_RECV_HEADROOM_BYTES 64

/* One operation in flight: the caller's memory until its task has run. */
struct op {
	struct task task;	/* task.run: the caller's completion */
	enum op_kind kind;
	int fd;
	struct iovec *iov;
	unsigned iov_count;
	unsigned flags;
	uint64_t offset;
	uint64_t length;
	int64_t result;		/* as above, or -errno */
	void *pooled;		/* OP_RECV_POOLED: data, till loop_recv_put() */
	struct loop *loop;	/* set by loop_submit() */
	struct msghdr message;	/* the engine's scratch */
	struct co *co;		/* set by loop_wait() */
	struct writer *writer;	/* writer.c's */
	struct op *engine_next;	/* whose list it is in: the engine's */
	uint32_t engine_tag;
};

/*
 * Starts op on the calling thread's loop; op->task runs in a later step, never
 * inside this call.  File operations always complete.  A socket operation
 * ends when its socket is shut down, and by loop_cancel().
 */
void loop_submit(struct op *op);

/*
 * Asks a socket operation of the calling thread's loop to end.  It still
 * completes once, with -ECANCELED unless it was done already.
 */
void loop_cancel(struct op *op);

/* Starts op, suspends until it is done, returns its result. */
co_fn int64_t loop_wait(struct op *op);

/* The same for an OP_WRITEV, by the thread of writer.h. */
co_fn int64_t loop_wait_writer(struct writer *writer, struct op *op);

/* Gives the buffer of a finished OP_RECV_POOLED back; own loop only. */
void loop_recv_put(struct op *op);

/*
 * shutdown(2) of both directions, and close(2), of a socket that loop's
 * operations are used on: a simulated one is not known to the kernel.
 */
void loop_shutdown_fd(struct loop *loop, int fd);
void loop_close_fd(struct loop *loop, int fd);

/*
 * Runs fn(arg), which may not suspend, on another loop (or this one) and
 * suspends until it has run: for what belongs to that loop, such as a timer.
 */
co_fn void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg);

/* ---- timers ---- */

/* Runs task at a time; owned by the caller, all zeros is a stopped one. */
struct timer {
	struct task task;
	uint64_t deadline_ns;
	bool running;		/* changed by the two below alone */

	/* Private. */
	struct timer *child;
	struct timer *next;
	struct timer *previous;
};

/* Own loop only.  Starting a running timer moves it. */
void timer_start(struct loop *loop, struct timer *timer, uint64_t deadline_ns);
void timer_stop(struct loop *loop, struct timer *timer);

/* Suspends for at least delay_ns. */
co_fn void loop_sleep(uint64_t delay_ns);

/* ---- numbers, for bench and tests ---- */

struct loop_stats {
	uint64_t turns;
	uint64_t enters;	/* system calls that submit, wait or both */
	uint64_t submitted;
	uint64_t wakes;		/* times others woke it from its sleep */
};

/* Own loop only. */
void loop_stats(struct loop *loop, struct loop_stats *stats);

#endif
