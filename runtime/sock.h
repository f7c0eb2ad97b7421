/* SPDX-License-Identifier: MIT */
/*
 * A connected stream socket, used by the coroutines of one loop.
 *
 * The helpers move everything they were asked to move or fail.  At most one
 * coroutine sends and one receives at a time.  Each direction has a deadline:
 * when it passes, the socket is shut down, and that direction's calls return
 * -ETIMEDOUT from then on.  After sock_shutdown() receives see the end of the
 * stream and sends fail; this is how one coroutine makes another stop.
 */
#ifndef RUNTIME_SOCK_H
#define RUNTIME_SOCK_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "runtime/loop.h"

/* A peer that vanished without a word is noticed after this time. */
#define SOCK_DEAD_PEER_S 120
#define SOCK_DEAD_PEER_S_MIN 10
#define SOCK_DEAD_PEER_S_MAX (24 * 60 * 60)

/* Directions, or-ed. */
#define SOCK_RECV	1u
#define SOCK_SEND	2u

struct sock_deadline {
	struct timer timer;
	struct sock *sock;
	bool passed;
};

struct sock {
	int fd;
	struct loop *loop;
	unsigned send_flags;	/* of its OP_SENDs; set by its owner */
	struct sock_deadline recv_deadline;
	struct sock_deadline send_deadline;
};

/* Who is at the other end. */
struct sock_peer {
	char name[80];		/* "tcp 1.2.3.4:567", "unix (uid 0, pid 1)",
				 * "vsock 3:567" */
	bool is_unix;
	bool is_loopback;	/* on this machine: loopback TCP, or unix */
	struct in6_addr address; /* for limits; IPv4 is mapped; unix: zeros */
	uid_t uid;		/* unix only, else -1; as it connected */
	pid_t pid;		/* unix only, else 0 */
};

/*
 * Takes over fd, an accepted or adopted stream socket, on the calling thread's
 * loop: sets it non-blocking and, for TCP, to send at once, to keep alive and
 * to give up on a dead peer.  Options that fail are left as they are.
 */
void sock_open(struct sock *sock, int fd);

/*
 * Sets another time, in seconds, within the limits above.  It is for TCP; a
 * peer on this machine does not vanish.
 */
void sock_set_dead_peer(const struct sock *sock, unsigned seconds);

/*
 * Bytes that TCP has brought here and that the peer has acknowledged, together,
 * or 0 where nobody counts them: does it move at all?
 */
uint64_t sock_progress_bytes(const struct sock *sock);

/* Stops the timers and closes the descriptor; no call may be in progress. */
void sock_close(struct sock *sock);

/* Ends both directions at once; may be called again, does not suspend. */
void sock_shutdown(struct sock *sock);

/* Fills peer; what cannot be found out reads "unknown". */
void sock_describe(const struct sock *sock, struct sock_peer *peer);

/* deadline_ns is on the clock of loop_now_ns(); 0 takes the deadline off. */
void sock_set_deadline(struct sock *sock, unsigned directions,
    uint64_t deadline_ns);

/*
 * Receives exactly length bytes.  -ENODATA: the peer ended the stream before
 * the first of them; -ECONNRESET: in the middle; -ETIMEDOUT; or the kernel's
 * error.
 */
co_fn int sock_recv_exact(struct sock *sock, void *data, size_t length);

/* Receives at most size bytes: how many, 0 at the end, or -errno. */
co_fn int64_t sock_recv_some(struct sock *sock, void *data, size_t size);

/*
 * The same into a buffer of the loop's own, which is taken only when bytes are
 * there: op->pooled holds them until loop_recv_put(op), which must be called
 * exactly if the result is above 0.  At most LOOP_RECV_BYTES.
 */
co_fn int64_t sock_recv_pooled(struct sock *sock, struct op *op);

/*
 * Sends all of the iovecs, at most IOV_MAX (1,024) of them; iov is clobbered.
 * 0, -EPIPE or -ECONNRESET if the peer is gone, -ETIMEDOUT, or -errno.
 */
co_fn int sock_send(struct sock *sock, struct iovec *iov, unsigned iov_count);

#endif
