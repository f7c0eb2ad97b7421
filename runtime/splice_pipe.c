/* SPDX-License-Identifier: MIT */
/*
 * Cost: a pipe is made once and kept; one system call for each run of a file
 * and each header, one for what goes to the socket (of which the kernel makes
 * a send for every 16 pages).
 */
#include "runtime/splice_pipe.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static _Thread_local struct splice_pipe *kept;
static _Thread_local unsigned alive;

static struct splice_pipe *
make(void)
{
	struct splice_pipe *pipe = calloc(1, sizeof(*pipe));
	int fds[2];
	int bytes;

	if (!pipe)
		return NULL;
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK)) {
		free(pipe);
		return NULL;
	}
	pipe->out_fd = fds[0];
	pipe->in_fd = fds[1];
	bytes = fcntl(pipe->in_fd, F_SETPIPE_SZ, SPLICE_PIPE_BYTES);
	if (bytes < 0)
		bytes = fcntl(pipe->in_fd, F_GETPIPE_SZ);
	pipe->pieces_max = bytes > 0 ? (unsigned)bytes / 4096 : 0;
	return pipe;
}

static void
destroy(struct splice_pipe *pipe)
{
	close(pipe->in_fd);
	close(pipe->out_fd);
	free(pipe);
	alive--;
}

struct splice_pipe *
splice_pipe_get(void)
{
	struct splice_pipe *pipe = kept;

	if (pipe) {
		kept = pipe->next;
		return pipe;
	}
	if (alive >= SPLICE_PIPES_MAX)
		return NULL;
	pipe = make();
	if (pipe)
		alive++;
	return pipe;
}

void
splice_pipe_put(struct splice_pipe *pipe)
{
	if (!pipe)
		return;
	if (pipe->bytes > 0) {
		destroy(pipe);
		return;
	}
	pipe->next = kept;
	kept = pipe;
}

bool
splice_pipe_kept(void)
{
	return kept != NULL;
}

void
splice_pipe_drain(void)
{
	while (kept) {
		struct splice_pipe *pipe = kept;

		kept = pipe->next;
		destroy(pipe);
	}
}

int
splice_pipe_write(struct splice_pipe *pipe, const struct iovec *iov,
    unsigned iov_count)
{
	ssize_t put;

	if (pipe->pieces == pipe->pieces_max)
		return -EAGAIN;
	/* Up to PIPE_BUF bytes are put whole or not at all. */
	put = writev(pipe->in_fd, iov, (int)iov_count);
	if (put < 0)
		return -errno;
	pipe->pieces++;
	pipe->bytes += (uint64_t)put;
	return 0;
}

static int
fill_range(struct splice_pipe *pipe, struct file_range range)
{
	while (range.length > 0) {
		int64_t moved = file_splice(range.file, pipe->in_fd,
		    range.offset, range.length);

		if (moved <= 0)
			return -EIO;
		pipe->bytes += (uint64_t)moved;
		range.offset += (uint64_t)moved;
		range.length -= (size_t)moved;
	}
	return 0;
}

int
splice_pipe_fill(struct splice_pipe *pipe, const struct file_range *ranges,
    unsigned count)
{
	int err = 0;

	for (unsigned i = 0; i < count && !err; i++) {
		pipe->pieces += splice_pipe_pieces(ranges[i].offset,
		    ranges[i].length);
		assert(pipe->pieces <= pipe->pieces_max);
		err = fill_range(pipe, ranges[i]);
	}
	return err;
}

int64_t
splice_pipe_send(struct splice_pipe *pipe, int socket_fd, uint64_t length)
{
	ssize_t moved;

	assert(length <= pipe->bytes);
	do
		moved = splice(pipe->out_fd, NULL, socket_fd, NULL, length,
		    SPLICE_F_NONBLOCK);
	while (moved < 0 && errno == EINTR);
	if (moved < 0)
		return -errno;
	if (moved == 0)
		return -EPIPE;
	pipe->bytes -= (uint64_t)moved;
	if (pipe->bytes == 0)
		pipe->pieces = 0;
	return moved;
}
