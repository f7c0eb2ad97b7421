/* SPDX-License-Identifier: MIT */
#include "runtime/signals.h"

#include <errno.h>
#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

int
signals_open(struct signals *signals)
{
	sigset_t set, saved;
	int fd, err;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	err = pthread_sigmask(SIG_BLOCK, &set, &saved);
	if (err)
		return -err;
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0) {
		err = -errno;
		goto unblock;
	}
	signal(SIGPIPE, SIG_IGN);
	/* Who started this may ignore it: then no child could be awaited. */
	signal(SIGCHLD, SIG_DFL);
	*signals = (struct signals){ .fd = fd, .saved_mask = saved };
	return 0;
unblock:
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	return err;
}

co_fn int
signals_wait(struct signals *signals)
{
	struct signalfd_siginfo info;
	ssize_t length;
	int err;

	while (!signals->stopped) {
		length = read(signals->fd, &info, sizeof(info));
		if (length == (ssize_t)sizeof(info))
			return (int)info.ssi_signo;
		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0 && errno != EAGAIN)
			return -errno;
		signals->poll = (struct op){
			.kind = OP_POLL_IN,
			.fd = signals->fd,
		};
		signals->waiting = true;
		err = (int)loop_wait(&signals->poll);
		signals->waiting = false;
		if (err < 0 && err != -ECANCELED)
			return err;
	}
	return -ECANCELED;
}

void
signals_stop(struct signals *signals)
{
	signals->stopped = true;
	if (signals->waiting)
		loop_cancel(&signals->poll);
}

void
signals_close(struct signals *signals)
{
	close(signals->fd);
	pthread_sigmask(SIG_SETMASK, &signals->saved_mask, NULL);
}
