/* SPDX-License-Identifier: MIT */
#include "server/serve_stop.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>
#include "runtime/log.h"
#include "server/child.h"

void
serve_stop_begin(struct serve_stop *stop)
{
	if (stop->wanted)
		return;
	stop->wanted = true;
	if (stop->waiter)
		co_wake(stop->waiter);
}

void
serve_stop_wait(struct serve_stop *stop)
{
	if (stop->wanted)
		return;
	stop->waiter = co_self();
	co_suspend();
	stop->waiter = NULL;
}

/* ---- signals ---- */

static bool
stops(const struct serve_stop *stop, int signal)
{
	return signal == SIGTERM || signal == SIGINT ||
	    (signal == SIGHUP && stop->hangup_stops && !stop->tls);
}

/* The command of --run may be what ended: then that is all. */
static void
look_after_child(struct serve_stop *stop)
{
	int exit_code;

	if (!stop->child || !child_ended(stop->child, &exit_code))
		return;
	stop->child = 0;
	stop->exit_code = exit_code;
	log_info("the command has ended status=%d", exit_code);
	serve_stop_begin(stop);
}

static co_fn void
signals_run(void *arg)
{
	struct serve_stop *stop = arg;
	int number;

	while ((number = signals_wait(&stop->signals)) >= 0) {
		if (number == SIGHUP && stop->tls)
			reload_start(&stop->reload, stop->tls);
		if (number == SIGCHLD)
			look_after_child(stop);
		if (!stops(stop, number))
			continue;
		if (stop->signals_count++ > 0) {
			log_warning("told to stop twice, so stopping at once");
			log_flush(100);
			_exit(1);
		}
		log_info("stopping signal=%s", sigabbrev_np(number));
		serve_stop_begin(stop);
	}
	group_leave(&stop->running);
}

void
serve_stop_watch(struct serve_stop *stop)
{
	group_enter(&stop->running);
	co_start(&stop->start, signals_run, stop);
}

void
serve_stop_unwatch(struct serve_stop *stop)
{
	signals_stop(&stop->signals);
	group_wait(&stop->running);
	reload_end(&stop->reload);
}

/* ---- the beginning and the end ---- */

static bool
hangup_is_ignored(void)
{
	struct sigaction action;

	return !sigaction(SIGHUP, NULL, &action) &&
	    action.sa_handler == SIG_IGN;
}

int
serve_stop_open(struct serve_stop *stop, bool background)
{
	stop->hangup_stops = !background && !hangup_is_ignored();
	return signals_open(&stop->signals);
}

void
serve_stop_close(struct serve_stop *stop)
{
	signals_close(&stop->signals);
}
