/* SPDX-License-Identifier: MIT */
#include "server/commands.h"

#include <assert.h>
#include <string.h>
#include "runtime/log.h"
#include "runtime/loop.h"
#include "runtime/loop_thread.h"
#include "runtime/thread.h"
#include "runtime/worker.h"

const struct command *const commands[] = {
	&serve_command,
	&create_command,
	&convert_command,
	&compare_command,
	&measure_command,
	&info_command,
	&map_command,
	&check_command,
	&snapshot_command,
	&resize_command,
	&vmstate_command,
	&rebase_command,
	&commit_command,
	&flatten_command,
	&tls_command,
	NULL,
};

void
usage_print(FILE *out)
{
	fprintf(out, "Usage: qnbd COMMAND [OPTIONS] [ARGUMENTS]\n\n"
	    "Serve qcow2 images over NBD.\n\n"
	    "Commands\n");
	for (unsigned i = 0; commands[i]; i++)
		fprintf(out, "  %-8s %s\n", commands[i]->name,
		    commands[i]->summary);
	fprintf(out, "\n"
	    "qnbd COMMAND --help lists the options of a command.\n\n"
	    "  -h, --help      print this\n"
	    "  -V, --version   print the version\n");
}

int
error_print(const struct error *error)
{
	log_flush(1000);
	fprintf(stderr, "qnbd: %s\n", error->message);
	if (error->hint[0])
		fprintf(stderr, "  %s\n", error->hint);
	return error->exit_code ? error->exit_code : 1;
}

struct call {
	struct co_start start;
	struct loop *loop;
	void (*fn)(void *arg);
	void *arg;
};

/* The wrapper of a co_fn that came as a pointer, which is not checked. */
static co_fn void
call_run(void *arg)
{
	struct call *call = arg;

	call->fn(call->arg);
	loop_stop(call->loop);
}

unsigned
command_loops(int64_t told)
{
	unsigned wanted = told > 0 ? (unsigned)told : thread_cpus();

	return wanted < COMMAND_LOOPS_MAX ? wanted : COMMAND_LOOPS_MAX;
}

static int
cannot_start(int err)
{
	fprintf(stderr, "qnbd: cannot start: %s\n", strerror(-err));
	return 1;
}

int
command_run_on(unsigned count, struct loop **loops, void (*fn)(void *arg),
    void *arg)
{
	struct loop_thread threads[COMMAND_LOOPS_MAX];
	struct call call = {.fn = fn, .arg = arg};
	unsigned made = 1;
	int err;

	assert(count > 0 && count <= COMMAND_LOOPS_MAX);
	/* A few reads are not worth a ring, nor a warning where none may be. */
	loop_engine_select(LOOP_THREADS);
	err = loop_create(count, &call.loop);
	if (err)
		return cannot_start(err);
	loops[0] = call.loop;
	for (; made < count && !err; made += !err) {
		err = loop_thread_start(&threads[made], made, count, NULL,
		    NULL);
		loops[made] = threads[made].loop;
	}
	if (!err) {
		co_start(&call.start, call_run, &call);
		loop_run(call.loop);
	}
	while (made > 1)
		loop_thread_end(&threads[--made]);
	loop_free(call.loop);
	worker_stop();
	log_flush(1000);
	return err ? cannot_start(err) : 0;
}

int
command_run(void (*fn)(void *arg), void *arg)
{
	struct loop *loop;

	return command_run_on(1, &loop, fn, arg);
}
