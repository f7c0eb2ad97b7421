/* SPDX-License-Identifier: MIT */
#include "server/stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "runtime/log.h"
#include "runtime/thread.h"

#define PIECE_BYTES (64u << 10)

/* Of both directions; not in struct stdio, which the thread may outlive. */
static atomic_uint pieces_moved;

static bool
is_socket(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISSOCK(st.st_mode);
}

/* Writes all of it; the reader may have gone. */
static bool
put_all(int fd, const char *data, size_t bytes)
{
	while (bytes > 0) {
		ssize_t put = write(fd, data, bytes);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return false;
		data += put;
		bytes -= (size_t)put;
	}
	return true;
}

/* Until one of the two ends. */
static void
pump(int from_fd, int to_fd)
{
	char data[PIECE_BYTES];
	ssize_t got;

	do {
		got = read(from_fd, data, sizeof(data));
		atomic_fetch_add(&pieces_moved, 1);
	} while (got > 0 ? put_all(to_fd, data, (size_t)got) :
	    got < 0 && errno == EINTR);
}

static void *
input_main(void *arg)
{
	int far_fd = ((const struct stdio *)arg)->far_fd;

	pump(STDIN_FILENO, far_fd);
	shutdown(far_fd, SHUT_WR);
	return NULL;
}

static void *
output_main(void *arg)
{
	int far_fd = ((const struct stdio *)arg)->far_fd;

	pump(far_fd, STDOUT_FILENO);
	/* If nobody reads any more the server need not go on. */
	shutdown(far_fd, SHUT_RDWR);
	close(STDOUT_FILENO);
	return NULL;
}

int
stdio_open(struct stdio *stdio, int *fdp)
{
	pthread_t input;
	int fds[2], err;

	if (is_socket(STDIN_FILENO)) {
		*fdp = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
		return *fdp < 0 ? -errno : 0;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return -errno;
	stdio->far_fd = fds[1];
	err = thread_start(&stdio->output, "stdout", output_main, stdio);
	if (err)
		goto close_pair;
	stdio->pumped = true;
	err = thread_start(&input, "stdin", input_main, stdio);
	if (err) {
		close(fds[0]);
		stdio_finish(stdio);
		return err;
	}
	/* It may be in the middle of a read when the process ends. */
	pthread_detach(input);
	*fdp = fds[0];
	return 0;
close_pair:
	close(fds[0]);
	close(fds[1]);
	return err;
}

/* A thread that writes to nobody cannot be ended, but left to the exit. */
static void
join_output(const struct stdio *stdio)
{
	struct timespec until;
	unsigned moved;

	do {
		moved = atomic_load(&pieces_moved);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += STDIO_PATIENCE_S;
		if (!pthread_clockjoin_np(stdio->output, NULL, CLOCK_MONOTONIC,
		    &until))
			return;
	} while (atomic_load(&pieces_moved) != moved);
	log_warning("nobody reads standard output, so what was to be sent "
	    "there is dropped");
}

void
stdio_finish(struct stdio *stdio)
{
	if (stdio->pumped)
		join_output(stdio);
	stdio->pumped = false;
}
