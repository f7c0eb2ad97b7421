/* SPDX-License-Identifier: MIT */
#include "server/serve_listen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "runtime/listener.h"
#include "runtime/log.h"
#include "server/export.h"
#include "server/serve_options.h"
#include "server/uri.h"

#define UNIX_PREFIX "unix:"
#define TCP_PREFIX "tcp:"
#define VSOCK_PREFIX "vsock:"
#define HOST_BYTES_MAX 255

static bool
has_prefix(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

/* "ADDR:PORT", "[ADDR]:PORT". */
static bool
split_tcp(const char *text, char host[HOST_BYTES_MAX + 1], uint16_t *portp)
{
	const char *colon = strrchr(text, ':');
	size_t bytes;
	char *end;
	unsigned long port;

	if (!colon || colon == text || colon[1] < '0' || colon[1] > '9')
		return false;
	port = strtoul(colon + 1, &end, 10);
	if (*end || port > UINT16_MAX)
		return false;
	bytes = (size_t)(colon - text);
	if (text[0] == '[' && bytes > 2 && text[bytes - 1] == ']') {
		text++;
		bytes -= 2;
	} else if (memchr(text, ':', bytes)) {
		return false;
	}
	if (bytes > HOST_BYTES_MAX)
		return false;
	memcpy(host, text, bytes);
	host[bytes] = '\0';
	*portp = (uint16_t)port;
	return true;
}

static bool
parse_vsock(const char *text, uint32_t *portp)
{
	char *end;
	unsigned long long port = strtoull(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end || port > UINT32_MAX)
		return false;
	*portp = (uint32_t)port;
	return true;
}

bool
serve_listen_valid(const char *text)
{
	char host[HOST_BYTES_MAX + 1];
	uint32_t vsock_port;
	uint16_t port;

	if (has_prefix(text, VSOCK_PREFIX))
		return parse_vsock(text + strlen(VSOCK_PREFIX), &vsock_port);

	if (has_prefix(text, UNIX_PREFIX))
		return text[strlen(UNIX_PREFIX)] != '\0';
	return has_prefix(text, TCP_PREFIX) &&
	    split_tcp(text + strlen(TCP_PREFIX), host, &port);
}

static int
open_unix(struct listener **list, const char *path,
    const struct serve_options *options, struct error *error)
{
	return listener_open_unix(list, path, &options->socket_access,
	    SERVE_PATIENCE_MS, error);
}

static int
open_text(struct listener **list, const char *text,
    const struct serve_options *options, struct error *error)
{
	char host[HOST_BYTES_MAX + 1];
	uint32_t vsock_port = 0;
	uint16_t port = 0;

	if (has_prefix(text, UNIX_PREFIX))
		return open_unix(list, text + strlen(UNIX_PREFIX), options,
		    error);
	if (has_prefix(text, VSOCK_PREFIX)) {
		parse_vsock(text + strlen(VSOCK_PREFIX), &vsock_port);
		return listener_open_vsock(list, vsock_port,
		    SERVE_PATIENCE_MS, error);
	}
	split_tcp(text + strlen(TCP_PREFIX), host, &port);
	return listener_open_tcp(list, host, port, SERVE_PATIENCE_MS, error);
}

bool
serve_listen_wanted(const struct serve_options *options)
{
	return options->listen.count > 0 || options->unix_paths.count > 0 ||
	    options->bind || options->port >= 0;
}

/* Nothing said at all means the standard port, on this machine only. */
static bool
wants_short_tcp(const struct serve_options *options, bool adopted)
{
	return options->bind || options->port >= 0 ||
	    (!adopted && !serve_listen_wanted(options));
}

int
serve_listen_private(struct listener **list, char **directoryp,
    struct error *error)
{
	const struct listener_access access = {
		0600, (uid_t)-1, (gid_t)-1,
	};
	const char *parent = getenv("TMPDIR");
	char *directory, *path;
	int err = -ENOMEM;

	if (asprintf(&directory, "%s/qnbd-XXXXXX",
	    parent && parent[0] ? parent : "/tmp") < 0)
		return error_set(error, -ENOMEM, "out of memory");
	if (!mkdtemp(directory)) {
		err = error_set(error, -errno, "cannot make a directory for a "
		    "socket, %s: %s", directory, strerror(errno));
		goto free_directory;
	}
	if (asprintf(&path, "%s/socket", directory) < 0)
		goto remove_directory;
	err = listener_open_unix(list, path, &access, 0, error);
	free(path);
	if (!err) {
		*directoryp = directory;
		return 0;
	}
remove_directory:
	rmdir(directory);
free_directory:
	free(directory);
	return err;
}

static int
check_plaintext(const struct serve_options *options,
    const struct listener *listeners, struct error *error)
{
	if (serve_has_tls(options) && options->tls_optional.count == 0)
		return 0;
	for (const struct listener *listener = listeners; listener;
	    listener = listener->next) {
		if (listener->is_loopback)
			continue;
		error_set(error, -EACCES, "refusing to serve on %s: what is "
		    "read and written would cross the network in plain text",
		    listener->name);
		error_hint(error, serve_has_tls(options) ?
		    "leave --tls-optional off, or add --insecure-plaintext if "
		    "the network is trusted" :
		    "add --tls DIR or --tls-psk FILE, serve on 127.0.0.1 or a "
		    "unix socket, or add --insecure-plaintext if the network "
		    "is trusted");
		return -EACCES;
	}
	return 0;
}

int
serve_listen(const struct serve_options *options, struct listener **list,
    struct error *error)
{
	bool adopted = *list != NULL;
	int err = 0;

	for (unsigned i = 0; i < options->listen.count && !err; i++)
		err = open_text(list, options->listen.list[i], options,
		    error);
	for (unsigned i = 0; i < options->unix_paths.count && !err; i++)
		err = open_unix(list, options->unix_paths.list[i], options,
		    error);
	if (!err && wants_short_tcp(options, adopted))
		err = listener_open_tcp(list,
		    options->bind ? options->bind : "127.0.0.1",
		    options->port >= 0 ? (uint16_t)options->port : SERVE_PORT,
		    SERVE_PATIENCE_MS, error);
	if (!err && !options->insecure_plaintext)
		err = check_plaintext(options, *list, error);
	return err;
}

static void
announce(const struct serve_options *options, const struct listener *listener,
    const struct export *export)
{
	uri_print(stdout, listener, export);
	putchar('\n');
	/* Not all clients know vsock. */
	if (options->print_uri || !isatty(STDOUT_FILENO) || listener->is_vsock)
		return;
	printf("  ");
	uri_print_client(stdout, listener, export);
	printf("\n  ");
	uri_print_drive(stdout, listener, export);
	putchar('\n');
}

void
serve_announce(const struct serve_options *options,
    const struct listener *listeners, const struct export_table *exports)
{
	/*
	 * Who hands a socket over knows it, and may share standard output; so
	 * may the command that is told.
	 */
	bool quiet = !options->print_uri && (options->run ||
	    (listeners && listeners->is_adopted));

	for (const struct listener *listener = listeners; listener;
	    listener = listener->next) {
		log_info("listening on=\"%s\"%s", listener->name,
		    listener->is_adopted ? " handed-over=yes" : "");
		for (unsigned i = 0; i < exports->count; i++) {
			if (!quiet && uri_exists(listener))
				announce(options, listener, exports->list[i]);
		}
	}
	fflush(stdout);
}
