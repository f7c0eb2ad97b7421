/* SPDX-License-Identifier: MIT */
/*
 * The commands of the program, one file each, and how they fail.
 */
#ifndef SERVER_COMMANDS_H
#define SERVER_COMMANDS_H

#include <stdio.h>
#include "runtime/error.h"
#include "runtime/loop.h"
#include "server/options.h"

/* Exit codes besides 0, 1 and EXIT_USAGE. */
#define EXIT_BUSY 75		/* locked or in use: try again */
#define EXIT_NOT_ALLOWED 77

extern const struct command serve_command;
extern const struct command info_command;
extern const struct command map_command;
extern const struct command check_command;
extern const struct command create_command;
extern const struct command convert_command;
extern const struct command compare_command;
extern const struct command measure_command;
extern const struct command snapshot_command;
extern const struct command resize_command;
extern const struct command vmstate_command;
extern const struct command rebase_command;
extern const struct command commit_command;
extern const struct command flatten_command;
extern const struct command tls_command;

#define COMMANDS_MAX 32

/* In the order of the help; NULL at the end. */
extern const struct command *const commands[];

/* What `qnbd --help` prints. */
void usage_print(FILE *out);

/*
 * Prints "qnbd: MESSAGE" and the hint below it to standard error, after what
 * is still in the log.  Returns the exit code.
 */
int error_print(const struct error *error);

/*
 * Runs fn(arg), a co_fn, as the only coroutine of a loop of its own and
 * returns when it has ended.  0, or an exit code after saying why it could
 * not begin.  For commands that look at a file and end.
 */
int command_run(void (*fn)(void *arg), void *arg);

#define COMMAND_LOOPS_MAX 64

/* How many loops to use: as many as told, or if that is 0 one a processor. */
unsigned command_loops(int64_t told);

/*
 * The same with count loops, for work that one processor is not enough for;
 * they are listed in loops meanwhile, and fn runs on the first.
 */
int command_run_on(unsigned count, struct loop **loops,
    void (*fn)(void *arg), void *arg);

#endif
