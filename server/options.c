/* SPDX-License-Identifier: MIT */
#include "server/options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "server/size.h"

#define HELP_VALUE 1		/* what getopt_long() returns for --help */
#define FIRST_VALUE 256		/* and for options[i]: this plus i */
#define NAME_BYTES_MAX 63	/* of a word that is compared */

/* ---- the nearest name ---- */

static unsigned
smallest(unsigned a, unsigned b, unsigned c)
{
	unsigned least = a < b ? a : b;

	return least < c ? least : c;
}

/* Letters to insert, drop, change, or swap with their neighbour. */
static unsigned
distance(const char *a, const char *b)
{
	unsigned row[3][NAME_BYTES_MAX + 1];
	unsigned *before = row[0], *last = row[1], *now = row[2];
	size_t length = strlen(b);

	assert(length <= NAME_BYTES_MAX);
	for (size_t j = 0; j <= length; j++)
		last[j] = (unsigned)j;
	for (size_t i = 1; a[i - 1]; i++) {
		unsigned *oldest = before;

		now[0] = (unsigned)i;
		for (size_t j = 1; j <= length; j++) {
			now[j] = smallest(now[j - 1] + 1, last[j] + 1,
			    last[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1] && before[j - 2] + 1 < now[j])
				now[j] = before[j - 2] + 1;
		}
		before = last;
		last = now;
		now = oldest;
	}
	return last[length];
}

const char *
options_nearest(const char *wrong, const void *names, size_t stride)
{
	const char *entry = names;
	const char *nearest = NULL;
	unsigned nearest_distance;

	if (strlen(wrong) > NAME_BYTES_MAX)
		return NULL;
	/* A third of the letters may be wrong, but never more than three. */
	nearest_distance = (unsigned)strlen(wrong) / 3 + 1;
	if (nearest_distance > 4)
		nearest_distance = 4;
	for (;; entry += stride) {
		const char *name;
		unsigned d;

		memcpy(&name, entry, sizeof(name));
		if (!name)
			return nearest;
		d = distance(wrong, name);
		if (d < nearest_distance) {
			nearest_distance = d;
			nearest = name;
		}
	}
}

/* ---- values ---- */

int
options_complain(const struct command *command, const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "qnbd: ");
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fprintf(stderr, "\n  for help: qnbd %s --help\n", command->name);
	return EXIT_USAGE;
}

static int
set_number(const struct command *command, const struct option_spec *option,
    const char *value, int64_t *field)
{
	int64_t number;
	char *end;
	int err = 0;

	if (option->kind == OPTION_SIZE) {
		err = size_parse(value, &number);
	} else {
		errno = 0;
		number = strtoll(value, &end, 10);
		if (errno || end == value || *end)
			err = -EINVAL;
	}
	if (err || number < option->min || number > option->max)
		return options_complain(command,
		    "--%s %s: this takes a %s from %lld to %lld",
		    option->name, value,
		    option->kind == OPTION_SIZE ? "size" : "number",
		    (long long)option->min, (long long)option->max);
	*field = number;
	return 0;
}

static int
set_choice(const struct command *command, const struct option_spec *option,
    const char *value, int *field)
{
	for (int i = 0; option->choices[i]; i++) {
		if (!strcmp(option->choices[i], value)) {
			*field = i;
			return 0;
		}
	}
	return options_complain(command, "--%s %s: this takes %s",
	    option->name, value, option->argument);
}

static int
set_value(const struct command *command, const struct option_spec *option,
    const char *value, void *target)
{
	void *field = (char *)target + option->offset;
	struct option_texts *texts;

	switch (option->kind) {
	case OPTION_FLAG:
		*(bool *)field = true;
		return 0;
	case OPTION_TEXT:
		*(const char **)field = value;
		return 0;
	case OPTION_TEXTS:
		texts = field;
		if (texts->count == OPTION_TEXTS_MAX)
			return options_complain(command,
			    "--%s may be given %d times at most",
			    option->name, OPTION_TEXTS_MAX);
		texts->list[texts->count++] = value;
		return 0;
	case OPTION_NUMBER:
	case OPTION_SIZE:
		return set_number(command, option, value, field);
	case OPTION_CHOICE:
		return set_choice(command, option, value, field);
	}
	assert(!"an option of unknown kind");
	return EXIT_USAGE;
}

/* ---- getopt ---- */

struct getopt_tables {
	struct option longs[OPTIONS_MAX + 2];
	char letters[2 * OPTIONS_MAX + 4];
};

static void
fill_tables(const struct command *command, struct getopt_tables *tables)
{
	char *letters = tables->letters;
	unsigned i;

	*letters++ = ':';	/* a missing value is told from a wrong name */
	*letters++ = 'h';
	for (i = 0; command->options[i].name; i++) {
		const struct option_spec *option = &command->options[i];

		assert(i < OPTIONS_MAX);
		tables->longs[i] = (struct option){
			.name = option->name,
			.has_arg = option->kind == OPTION_FLAG ?
			    no_argument : required_argument,
			.val = FIRST_VALUE + (int)i,
		};
		if (!option->letter)
			continue;
		*letters++ = option->letter;
		if (option->kind != OPTION_FLAG)
			*letters++ = ':';
	}
	tables->longs[i++] = (struct option){ .name = "help",
		.val = HELP_VALUE };
	tables->longs[i] = (struct option){0};
	*letters = '\0';
}

static const struct option_spec *
find_option(const struct command *command, int value)
{
	const struct option_spec *option = command->options;

	if (value >= FIRST_VALUE)
		return option + (value - FIRST_VALUE);
	while (option->name && option->letter != value)
		option++;
	return option->name ? option : NULL;
}

static int
complain_missing(const struct command *command)
{
	const struct option_spec *option = find_option(command, optopt);

	assert(option);
	return options_complain(command, "--%s needs %s", option->name,
	    option->argument);
}

static int
complain_unknown(const struct command *command, char **argv)
{
	const char *nearest;
	char word[NAME_BYTES_MAX + 1];

	if (optopt && optopt < FIRST_VALUE && optopt != HELP_VALUE)
		return options_complain(command, "unknown option -%c", optopt);
	if (optopt)
		return options_complain(command, "%s takes no value",
		    argv[optind - 1]);
	snprintf(word, sizeof(word), "%s", argv[optind - 1] + 2);
	word[strcspn(word, "=")] = '\0';
	nearest = options_nearest(word, command->options,
	    sizeof(command->options[0]));
	if (!nearest)
		return options_complain(command, "unknown option --%s", word);
	return options_complain(command,
	    "unknown option --%s; did you mean --%s?", word, nearest);
}

int
options_parse(const struct command *command, int argc, char **argv,
    void *target, int *firstp)
{
	struct getopt_tables tables;
	int value, err;

	fill_tables(command, &tables);
	opterr = 0;
	optind = 0;	/* begin anew, as glibc has it */
	while ((value = getopt_long(argc, argv, tables.letters, tables.longs,
	    NULL)) != -1) {
		if (value == HELP_VALUE || value == 'h') {
			options_help(command, stdout);
			return -1;
		}
		if (value == ':')
			return complain_missing(command);
		if (value == '?')
			return complain_unknown(command, argv);
		err = set_value(command, find_option(command, value), optarg,
		    target);
		if (err)
			return err;
	}
	*firstp = optind;
	return 0;
}

void
options_help(const struct command *command, FILE *out)
{
	fprintf(out, "Usage: qnbd %s %s\n\n%s\n\n", command->name,
	    command->arguments, command->summary);
	if (command->details)
		fprintf(out, "%s\n", command->details);
	for (const struct option_spec *option = command->options;
	    option->name; option++) {
		char left[64];

		if (option->letter)
			snprintf(left, sizeof(left), "-%c, --%s %s",
			    option->letter, option->name,
			    option->argument ? option->argument : "");
		else
			snprintf(left, sizeof(left), "    --%s %s",
			    option->name,
			    option->argument ? option->argument : "");
		fprintf(out, "  %-32s %s\n", left, option->help);
	}
	fprintf(out, "  %-32s %s\n", "-h, --help", "print this");
}
