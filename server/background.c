/* SPDX-License-Identifier: MIT */
#include "server/background.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void
wait_for_child(pid_t child, int report)
{
	char byte;
	ssize_t got;
	int status;

	do
		got = read(report, &byte, 1);
	while (got < 0 && errno == EINTR);
	if (got == 1)
		_exit(0);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			_exit(1);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

int
background_begin(int *reportp)
{
	int ends[2];
	pid_t child;
	int err;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	fflush(NULL);
	child = fork();
	if (child < 0) {
		err = -errno;
		close(ends[0]);
		close(ends[1]);
		return err;
	}
	if (child > 0) {
		close(ends[1]);
		wait_for_child(child, ends[0]);
	}
	close(ends[0]);
	setsid();
	*reportp = ends[1];
	return 0;
}

void
background_report(int report)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	ssize_t put;

	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		if (isatty(STDERR_FILENO))
			dup2(null, STDERR_FILENO);
		close(null);
	}
	/* A parent that was killed needs no report. */
	put = write(report, "", 1);
	(void)put;
	close(report);
}

int
background_write_pid(const char *path, struct error *error)
{
	FILE *file = fopen(path, "we");
	int err = 0;

	if (!file)
		return error_set(error, -errno,
		    "cannot write the process id to %s: %s", path,
		    strerror(errno));
	if (fprintf(file, "%ld\n", (long)getpid()) < 0)
		err = -errno;
	if (fclose(file) && !err)
		err = -errno;
	if (err)
		return error_set(error, err,
		    "cannot write the process id to %s: %s", path,
		    strerror(-err));
	return 0;
}
