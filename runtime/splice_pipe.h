/* SPDX-License-Identifier: MIT */
/*
 * A pipe on the way from the page cache to a socket.
 *
 * Reads of cached data are answered without copying them: pages of files, with
 * the headers that belong in front of them, are put into a pipe, and go on
 * from there to the socket.  Until the peer has taken them they are still the
 * file's pages; see file_splice() for what that means.
 *
 * A pipe has room for a number of pieces, each a page or a part of one.
 */
#ifndef RUNTIME_SPLICE_PIPE_H
#define RUNTIME_SPLICE_PIPE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "runtime/file.h"

/* What a pipe is made for; smaller where the system does not allow that. */
#define SPLICE_PIPE_BYTES (1u << 20)

/* Alive at once, a loop; who gets none copies. */
#define SPLICE_PIPES_MAX 64

struct splice_pipe {
	struct splice_pipe *next;	/* of those kept for reuse */
	int out_fd;
	int in_fd;
	unsigned pieces_max;
	unsigned pieces;	/* at most; 0 again once it is empty */
	uint64_t bytes;		/* in it */
};

/* A piece of a file. */
struct file_range {
	struct file *file;
	uint64_t offset;
	size_t length;
};

/* NULL if the calling loop has its share, or the system gives none. */
struct splice_pipe *splice_pipe_get(void);

/* On the thread that got it; what is still in it is lost.  NULL is fine. */
void splice_pipe_put(struct splice_pipe *pipe);

/* Closes the empty pipes that the calling thread keeps; whether it has any. */
void splice_pipe_drain(void);
bool splice_pipe_kept(void);

/* How many pieces the range takes. */
static inline unsigned
splice_pipe_pieces(uint64_t offset, size_t length)
{
	return (unsigned)(((offset & 4095) + length + 4095) / 4096);
}

/*
 * Puts bytes into the pipe, as one piece.  The sum of iov is at most 4,096.
 * -EAGAIN: there is no room, nothing was put.
 */
int splice_pipe_write(struct splice_pipe *pipe, const struct iovec *iov,
    unsigned iov_count);

/*
 * Puts the ranges into the pipe.  The caller has seen to it that there is
 * room, and that file_is_cached() of each.  -EIO: it is spoilt, with a part of
 * them in it.
 */
int splice_pipe_fill(struct splice_pipe *pipe, const struct file_range *ranges,
    unsigned count);

/*
 * Moves up to length bytes out of the pipe into a non-blocking socket: how
 * many; -EAGAIN where it takes none now; -errno.
 */
int64_t splice_pipe_send(struct splice_pipe *pipe, int socket_fd,
    uint64_t length);

#endif
