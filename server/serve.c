/* SPDX-License-Identifier: MIT */
/*
 * qnbd serve: opens the images, listens, and stays until it is told to stop.
 *
 * One coroutine on loop 0 does it all in order; another waits for signals.
 * The first SIGTERM, SIGINT or (in the foreground) SIGHUP stops the server in
 * good order, a second one ends the process where it stands, which leaves the
 * images as a power loss would: consistent.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
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
#include "server/commands.h"
#include "server/serve.h"
#include "server/progress.h"
#include "server/server.h"
#include "server/size.h"
#include "server/tls.h"

/* ---- serving ---- */

struct serve {
	const struct serve_options *options;
	struct key_ring keys;	/* until the images are open */
	struct tls *tls;	/* or NULL */
	struct listener *listeners;
	struct server server;
	struct signals signals;
	struct group signal_group;
	struct co_start start;
	struct co_start signals_start;
	bool hangup_ignored;
	bool stopping;
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

struct reload {
	struct tls *tls;
	struct error error;
	int err;
};

static void
reload(void *arg)
{
	struct reload *job = arg;

	job->err = tls_reload(job->tls, &job->error);
}

/* It reads files, which may take long: on a worker. */
static co_fn void
reload_tls(struct serve *serve)
{
	struct reload *job = calloc(1, sizeof(*job));

	if (!job) {
		log_error("out of memory, so the TLS files stay as they were");
		return;
	}
	job->tls = serve->tls;
	worker_run(reload, job);
	if (job->err)
		log_error("the new TLS files are not used, new clients meet "
		    "the old ones: %s", job->error.message);
	else
		log_info("TLS files read again; new clients meet the new ones");
	free(job);
}

static co_fn void
signals_run(void *arg)
{
	struct serve *serve = arg;
	int number;

	while ((number = signals_wait(&serve->signals)) >= 0) {
		if (number == SIGHUP && serve->tls)
			reload_tls(serve);
		if (!is_stop_signal(serve, number))
			continue;
		if (serve->stopping) {
			log_warning("told to stop twice, so stopping at once");
			log_flush(100);
			_exit(1);
		}
		serve->stopping = true;
		log_info("stopping signal=%s", sigabbrev_np(number));
		if (serve->stop_waiter)
			co_wake(serve->stop_waiter);
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
	    size_print(size, export->size_bytes),
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
	const struct image_options image_options = {
		.format = (enum image_format)options->format,
		.writable = !options->read_only,
		.force_share = options->force_share,
		.snapshot = options->snapshot,
		.refuse_bitmaps = options->refuse_bitmaps,
		.backing_format_told = options->backing_format >= 0,
		.backing_format = options->backing_format >= 0 ?
		    (enum image_format)options->backing_format : IMAGE_QCOW2,
		.discard = (enum image_discard)options->discard,
		.detect_zeroes =
		    (enum image_detect_zeroes)options->detect_zeroes,
		.backing_dirs = options->backing_dirs.list,
		.backing_dirs_count = options->backing_dirs.count,
		.keys = serve->keys.list,
		.keys_count = serve->keys.count,
		.metadata_cache_bytes =
		    (uint64_t)options->metadata_cache_bytes,
		.loops = serve->server.loops_count,
		.repair_listener = &repair_listener,
	};
	struct export *export;
	struct image *image;
	int err;

	progress_begin(&serve->progress, "repairing");
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
	export->plain_allowed = serve_allows_plain(options, export->name);
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

static co_fn int
begin_serving(struct serve *serve, struct error *error)
{
	const struct serve_options *options = serve->options;
	int err;

	err = open_exports(serve, error);
	key_ring_free(&serve->keys);
	if (err || serve->stopping)
		return err;
	err = serve_listen(options, &serve->listeners, error);
	if (err)
		return err;
	if (options->pid_file) {
		err = background_write_pid(options->pid_file, error);
		if (err)
			return err;
	}
	err = server_accept(&serve->server, serve->listeners);
	if (err)
		return error_set(error, err, "cannot serve: %s",
		    strerror(-err));
	tell_ready(serve);
	return 0;
}

/* Undoes whatever begin_serving() got done. */
static co_fn void
end_serving(struct serve *serve)
{
	notify_systemd("STOPPING=1");
	server_accept_end(&serve->server, serve->listeners);
	listener_close_all(&serve->listeners);
	server_drain(&serve->server);
	if (export_close_all(&serve->server.exports))
		serve->exit_code = 1;
	if (serve->options->pid_file)
		unlink(serve->options->pid_file);
}

static co_fn void
serve_main(void *arg)
{
	struct serve *serve = arg;
	struct error error = {0};
	bool began;

	group_enter(&serve->signal_group);
	co_start(&serve->signals_start, signals_run, serve);
	if (begin_serving(serve, &error))
		serve->exit_code = error_print(&error);
	else
		wait_for_stop(serve);
	began = serve->exit_code == 0;
	end_serving(serve);
	signals_stop(&serve->signals);
	group_wait(&serve->signal_group);
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
	int err;

	if (options->verbose)
		log_set_level(LOG_LEVEL_DEBUG);
	err = loop_engine_select((enum loop_engine)options->io);
	if (err < 0)
		return fail("io_uring cannot be used here (--io uring)", err);
	err = server_init(&serve->server, loops_wanted(options),
	    (unsigned)options->connections_max);
	if (err)
		return fail("cannot start the event loops", err);
	serve->server.tls = serve->tls;
	serve->server.tls_is_optional = options->tls_optional.count > 0;
	serve->server.allow = &options->allow;
	co_start(&serve->start, serve_main, serve);
	loop_run(serve->server.loops[0].loop);
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

	if (listener_adopt(&serve->listeners, &error) < 0)
		return error_print(&error);
	if (options->background) {
		err = background_begin(&serve->report);
		if (err)
			return fail("cannot go to the background", err);
	}
	raise_descriptor_limit();
	serve->hangup_ignored = hangup_is_ignored();
	err = signals_open(&serve->signals);
	if (err)
		return fail("cannot wait for signals", err);
	exit_code = open_tls(serve);
	if (!exit_code)
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
	exit_code = key_ring_load(command, &options.keys, &serve.keys);
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
