/* SPDX-License-Identifier: MIT */
#include "server/key.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/secret.h"
#include "server/commands.h"

/* One more than a key may have, to see that; and its newline. */
#define BUFFER_BYTES (KEY_BYTES_MAX + 2)

/* ---- one key ---- */

/* Whether what was read may be a passphrase; *bytesp is how long it is. */
static int
judge(const char *text, size_t *bytesp, const char *source,
    struct error *error)
{
	size_t bytes = *bytesp;

	if (bytes > 0 && text[bytes - 1] == '\n')
		bytes--;
	if (bytes == 0)
		return error_set(error, -EINVAL, "the key in %s is empty",
		    source);
	if (bytes > KEY_BYTES_MAX)
		return error_set(error, -EINVAL, "the key in %s has more than "
		    "%d bytes", source, KEY_BYTES_MAX);
	if (memchr(text, '\0', bytes))
		return error_set(error, -EINVAL, "the key in %s has a zero "
		    "byte, where other programs would end it", source);
	*bytesp = bytes;
	return 0;
}

/* Reads a key from fd, which source names, and adds it; room is made. */
static int
add_key(struct key_ring *keys, int fd, const char *source, struct error *error)
{
	char *text = secret_get(BUFFER_BYTES);
	ssize_t got;
	size_t bytes;
	int err;

	if (!text)
		return error_set(error, -ENOMEM, "out of memory");
	got = secret_read(fd, text, BUFFER_BYTES);
	bytes = got < 0 ? 0 : (size_t)got;
	if (got < 0)
		err = error_set(error, (int)got, "cannot read the key in %s: "
		    "%s", source, strerror((int)-got));
	else
		err = judge(text, &bytes, source, error);
	if (err) {
		secret_put(text, BUFFER_BYTES);
		return err;
	}
	keys->list[keys->count++] = (struct image_key){ text, bytes };
	return 0;
}

static int
add_file(struct key_ring *keys, const char *path, struct error *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int err;

	if (fd < 0)
		return error_set(error, -errno, "cannot open the key file "
		    "%s: %s", path, strerror(errno));
	err = add_key(keys, fd, path, error);
	close(fd);
	return err;
}

static int
add_descriptor(struct key_ring *keys, const char *number, struct error *error)
{
	int fd = (int)strtol(number, NULL, 10);
	char source[32];
	int err;

	snprintf(source, sizeof(source), "descriptor %d", fd);
	err = add_key(keys, fd, source, error);
	if (!err)
		close(fd);
	return err;
}

static int
add_credential(struct key_ring *keys, const char *name, struct error *error)
{
	const char *directory = getenv("CREDENTIALS_DIRECTORY");
	char *path;
	int err;

	if (!directory) {
		error_set(error, -ENOENT, "there is no credential %s: systemd "
		    "has passed none to this process", name);
		error_hint(error, "in the unit: LoadCredential=%s:/PATH", name);
		return -ENOENT;
	}
	if (asprintf(&path, "%s/%s", directory, name) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	err = add_file(keys, path, error);
	free(path);
	return err;
}

/* ---- all of them ---- */

static bool
is_descriptor(const char *text)
{
	char *end;
	long number;

	errno = 0;
	number = strtol(text, &end, 10);
	return !errno && *text && !*end && number >= 0 && number <= INT_MAX &&
	    fcntl((int)number, F_GETFD) >= 0;
}

static int
check_options(const struct command *command,
    const struct key_options *options)
{
	unsigned kinds = (options->files.count > 0) +
	    (options->descriptors.count > 0) +
	    (options->credentials.count > 0);

	if (kinds > 1)
		return options_complain(command, "--key-file, --key-fd and "
		    "--key-credential do not go together: which key would be "
		    "the first?");
	for (unsigned i = 0; i < options->descriptors.count; i++)
		if (!is_descriptor(options->descriptors.list[i]))
			return options_complain(command,
			    "--key-fd %s: this is no open descriptor",
			    options->descriptors.list[i]);
	for (unsigned i = 0; i < options->credentials.count; i++) {
		const char *name = options->credentials.list[i];

		if (!*name || *name == '.' || strchr(name, '/'))
			return options_complain(command, "--key-credential "
			    "%s: this is no name of a credential", name);
	}
	return 0;
}

static int
load_all(const struct option_texts *texts, struct key_ring *keys,
    int (*add)(struct key_ring *keys, const char *text, struct error *error),
    struct error *error)
{
	int err = 0;

	for (unsigned i = 0; i < texts->count && !err; i++)
		err = add(keys, texts->list[i], error);
	return err;
}

int
key_ring_load(const struct command *command, const struct key_options *options,
    struct key_ring *keys)
{
	struct error error = {0};
	int code = check_options(command, options);
	int err;

	*keys = (struct key_ring){0};
	if (code || options->files.count + options->descriptors.count +
	    options->credentials.count == 0)
		return code;
	/* What OpenSSL makes of a key is in its own memory. */
	secret_forbid_dumps();
	keys->list = calloc(OPTION_TEXTS_MAX, sizeof(*keys->list));
	err = keys->list ? 0 : error_set(&error, -ENOMEM, "out of memory");
	if (!err)
		err = load_all(&options->files, keys, add_file, &error);
	if (!err)
		err = load_all(&options->descriptors, keys, add_descriptor,
		    &error);
	if (!err)
		err = load_all(&options->credentials, keys, add_credential,
		    &error);
	if (!err)
		return 0;
	key_ring_free(keys);
	return error_print(&error);
}

void
key_ring_free(struct key_ring *keys)
{
	for (unsigned i = 0; i < keys->count; i++)
		secret_put((void *)(uintptr_t)keys->list[i].text,
		    BUFFER_BYTES);
	free(keys->list);
	*keys = (struct key_ring){0};
}
