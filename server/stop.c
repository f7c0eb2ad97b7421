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

/* One that was ignored from the start, as under nohup, stays so. */
static void
catch(int number)
{
	struct sigaction action = {
		.sa_handler = note, .sa_flags = (int)SA_RESETHAND,
	};
	struct sigaction old;

	if (!sigaction(number, NULL, &old) && old.sa_handler != SIG_IGN)
		sigaction(number, &action, NULL);
}

void
stop_begin(void)
{
	catch(SIGINT);
	catch(SIGTERM);
	catch(SIGHUP);
}

bool
stop_is_wanted(void)
{
	return wanted;
}
