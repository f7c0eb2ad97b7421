/* SPDX-License-Identifier: MIT */
/*
 * One connection in its transmission phase, kept full with requests.
 *
 * The aim is to cost the machine as little as can be, so that a measurement
 * shows the server: requests that can go out together leave in one system
 * call, replies are parsed in bulk from one large buffer, payloads that
 * nobody verifies are never copied a second time, and the clock is read once
 * for each batch.  Times therefore are those of batches: from the system call
 * that sent a request to the return of the one that brought its reply's end.
 *
 * Functions return 0 or -errno after a message on standard error: -EBADMSG
 * if the server broke the protocol, -ECONNRESET if it hung up, -ETIMEDOUT if
 * it was silent for CLIENT_TIMEOUT_SECONDS.  Such a stream is of no more use.
 */
#ifndef BENCH_STREAM_H
#define BENCH_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "bench/client.h"
#include "bench/workload.h"

/* A request and its payload are two of the 1,024 parts of one sendmsg(). */
#define STREAM_DEPTH_MAX 512

struct stream;

/* What all streams of a run share; one thread, one use at a time. */
struct stream_shared {
	struct workload *workload;
	uint8_t *receive_buffer;
	size_t receive_bytes;
	const uint8_t *write_payload;	/* of every write not verified */
};

/* Takes over fd, which has been negotiated; -ENOMEM, -EINVAL. */
int stream_create(const struct stream_shared *shared, int fd,
	const struct client_export *export, unsigned depth,
	struct stream **streamp);
/* Says goodbye to the server if nothing is in flight, and closes. */
void stream_free(struct stream *stream);

/* Puts as many requests in flight as depth allows, as far as the socket
 * takes them; call it again when the socket is writable. */
int stream_send(struct stream *stream);

/* How to wait for the first byte. */
enum stream_wait {
	STREAM_WAIT_NOT,	/* take what is there, if anything */
	STREAM_WAIT_SPINNING,	/* no one has to wake us, at a CPU's cost */
};

/* Takes what has come. */
int stream_receive(struct stream *stream, enum stream_wait wait);

/* Whether a part of a batch still waits for the socket. */
bool stream_unsent(const struct stream *stream);
unsigned stream_in_flight(const struct stream *stream);
int stream_fd(const struct stream *stream);

/*
 * For loops that spin: set to zeros when something comes, ask each time that
 * nothing has.  Returns true after CLIENT_TIMEOUT_SECONDS of nothing.
 */
struct stream_patience {
	unsigned turns;
	uint64_t since_ns;
};
bool stream_patience_over(struct stream_patience *patience);

/* CLOCK_MONOTONIC, as used for times and for the plan's deadline. */
uint64_t stream_clock_ns(void);

#endif
