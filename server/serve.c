/* SPDX-License-Identifier: MIT */
/*
 * qnbd serve: opens the images, listens, and stays until it is told to stop.
 *
 * One coroutine on loop 0 does it all in order, from serve_main(); what ends it
 * is told by another (serve_stop.h).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include "runtime/listener.h"
#include "runtime/log.h"
#include "runtime/notify.h"
#include "runtime/thread.h"
#include "runtime/worker.h"
#include "server/background.h"
#include "server/child.h"
#include "server/commands.h"
#include "server/serve_exports.h"
#include "server/serve_listen.h"
#include "server/serve_options.h"
#include "server/serve_stop.h"
#include "server/server.h"
#include "server/stdio.h"
#include "server/tls.h"

/* How long clients wait at most for the log of the beginning to be written. */
#define READY_LOG_MS 1000

struct serve {
	const struct serve_options *options;
	struct key_ring keys;	/* until the images are open */
	struct tls *tls;	/* or NULL */
	struct listener *listeners;
	struct server server;
	struct serve_stop stop;
	struct co_start start;
	char *private_directory;	/* of a socket, or NULL */
	const char *pid_file;	/* that was written, or NULL */
	struct stdio stdio;
	struct group guests;	/* the coroutine of --stdio */
	struct co_start stdio_start;
	int report;		/* to the parent, or -1 */
};

/* ---- the beginning ---- */

/* Everybody who waits for it learns that clients may come. */
static void
tell_ready(struct serve *serve)
{
	const struct serve_options *options = serve->options;
	ssize_t put;

	serve_announce(options, serve->listeners, &serve->server.exports);
	log_info("ready engine=%s loops=%u", loop_engine_name(),
	    serve->server.loops_count);
	/* Who waits for that may look into the log. */
	log_flush(READY_LOG_MS);
	notify_systemd("READY=1");
	if (options->ready_fd >= 0) {
		put = write((int)options->ready_fd, "\n", 1);
		if (put != 1)
			log_warning("nobody takes the word that it listens "
			    "fd=%lld", (long long)options->ready_fd);
		close((int)options->ready_fd);
	}
	if (serve->report >= 0)
		background_report(serve->report);
}

static co_fn void
stdio_run(void *arg)
{
	struct serve *serve = arg;
	int fd, err = stdio_open(&serve->stdio, &fd);

	if (err) {
		log_error("cannot use standard input and output error=%s",
		    strerror(-err));
		serve->stop.exit_code = 1;
	} else {
		server_serve_one(&serve->server, fd);
	}
	serve_stop_begin(&serve->stop);
	group_leave(&serve->guests);
}

static int
run_command(struct serve *serve, struct error *error)
{
	int err = child_start(serve->options->run,
	    &serve->stop.signals.saved_mask, serve->listeners,
	    serve->server.exports.list[0], &serve->stop.child);

	return err ? error_set(error, err, "cannot run the command: %s",
	    strerror(-err)) : 0;
}

static int
listen_somewhere(struct serve *serve, struct error *error)
{
	const struct serve_options *options = serve->options;

	if (options->stdio)
		return 0;
	if (options->run && !serve->listeners && !serve_listen_wanted(options))
		return serve_listen_private(&serve->listeners,
		    &serve->private_directory, error);
	return serve_listen(options, &serve->listeners, error);
}

/* Until then the file may be that of another server, which runs. */
static int
write_pid(struct serve *serve, struct error *error)
{
	const char *path = serve->options->pid_file;
	int err;

	if (!path)
		return 0;
	err = background_write_pid(path, error);
	if (!err)
		serve->pid_file = path;
	return err;
}

static co_fn int
begin_serving(struct serve *serve, struct error *error)
{
	const struct serve_options *options = serve->options;
	int err;

	err = serve_exports_open(options, &serve->keys, &serve->stop.wanted,
	    &serve->server, error);
	key_ring_free(&serve->keys);
	if (err || serve->stop.wanted)
		return err;
	err = listen_somewhere(serve, error);
	if (!err)
		err = write_pid(serve, error);
	if (err)
		return err;
	err = server_accept(&serve->server, serve->listeners);
	if (err)
		return error_set(error, err, "cannot serve: %s",
		    strerror(-err));
	tell_ready(serve);
	if (options->stdio) {
		group_enter(&serve->guests);
		co_start(&serve->stdio_start, stdio_run, serve);
	}
	return options->run ? run_command(serve, error) : 0;
}

/* ---- the end ---- */

/* Its end is waited for here, and not where signals are. */
static co_fn void
end_child(struct serve *serve)
{
	pid_t child = serve->stop.child;

	serve->stop.child = 0;
	if (child)
		child_stop(child);
}

/* Undoes whatever begin_serving() got done. */
static co_fn void
end_serving(struct serve *serve)
{
	notify_systemd("STOPPING=1");
	server_accept_end(&serve->server, serve->listeners);
	listener_close_all(&serve->listeners);
	server_drain(&serve->server);
	group_wait(&serve->guests);
	if (export_close_all(&serve->server.exports))
		serve->stop.exit_code = 1;
	if (serve->pid_file)
		unlink(serve->pid_file);
	if (serve->private_directory)
		rmdir(serve->private_directory);
	free(serve->private_directory);
	end_child(serve);
}

static co_fn void
serve_main(void *arg)
{
	struct serve *serve = arg;
	struct error error = {0};
	bool began;

	serve_stop_watch(&serve->stop);
	began = !begin_serving(serve, &error);
	if (began)
		serve_stop_wait(&serve->stop);
	else
		serve->stop.exit_code = error_print(&error);
	end_serving(serve);
	serve_stop_unwatch(&serve->stop);
	if (began)
		log_info("stopped");
	loop_stop(serve->server.loops[0].loop);
}

/* ---- the process ---- */

static void
raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int
fail(const char *what, int err)
{
	struct error error;

	error_set(&error, err, "%s: %s", what, strerror(-err));
	return error_print(&error);
}

/* Its end becomes a SIGTERM; false if it has ended already. */
static bool
follow_parent(void)
{
	pid_t parent = getppid();

	return !prctl(PR_SET_PDEATHSIG, SIGTERM) && getppid() == parent;
}

static unsigned
loops_wanted(const struct serve_options *options)
{
	unsigned cpus = thread_cpus();

	if (options->threads > 0)
		return (unsigned)options->threads;
	return cpus < SERVER_LOOPS_MAX ? cpus : SERVER_LOOPS_MAX;
}

/* From here on there are threads. */
static int
run_server(struct serve *serve)
{
	const struct serve_options *options = serve->options;
	const struct server_limits limits = {
		.connections_max = (unsigned)options->connections_max,
		.export_connections_max =
		    (unsigned)options->export_connections_max,
		.memory_bytes = (uint64_t)options->memory_bytes,
		.handshake_s = (unsigned)options->handshake_s,
		.send_s = (unsigned)options->send_s,
		.dead_peer_s = (unsigned)options->dead_peer_s,
	};
	int err;

	if (options->verbose)
		log_set_level(LOG_LEVEL_DEBUG);
	err = loop_engine_select((enum loop_engine)options->io);
	if (err < 0)
		return fail("io_uring cannot be used here (--io uring)", err);
	err = server_init(&serve->server, loops_wanted(options), &limits);
	if (err)
		return fail("cannot start the event loops", err);
	serve->server.tls = serve->tls;
	serve->server.tls_is_optional = options->tls_optional.count > 0;
	serve->server.allow = &options->allow;
	co_start(&serve->start, serve_main, serve);
	loop_run(serve->server.loops[0].loop);
	stdio_finish(&serve->stdio);
	if (serve->stop.reload.running) {
		/* All else has ended well; that thread cannot be ended. */
		log_flush(1000);
		_exit(serve->stop.exit_code);
	}
	server_destroy(&serve->server);
	worker_stop();
	log_flush(1000);
	return serve->stop.exit_code;
}

static int
open_tls(struct serve *serve)
{
	const struct serve_options *options = serve->options;
	const struct tls_options tls_options = {
		.directory = options->tls_directory,
		.psk_file = options->tls_psk_file,
		.verify_clients = !options->tls_no_verify,
	};
	struct error error = {0};

	if (!serve_has_tls(options) ||
	    !tls_open(&tls_options, &serve->tls, &error))
		return 0;
	return error_print(&error);
}

static int
run_process(struct serve *serve)
{
	const struct serve_options *options = serve->options;
	struct error error = {0};
	int err, exit_code;

	if (options->exit_with_parent && !follow_parent())
		return fail("the program that started it", -ESRCH);
	if (listener_adopt(&serve->listeners, &error) < 0)
		return error_print(&error);
	if (options->stdio && serve->listeners)
		return options_complain(&serve_command, "--stdio serves the "
		    "one client that is there already, but a socket was "
		    "handed over");
	if (options->background) {
		err = background_begin(&serve->report);
		if (err)
			return fail("cannot go to the background", err);
	}
	raise_descriptor_limit();
	/* Before signals wait for the loop: files may be slow to come. */
	exit_code = open_tls(serve);
	if (exit_code)
		return exit_code;
	serve->stop.tls = serve->tls;
	err = serve_stop_open(&serve->stop, options->background);
	if (err)
		return fail("cannot wait for signals", err);
	exit_code = run_server(serve);
	tls_close(serve->tls);
	serve_stop_close(&serve->stop);
	return exit_code;
}

static int
serve_run(const struct command *command, int argc, char **argv)
{
	struct serve_options options;
	struct serve serve = {.options = &options, .report = -1};
	int exit_code = serve_options_parse(command, argc, argv, &options);

	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	exit_code = key_ring_load(command, &options.source.keys, &serve.keys);
	if (!exit_code)
		exit_code = run_process(&serve);
	key_ring_free(&serve.keys);
	serve_options_free(&options);
	return exit_code;
}

const struct command serve_command = {
	.name = "serve",
	.arguments = "[OPTIONS] [NAME=]IMAGE...",
	.summary = "serve images from this terminal; Ctrl-C stops it cleanly",
	.options = serve_specs,
	.run = serve_run,
};
