/* SPDX-License-Identifier: MIT */
#include "server/stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "runtime/thread.h"

#define PIECE_BYTES (64u << 10)

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
	} while (got > 0 ? put_all(to_fd, data, (size_t)got) :
	    got < 0 && errno == EINTR);
}

static void *
input_main(void *arg)
{
	const struct stdio *stdio = arg;

	pump(STDIN_FILENO, stdio->far_fd);
	shutdown(stdio->far_fd, SHUT_WR);
	return NULL;
}

static void *
output_main(void *arg)
{
	const struct stdio *stdio = arg;

	pump(stdio->far_fd, STDOUT_FILENO);
	/* If nobody reads any more the server need not go on. */
	shutdown(stdio->far_fd, SHUT_RDWR);
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

void
stdio_finish(struct stdio *stdio)
{
	if (stdio->pumped)
		pthread_join(stdio->output, NULL);
	stdio->pumped = false;
}
