/* SPDX-License-Identifier: MIT */
#include "server/stop.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t wanted;

static void
note(int number)
{
	(void)number;
	wanted = 1;
}

void
stop_begin(void)
{
	struct sigaction action = {
		.sa_handler = note, .sa_flags = (int)SA_RESETHAND,
	};
	struct sigaction hangup;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	/* Under nohup it stays ignored. */
	if (!sigaction(SIGHUP, NULL, &hangup) &&
	    hangup.sa_handler != SIG_IGN)
		sigaction(SIGHUP, &action, NULL);
}

bool
stop_is_wanted(void)
{
	return wanted;
}
