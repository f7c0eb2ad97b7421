/* SPDX-License-Identifier: MIT */
/* The program: finds the command and lets it run. */
#include "config.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "server/commands.h"

static const struct command *
find_command(const char *name)
{
	for (unsigned i = 0; commands[i]; i++)
		if (!strcmp(commands[i]->name, name))
			return commands[i];
	return NULL;
}

static int
complain(const char *what, const char *word, const char *nearest)
{
	fprintf(stderr, "qnbd: unknown %s %s", what, word);
	if (nearest)
		fprintf(stderr, "; did you mean %s?", nearest);
	fprintf(stderr, "\n  for help: qnbd --help\n");
	return EXIT_USAGE;
}

static int
unknown_command(const char *word)
{
	const char *names[COMMANDS_MAX + 1];
	unsigned count = 0;

	while (commands[count] && count < COMMANDS_MAX) {
		names[count] = commands[count]->name;
		count++;
	}
	names[count] = NULL;
	return complain("command", word,
	    options_nearest(word, names, sizeof(names[0])));
}

/* What may stand before the command: the exit code, or -1 to go on. */
static int
take_option(const char *word)
{
	static const char *const names[] = {
		"--help", "--version", "--json", NULL,
	};

	if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
		usage_print(stdout);
		return 0;
	}
	if (!strcmp(word, "--version") || !strcmp(word, "-V")) {
		printf("qnbd %s\n", PACKAGE_VERSION);
		return 0;
	}
	if (!strcmp(word, "--json"))
		return -1;
	return complain("option", word,
	    options_nearest(word, names, sizeof(names[0])));
}

int
main(int argc, char **argv)
{
	const struct command *command;
	int first = 1;
	bool json;

	/* A limit of the files' length is an errno, not the end. */
	signal(SIGXFSZ, SIG_IGN);
	while (first < argc && argv[first][0] == '-') {
		int code = take_option(argv[first++]);

		if (code >= 0)
			return code;
	}
	json = first > 1;
	if (first == argc) {
		usage_print(stderr);
		return EXIT_USAGE;
	}
	command = find_command(argv[first]);
	if (!command)
		return unknown_command(argv[first]);
	if (!json)
		return command->run(command, argc - first, argv + first);
	/* The command's name moves to where --json stood, --json behind it. */
	argv[first - 1] = argv[first];
	argv[first] = "--json";
	return command->run(command, argc - first + 1, argv + first - 1);
}
