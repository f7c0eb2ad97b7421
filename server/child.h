/* SPDX-License-Identifier: MIT */
/*
 * The command of --run: a shell that knows where the exports are, and whose
 * end is the server's.
 */
#ifndef SERVER_CHILD_H
#define SERVER_CHILD_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>
#include "runtime/co.h"

struct export;
struct listener;

/* What a shell tells of a command that a signal ended: 128 and its number. */
#define CHILD_SIGNALLED 128

/* After SIGTERM it has this long, then it gets SIGKILL. */
#define CHILD_PATIENCE_MS 5000

/*
 * Runs command by /bin/sh, with the signal mask mask, and with these variables:
 * uri, exportname, unixsocket and port, of export on listener; those that do
 * not apply are empty.  -errno.
 */
int child_start(const char *command, const sigset_t *mask,
    const struct listener *listener, const struct export *export,
    pid_t *pidp);

/* Whether it has ended; *exit_codep is as a shell tells it. */
bool child_ended(pid_t pid, int *exit_codep);

/* Makes it end, and waits for that. */
co_fn void child_stop(pid_t pid);

#endif
