/* SPDX-License-Identifier: MIT */
/*
 * qnbd serve: opens the images, listens, and stays until it is told to stop.
 *
 * One coroutine on loop 0 does it all in order; another waits for signals.
 * The first SIGTERM, SIGINT or (in the foreground) SIGHUP stops the server in
 * good order, a second one ends the process where it stands, which leaves the
 * images as a power loss would: consistent.  The end of the only client
 * (--stdio), of the command (--run) and of the parent (--exit-with-parent) are
 * like the first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include "qcow2/check.h"
#include "qcow2/image.h"
#include "runtime/listener.h"
#include "runtime/log.h"
#include "runtime/notify.h"
#include "runtime/signals.h"
#include "runtime/thread.h"
#include "runtime/worker.h"
#include "server/background.h"
#include "server/child.h"
#include "server/commands.h"
#include "server/serve.h"
#include "server/progress.h"
#include "server/reload.h"
#include "server/server.h"
#include "server/size.h"
#include "server/stdio.h"
#include "server/tls.h"

/* How long clients wait at most for the log of the beginning to be written. */
#define READY_LOG_MS 1000

/* ---- serving ---- */

struct serve {
	const struct serve_options *options;
	struct key_ring keys;	/* until the images are open */
	struct tls *tls;	/* or NULL */
	struct reload reload;	/* of it */
	struct listener *listeners;
	struct server server;
	struct signals signals;
	struct group signal_group;
	struct co_start start;
	struct co_start signals_start;
	char *private_directory;	/* of a socket, or NULL */
	struct stdio stdio;
	struct group guests;	/* the coroutine of --stdio */
	struct co_start stdio_start;
	pid_t child;		/* the command of --run, or 0 */
	bool hangup_ignored;
	bool stopping;
	unsigned stop_signals;
	struct co *stop_waiter;
	struct progress progress;	/* of a repair */
	int report;		/* to the parent, or -1 */
	int exit_code;
};

/* With TLS a hangup means to look at the certificates again. */
static bool
is_stop_signal(const struct serve *serve, int signal)
{
	if (signal == SIGHUP)
		return !serve->tls && !serve->hangup_ignored &&
		    !serve->options->background;
	return signal == SIGTERM || signal == SIGINT;
}

static void
begin_to_stop(struct serve *serve)
{
	if (serve->stopping)
		return;
	serve->stopping = true;
	if (serve->stop_waiter)
		co_wake(serve->stop_waiter);
}

/* The command of --run may be what ended: then that is all. */
static void
look_after_child(struct serve *serve)
{
	int exit_code;

	if (!serve->child || !child_ended(serve->child, &exit_code))
		return;
	serve->child = 0;
	serve->exit_code = exit_code;
	log_info("the command has ended status=%d", exit_code);
	begin_to_stop(serve);
}

static co_fn void
signals_run(void *arg)
{
	struct serve *serve = arg;
	int number;

	while ((number = signals_wait(&serve->signals)) >= 0) {
		if (number == SIGHUP && serve->tls)
			reload_start(&serve->reload, serve->tls);
		if (number == SIGCHLD)
			look_after_child(serve);
		if (!is_stop_signal(serve, number))
			continue;
		if (serve->stop_signals++ > 0) {
			log_warning("told to stop twice, so stopping at once");
			log_flush(100);
			_exit(1);
		}
		log_info("stopping signal=%s", sigabbrev_np(number));
		begin_to_stop(serve);
	}
	group_leave(&serve->signal_group);
}

static co_fn void
wait_for_stop(struct serve *serve)
{
	if (serve->stopping)
		return;
	serve->stop_waiter = co_self();
	co_suspend();
	serve->stop_waiter = NULL;
}

static void
log_export(const struct export *export)
{
	const struct image *image = export->image;
	char size[SIZE_TEXT_BYTES];
	char name[128];

	log_info("serving export=\"%s\" image=%s size=\"%s\"%s",
	    log_quote(name, sizeof(name), export->name,
	    (int)strlen(export->name)), image_path(image),
	    size_print(size, image_size_bytes(image)),
	    image_writable(image) ? "" : " read-only=yes");
	while ((image = image_backing(image)))
		log_info("opened as backing file image=%s export=\"%s\"",
		    image_path(image), name);
}

/* ---- while a dirty image is repaired ---- */

static void
repair_progress(void *arg, uint64_t done, uint64_t total)
{
	struct serve *serve = arg;

	progress_set(&serve->progress, done, total);
}

static bool
repair_stop(void *arg)
{
	const struct serve *serve = arg;

	return serve->stopping;
}

static co_fn int
open_export(struct serve *serve, unsigned index, struct error *error)
{
	const struct serve_options *options = serve->options;
	const struct check_listener repair_listener = {
		.progress = repair_progress, .stop = repair_stop,
		.arg = serve,
	};
	struct image_options image_options = source_image_options(
	    &options->source, &serve->keys, serve->server.loops_count);
	struct export *export;
	struct image *image;
	int err;

	image_options.writable = !options->read_only;
	image_options.refuse_bitmaps = options->refuse_bitmaps;
	image_options.discard = (enum image_discard)options->discard;
	image_options.detect_zeroes =
	    (enum image_detect_zeroes)options->detect_zeroes;
	image_options.metadata_cache_bytes =
	    (uint64_t)options->metadata_cache_bytes;
	image_options.repair_listener = &repair_listener;
	progress_begin(&serve->progress, "repairing", 0);
	err = image_open(options->images[index], &image_options, &image,
	    error);
	progress_clear(&serve->progress);
	if (err)
		return err;
	err = export_add(&serve->server.exports, options->names[index],
	    options->description, image);
	if (err) {
		image_close(image);
		return error_set(error, err, "cannot serve %s: %s",
		    options->images[index], strerror(-err));
	}
	export = serve->server.exports.list[index];
	export->needs_tls = serve_has_tls(options) &&
	    !serve_allows_plain(options, export->name);
	log_export(export);
	return 0;
}

static co_fn int
open_exports(struct serve *serve, struct error *error)
{
	for (unsigned i = 0; i < serve->options->images_count; i++) {
		int err = open_export(serve, i, error);

		if (err)
			return err;
	}
	if (serve->options->allow_resize)
		export_allow_resize(&serve->server.exports);
	return 0;
}

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

/* ---- --stdio and --run ---- */

static co_fn void
stdio_run(void *arg)
{
	struct serve *serve = arg;
	int fd, err = stdio_open(&serve->stdio, &fd);

	if (err) {
		log_error("cannot use standard input and output error=%s",
		    strerror(-err));
		serve->exit_code = 1;
	} else {
		server_serve_one(&serve->server, fd);
	}
	begin_to_stop(serve);
	group_leave(&serve->guests);
}

static int
run_command(struct serve *serve, struct error *error)
{
	int err = child_start(serve->options->run, &serve->signals.saved_mask,
	    serve->listeners, serve->server.exports.list[0], &serve->child);

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

static co_fn int
begin_serving(struct serve *serve, struct error *error)
{
	const struct serve_options *options = serve->options;
	int err;

	err = open_exports(serve, error);
	key_ring_free(&serve->keys);
	if (err || serve->stopping)
		return err;
	err = listen_somewhere(serve, error);
	if (!err && options->pid_file)
		err = background_write_pid(options->pid_file, error);
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

/* Its end is waited for here, and not where signals are. */
static co_fn void
end_child(struct serve *serve)
{
	pid_t child = serve->child;

	serve->child = 0;
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
		serve->exit_code = 1;
	if (serve->options->pid_file)
		unlink(serve->options->pid_file);
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

	group_enter(&serve->signal_group);
	co_start(&serve->signals_start, signals_run, serve);
	began = !begin_serving(serve, &error);
	if (began)
		wait_for_stop(serve);
	else
		serve->exit_code = error_print(&error);
	end_serving(serve);
	signals_stop(&serve->signals);
	group_wait(&serve->signal_group);
	reload_end(&serve->reload);
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

static bool
hangup_is_ignored(void)
{
	struct sigaction action;

	return !sigaction(SIGHUP, NULL, &action) &&
	    action.sa_handler == SIG_IGN;
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
	if (serve->reload.running) {
		/* All else has ended well; that thread cannot be ended. */
		log_flush(1000);
		_exit(serve->exit_code);
	}
	server_destroy(&serve->server);
	worker_stop();
	log_flush(1000);
	return serve->exit_code;
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
	serve->hangup_ignored = hangup_is_ignored();
	/* Before signals wait for the loop: files may be slow to come. */
	exit_code = open_tls(serve);
	if (exit_code)
		return exit_code;
	err = signals_open(&serve->signals);
	if (err)
		return fail("cannot wait for signals", err);
	exit_code = run_server(serve);
	tls_close(serve->tls);
	signals_close(&serve->signals);
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
