/* SPDX-License-Identifier: MIT */
/*
 * Command line options, declared in tables.
 *
 * A command lists its options once; parsing, help and the guess at what a
 * misspelt one was meant to be all come from that list.  Values go straight
 * into the fields of a struct of the command's, which holds the defaults
 * beforehand.  Parsers return 0, or the exit code 64 after saying on standard
 * error what is wrong and what to type.
 */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define EXIT_USAGE 64

/* Options that one command may have, and times a list option may be given. */
#define OPTIONS_MAX 64
#define OPTION_TEXTS_MAX 64

enum option_kind {
	OPTION_FLAG,		/* bool: set */
	OPTION_TEXT,		/* const char *: the last one given */
	OPTION_TEXTS,		/* struct option_texts: all of them */
	OPTION_NUMBER,		/* int64_t: from min to max */
	OPTION_SIZE,		/* int64_t: bytes, "64M"; from min to max */
	OPTION_CHOICE,		/* int: the index in choices */
};

struct option_texts {
	const char *list[OPTION_TEXTS_MAX];
	unsigned count;
};

struct option_spec {
	const char *name;	/* of two dashes */
	char letter;		/* of one dash, or 0 */
	enum option_kind kind;
	const char *argument;	/* as help shows it; NULL for a flag */
	const char *help;	/* one line */
	size_t offset;		/* of the field */
	int64_t min;
	int64_t max;
	const char *const *choices;	/* NULL at the end */
};

/* A subcommand of the program. */
struct command {
	const char *name;
	const char *arguments;	/* as help shows them */
	const char *summary;	/* one line */
	const char *details;	/* more lines of help, or NULL */
	const struct option_spec *options;	/* name is NULL at the end */
	/* argv[0] is the command; returns the exit code. */
	int (*run)(const struct command *command, int argc, char **argv);
};

/*
 * Takes the options out of argv into target; the other arguments are at
 * argv[*firstp] to argv[argc - 1] then.  Returns 0, EXIT_USAGE, or -1 if help
 * was asked for, and printed.
 */
int options_parse(const struct command *command, int argc, char **argv,
    void *target, int *firstp);

/* Says "qnbd: ..." and where help is; returns EXIT_USAGE. */
int options_complain(const struct command *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* What `qnbd COMMAND --help` prints. */
void options_help(const struct command *command, FILE *out);

/*
 * The name closest to wrong, or NULL if none is close.  names are at the start
 * of entries of stride bytes each, a NULL name at the end.
 */
const char *options_nearest(const char *wrong, const void *names,
    size_t stride);

#endif
