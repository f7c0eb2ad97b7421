/* SPDX-License-Identifier: MIT */
#include "server/child.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "runtime/listener.h"
#include "runtime/loop.h"
#include "server/export.h"
#include "server/uri.h"

#define LOOK_NS (UINT64_C(10) * 1000 * 1000)

/* ---- its environment ---- */

/* The variables that are ours; the caller frees them with the list. */
#define VARIABLES 4

static char *
uri_variable(const struct listener *listener, const struct export *export)
{
	char *text = NULL;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	if (!out)
		return NULL;
	fputs("uri=", out);
	uri_print(out, listener, export);
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}

static char *
variable(const char *name, const char *value)
{
	char *text;

	return asprintf(&text, "%s=%s", name, value) < 0 ? NULL : text;
}

static bool
make_variables(char *ours[VARIABLES], const struct listener *listener,
    const struct export *export)
{
	char port[16] = "";

	if (listener->is_vsock)
		snprintf(port, sizeof(port), "%u", listener->vsock_port);
	else if (!listener->is_unix)
		snprintf(port, sizeof(port), "%u", listener->port);
	ours[0] = uri_variable(listener, export);
	ours[1] = variable("exportname", export->name);
	ours[2] = variable("unixsocket", listener->path ? listener->path : "");
	ours[3] = variable("port", port);
	for (unsigned i = 0; i < VARIABLES; i++)
		if (!ours[i])
			return false;
	return true;
}

/* Ours come first: where a name is there twice, shells take that. */
static char **
join_environment(char *const ours[VARIABLES])
{
	size_t theirs = 0;
	char **all;

	while (environ[theirs])
		theirs++;
	all = calloc(VARIABLES + theirs + 1, sizeof(*all));
	for (size_t i = 0; all && i < VARIABLES; i++)
		all[i] = ours[i];
	for (size_t i = 0; all && i < theirs; i++)
		all[VARIABLES + i] = environ[i];
	return all;
}

/* ---- its life ---- */

static int
spawn(const char *command, const sigset_t *mask, char **variables, pid_t *pidp)
{
	char *const arguments[] = {
		(char *)"sh", (char *)"-c", (char *)command, NULL,
	};
	posix_spawnattr_t attributes;
	sigset_t defaults;
	int err;

	/* The server ignores these. */
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	sigaddset(&defaults, SIGXFSZ);
	err = -posix_spawnattr_init(&attributes);
	if (err)
		return err;
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	posix_spawnattr_setsigmask(&attributes, mask);
	posix_spawnattr_setflags(&attributes,
	    POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	err = -posix_spawn(pidp, "/bin/sh", NULL, &attributes, arguments,
	    variables);
	posix_spawnattr_destroy(&attributes);
	return err;
}

int
child_start(const char *command, const sigset_t *mask,
    const struct listener *listener, const struct export *export,
    pid_t *pidp)
{
	char *ours[VARIABLES] = {NULL};
	char **all = NULL;
	int err = -ENOMEM;

	if (make_variables(ours, listener, export))
		all = join_environment(ours);
	if (all)
		err = spawn(command, mask, all, pidp);
	for (unsigned i = 0; i < VARIABLES; i++)
		free(ours[i]);
	free(all);
	return err;
}

bool
child_ended(pid_t pid, int *exit_codep)
{
	int status;

	if (waitpid(pid, &status, WNOHANG) != pid)
		return false;
	*exit_codep = WIFEXITED(status) ? WEXITSTATUS(status) :
	    CHILD_SIGNALLED + WTERMSIG(status);
	return true;
}

void
child_stop(pid_t pid)
{
	uint64_t until_ns = loop_now_ns(loop_self()) +
	    CHILD_PATIENCE_MS * UINT64_C(1000000);
	int exit_code;

	kill(pid, SIGTERM);
	while (!child_ended(pid, &exit_code)) {
		if (loop_now_ns(loop_self()) >= until_ns)
			kill(pid, SIGKILL);
		loop_sleep(LOOK_NS);
	}
}
