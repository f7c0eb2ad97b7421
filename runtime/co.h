/* SPDX-License-Identifier: MIT */
/*
 * Coroutines: one per request, on pooled stacks, switched in user space.
 *
 * A coroutine belongs to the loop that started it and is only ever resumed by
 * that loop, from the loop's own turn: never from inside another coroutine,
 * never from inside a submission.  So code between two suspension points runs
 * undisturbed by anything else on its loop, and thread-local storage stays
 * put.  errno does not survive a suspension: pass -errno.
 *
 * A function that may suspend is marked co_fn and may only be called by one
 * that is.  clang's -Wthread-safety checks it; gcc sees nothing.  Calls
 * through function pointers are not checked, so mark their thin wrappers.
 */
#ifndef RUNTIME_CO_H
#define RUNTIME_CO_H

#include <stdbool.h>
#include "runtime/sanitizers.h"
#include "runtime/task.h"

struct co;
struct loop;
struct monitor;

#ifdef __clang__
struct __attribute__((capability("coroutine"))) co_context {
	int unused;
};
extern struct co_context co_context;
#define co_fn __attribute__((requires_capability(co_context)))
#else
#define co_fn
#endif

/* The stack of a coroutine, without its guard page. */
#if defined(WITH_ASAN) || defined(WITH_TSAN)
#define CO_STACK_BYTES (512 * 1024)
#else
#define CO_STACK_BYTES (64 * 1024)
#endif

/*
 * Coroutines alive at once in a process: each takes two memory maps, and
 * vm.max_map_count is 65,530.  The limit is divided among the loops; past it
 * co_start() queues.
 */
#define CO_ALIVE_MAX 24576

/* The caller's memory for a coroutine that waits to begin. */
struct co_start {
	struct task task;
	struct loop *loop;
	void (*fn)(void *arg);
	void *arg;
	bool beyond_limit;	/* see co_start_beyond_limit() */
};

/*
 * Makes fn(arg), a co_fn, ready to run as a coroutine of the calling thread's
 * loop; it begins on a later step of the loop, never inside this call.  start
 * must stay in place until fn is entered; fn may reuse or free it.
 */
void co_start(struct co_start *start, void (*fn)(void *arg), void *arg);

/*
 * The same for one that others, perhaps as many as there may be, wait for: it
 * begins past the limit, too.
 */
void co_start_beyond_limit(struct co_start *start, void (*fn)(void *arg),
    void *arg);

/* The running coroutine, or NULL outside of any. */
struct co *co_self(void);

/* The loop a coroutine lives on. */
struct loop *co_loop(const struct co *co);

/*
 * Gives the loop back until somebody wakes this coroutine.  A monitor the
 * coroutine is in is left for the time and entered again before the return.
 * Every wake must be awaited: exactly one co_suspend() for each co_wake().
 */
co_fn void co_suspend(void);

/* Lets co continue on its own loop; callable from any thread. */
void co_wake(struct co *co);

/* Lets everything else that is ready on this loop run first. */
co_fn void co_yield(void);

/* Frees the calling thread's pooled stacks; its loop calls it last. */
void co_pool_drain(void);

/* For loop.c: continues co at once; called from the loop's own turn. */
void co_resume(struct co *co);

/* For monitor.c: the monitor the running coroutine is in, or NULL. */
struct monitor *co_monitor(void);
void co_set_monitor(struct monitor *monitor);

#endif
