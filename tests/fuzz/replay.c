/* SPDX-License-Identifier: MIT */
/*
 * Feeds a fuzz target its corpus, once, without libFuzzer.
 *
 * Linked with fuzz_NAME.c this makes a test of `make check`: every input that
 * ever broke the target is kept in tests/fuzz/corpus/NAME and must stay
 * harmless.  Inputs are copied to a buffer of their exact size, so that a
 * sanitizer or valgrind sees a read past the end.
 *
 * Usage: fuzz_NAME [FILE...]   (default: the whole corpus)
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_BYTES_MAX (64L * 1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
die(const char *path, const char *why)
{
	fprintf(stderr, "replay: %s: %s\n", path, why);
	exit(1);
}

static void
replay_file(const char *path)
{
	struct stat st;
	uint8_t *data;
	size_t size;
	FILE *file;

	file = fopen(path, "rb");
	if (!file || fstat(fileno(file), &st))
		die(path, strerror(errno));
	if (st.st_size > INPUT_BYTES_MAX)
		die(path, "too large for an input");
	size = (size_t)st.st_size;
	data = malloc(size ? size : 1);
	if (!data)
		die(path, "no memory");
	if (fread(data, 1, size, file) != size)
		die(path, "cannot be read whole");
	fclose(file);
	/* A crash shall leave the name of the input as the last line. */
	printf("%s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
}

static int
not_hidden(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static int
replay_folder(const char *folder)
{
	struct dirent **entries;
	char path[4096];
	int count, i;

	count = scandir(folder, &entries, not_hidden, alphasort);
	if (count < 0)
		die(folder, strerror(errno));
	for (i = 0; i < count; i++) {
		if (snprintf(path, sizeof(path), "%s/%s", folder,
		    entries[i]->d_name) >= (int)sizeof(path))
			die(folder, "name too long");
		replay_file(path);
		free(entries[i]);
	}
	free(entries);
	return count;
}

/* The corpus of the program called name, a path that ends in fuzz_NAME. */
static int
replay_corpus(const char *name)
{
	const char *source = getenv("abs_top_srcdir");
	const char *base = strrchr(name, '/');
	char folder[2048];

	base = base ? base + 1 : name;
	assert(strncmp(base, "fuzz_", 5) == 0);
	if (snprintf(folder, sizeof(folder), "%s/tests/fuzz/corpus/%s",
	    source ? source : ".", base + 5) >= (int)sizeof(folder))
		die(name, "name too long");
	return replay_folder(folder);
}

int
main(int argc, char **argv)
{
	int count, i;

	if (argc > 1) {
		for (i = 1; i < argc; i++)
			replay_file(argv[i]);
		count = argc - 1;
	} else {
		count = replay_corpus(argv[0]);
	}
	/* An empty corpus would pass without having looked at anything. */
	if (!count)
		die(argv[0], "the corpus is empty");
	printf("%d inputs replayed\n", count);
	return 0;
}
