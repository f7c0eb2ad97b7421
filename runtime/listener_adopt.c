/* SPDX-License-Identifier: MIT */
/*
 * Socket activation, as sd_listen_fds(3) documents it: LISTEN_FDS descriptors
 * from 3 on are meant for the process LISTEN_PID; LISTEN_FDNAMES names them,
 * separated by colons.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "runtime/listener_internal.h"

#define FIRST_FD 3

static bool
parse_number(const char *text, unsigned long max, unsigned long *numberp)
{
	unsigned long number;
	char *end;

	if (!text || text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	number = strtoul(text, &end, 10);
	if (errno || *end || number > max)
		return false;
	*numberp = number;
	return true;
}

static bool
is_listening_stream(int fd)
{
	int type, listening;
	socklen_t type_length = sizeof(type);
	socklen_t listening_length = sizeof(listening);

	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_length) &&
	    !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening,
	    &listening_length) && type == SOCK_STREAM && listening;
}

/* Moves *names past the name it begins with, which goes into target. */
static void
take_name(const char **names, char *target, size_t size)
{
	size_t length = strcspn(*names, ":");

	if (length < size) {
		memcpy(target, *names, length);
		target[length] = '\0';
	}
	*names += length;
	if (**names == ':')
		(*names)++;
}

static int
adopt(struct listener **added, int fd, const char **names)
{
	struct listener *listener;
	int flags;

	if (!is_listening_stream(fd))
		return -EINVAL;
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC))
		return -errno;
	listener = listener_append(added, fd);
	if (!listener)
		return -ENOMEM;
	listener->is_adopted = true;
	take_name(names, listener->fd_name, sizeof(listener->fd_name));
	return listener_describe(listener);
}

static int
adopt_all(struct listener **list, unsigned long count, const char *names,
    struct error *error)
{
	struct listener *added = NULL;
	int fd, err;

	for (fd = FIRST_FD; fd < FIRST_FD + (int)count; fd++) {
		err = adopt(&added, fd, &names);
		if (err)
			goto close_all;
	}
	while (*list)
		list = &(*list)->next;
	*list = added;
	return (int)count;
close_all:
	listener_close_all(&added);
	return error_set(error, err, "descriptor %d, passed by LISTEN_FDS, "
	    "is not a listening stream socket", fd);
}

int
listener_adopt(struct listener **list, struct error *error)
{
	const char *fds = getenv("LISTEN_FDS");
	const char *names = getenv("LISTEN_FDNAMES");
	unsigned long pid, count;
	int result = 0;

	if (!parse_number(getenv("LISTEN_PID"), INT32_MAX, &pid) ||
	    pid != (unsigned long)getpid())
		goto clear;
	if (parse_number(fds, LISTENER_ADOPTED_MAX, &count))
		result = adopt_all(list, count, names ? names : "", error);
	else
		result = error_set(error, -EINVAL,
		    "LISTEN_FDS is not a number from 0 to %d",
		    LISTENER_ADOPTED_MAX);
clear:
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return result;
}
