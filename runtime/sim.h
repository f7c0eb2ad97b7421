/* SPDX-License-Identifier: MIT */
/*
 * A simulated world: any number of loops on one thread, under one seed.
 *
 * Every operation takes a time that is drawn from the seed, and so does every
 * step of a loop; the next thing to happen is the one that is due first, and
 * the clock jumps there.  The draws are spread over many powers of two, so
 * that one operation may be overtaken by hundreds.  A loop may stand still
 * before it enters a monitor while the others run on.  Worker jobs run inline.
 * No order depends on addresses or on real time: an equal seed gives an equal
 * sim_hash().
 *
 * Files of a world are those of file_sim.h; descriptors are those made here.
 * Running out of memory ends the process.
 */
#ifndef RUNTIME_SIM_H
#define RUNTIME_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "runtime/co.h"
#include "runtime/loop.h"

struct sim;

#define SIM_LOOPS_MAX 64

/* Steps of one sim_run() until it says SIM_ENDLESS, unless set otherwise. */
#define SIM_STEPS_MAX (100u * 1000 * 1000)

/* Why sim_run() returned. */
enum sim_end {
	SIM_DONE,	/* no coroutine is left and nothing is pending */
	SIM_HELD,	/* all that is pending is held: see file_sim_hold() */
	SIM_DEADLOCK,	/* coroutines wait, and nothing will wake them */
	SIM_STOPPED,	/* sim_stop() was called */
	SIM_TIME,	/* the clock reached what sim_run_until() was given */
	SIM_ENDLESS,	/* it took too many steps: something spins */
};

/* A world with loops 0 to loops - 1, whose clock stands at one second. */
int sim_create(uint64_t seed, unsigned loops, struct sim **simp);

/* No coroutine may be alive.  Sockets left open are freed.  NULL is fine. */
void sim_free(struct sim *sim);

struct loop *sim_loop(struct sim *sim, unsigned index);

/* The world of the loop that is running, or NULL outside of any. */
struct sim *sim_self(void);

/* co_start() on a loop of the world, from inside or outside of it. */
void sim_start(struct sim *sim, unsigned loop_index, struct co_start *start,
    void (*fn)(void *arg), void *arg);

/* Runs until nothing can happen any more; may be called again and again. */
enum sim_end sim_run(struct sim *sim);

/* The same, but what is due at time_ns or later is left for the next run. */
enum sim_end sim_run_until(struct sim *sim, uint64_t time_ns);

/* Makes the run in progress return after this step. */
void sim_stop(struct sim *sim);

/* Coroutines that have begun or wait to begin, on all loops. */
unsigned sim_alive(const struct sim *sim);

uint64_t sim_now_ns(const struct sim *sim);

/* The seed's next bits, and one of 0 to limit - 1. */
uint64_t sim_random(struct sim *sim);
uint64_t sim_below(struct sim *sim, uint64_t limit);

/*
 * One in how many monitor_enter() stand still, 0 for none; and how many powers
 * of two the times of operations are spread over, 0 to 30 (the least is one
 * microsecond).  Both are drawn from the seed unless they are set.
 */
void sim_set_preempt(struct sim *sim, unsigned one_in);
void sim_set_spread(struct sim *sim, unsigned powers);

void sim_set_steps_max(struct sim *sim, uint64_t steps);

/* ---- the event log ---- */

/* Of every decision and every finished operation so far; no addresses. */
uint64_t sim_hash(const struct sim *sim);

/* Adds something the test saw to the log; text is for the trace alone. */
void sim_note(struct sim *sim, const char *text, uint64_t value);

/* Prints the log from here on, one event a line; NULL ends it. */
void sim_set_trace(struct sim *sim, FILE *stream);

/* ---- sockets ---- */

/*
 * Stream sockets with bounded buffers; bytes arrive in pieces and late.  Their
 * descriptors are numbers no system call knows: use them with struct op, or
 * with sock_open(), on any loop of the world.
 */
void sim_socketpair(struct sim *sim, int fds[2]);

/*
 * What a test hears of a socket's bytes: of those that fd's side has sent, and
 * with arriving of those sent to it, at the moment they are in the other
 * side's buffer.  It may not suspend.
 */
struct sim_tap {
	void (*hear)(struct sim_tap *tap, bool arriving, const uint8_t *bytes,
	    size_t count);
};

/* Until fd is closed. */
void sim_set_tap(struct sim *sim, int fd, struct sim_tap *tap);

/* Lets nothing more arrive at fd, until it is called with false. */
void sim_hold_arrivals(struct sim *sim, int fd, bool held);

/*
 * A listener for OP_ACCEPT.  sim_connect() is the client's end at once, or
 * -ECONNREFUSED once the listener was shut down or closed.
 */
int sim_listen(struct sim *sim);
int sim_connect(struct sim *sim, int listener);

/* As shutdown(2) of both directions; loop_shutdown_fd() comes here. */
void sim_shutdown(struct sim *sim, int fd);

/* Ends this side's sending alone: the peer reads the end after the data. */
void sim_shutdown_send(struct sim *sim, int fd);

/* As close(2); no operation may be in progress on it.  loop_close_fd(). */
void sim_close(struct sim *sim, int fd);

#endif
