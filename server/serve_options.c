/* SPDX-License-Identifier: MIT */
/* The options of qnbd serve: their table, and the names of the exports. */
#include "server/serve_options.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "proto/nbd.h"
#include "qcow2/image.h"
#include "runtime/loop.h"
#include "server/commands.h"
#include "server/serve_check.h"
#include "server/server.h"

#define MIB (INT64_C(1) << 20)
#define METADATA_CACHE_BYTES_MAX (INT64_C(1) << 40)
#define MEMORY_BYTES_MAX (INT64_C(1) << 40)

static const char *const discard_names[] = {
	[IMAGE_DISCARD_UNMAP] = "unmap", [IMAGE_DISCARD_IGNORE] = "ignore",
	[IMAGE_DISCARD_NO_UNREF] = "no-unref", NULL,
};
static const char *const detect_names[] = {
	[IMAGE_DETECT_OFF] = "off", [IMAGE_DETECT_ON] = "on",
	[IMAGE_DETECT_UNMAP] = "unmap", NULL,
};
static const char *const io_names[] = {
	[LOOP_AUTO] = "auto", [LOOP_URING] = "uring",
	[LOOP_THREADS] = "threads", NULL,
};

#define FIELD(name) .offset = offsetof(struct serve_options, name)

const struct option_spec serve_specs[] = {
	{ "listen", 0, OPTION_TEXTS, "ADDRESS",
	  "unix:PATH, tcp:ADDR:PORT or vsock:PORT, repeatable",
	  FIELD(listen) },
	{ "unix", 'u', OPTION_TEXTS, "PATH",
	  "listen on a unix socket", FIELD(unix_paths) },
	{ "socket-mode", 0, OPTION_TEXT, "MODE",
	  "permissions of unix sockets (0666 without the umask's)",
	  FIELD(socket_mode) },
	{ "socket-owner", 0, OPTION_TEXT, "USER[:GROUP]",
	  "whose unix sockets are", FIELD(socket_owner) },
	{ "bind", 'b', OPTION_TEXT, "ADDR",
	  "listen on this address (127.0.0.1)", FIELD(bind) },
	{ "port", 'p', OPTION_NUMBER, "PORT",
	  "listen on this port (10809; 0: a free one)", FIELD(port),
	  .min = 0, .max = UINT16_MAX },
	{ "export-name", 'x', OPTION_TEXT, "NAME",
	  "the name of a single image", FIELD(export_name) },
	{ "description", 0, OPTION_TEXT, "TEXT",
	  "what clients are told about the exports", FIELD(description) },
	{ "read-only", 'r', OPTION_FLAG, NULL,
	  "let nobody write", FIELD(read_only) },
	{ "snapshot", 0, OPTION_TEXT, "NAME",
	  "with -r: the disk as this internal snapshot has it",
	  FIELD(source.snapshot) },
	{ "format", 'f', OPTION_CHOICE, "qcow2|raw",
	  "what the images are (qcow2), never guessed",
	  FIELD(source.format), .choices = source_formats },
	SOURCE_BACKING_OPTIONS(struct serve_options, source, "", ""),
	KEY_OPTIONS(struct serve_options, source.keys),
	{ "force-share", 0, OPTION_FLAG, NULL,
	  "with -r: even while others write the image",
	  FIELD(source.force_share) },
	{ "refuse-bitmaps", 0, OPTION_FLAG, NULL,
	  "rather than invalidate persistent bitmaps",
	  FIELD(refuse_bitmaps) },
	{ "discard", 0, OPTION_CHOICE, "unmap|ignore|no-unref",
	  "what a client's trim does (unmap)", FIELD(discard),
	  .choices = discard_names },
	{ "detect-zeroes", 0, OPTION_CHOICE, "off|on|unmap",
	  "what writes of zeros become (off)", FIELD(detect_zeroes),
	  .choices = detect_names },
	{ "allow-resize", 0, OPTION_FLAG, NULL,
	  "clients may change the length of the disks",
	  FIELD(allow_resize) },
	{ "threads", 0, OPTION_NUMBER, "N",
	  "event loops (one for each CPU)", FIELD(threads),
	  .min = 1, .max = SERVER_LOOPS_MAX },
	{ "io", 0, OPTION_CHOICE, "auto|uring|threads",
	  "the engine for input and output (auto)", FIELD(io),
	  .choices = io_names },
	{ "metadata-cache", 0, OPTION_SIZE, "SIZE",
	  "memory for tables of each image (64M)",
	  FIELD(metadata_cache_bytes), .min = MIB,
	  .max = METADATA_CACHE_BYTES_MAX },
	{ "max-connections", 'e', OPTION_NUMBER, "N",
	  "clients at once (1024)", FIELD(connections_max),
	  .min = 1, .max = SERVER_CONNECTIONS_LIMIT },
	{ "max-export-connections", 0, OPTION_NUMBER, "N",
	  "clients of one export at once (no limit)",
	  FIELD(export_connections_max),
	  .min = 1, .max = SERVER_CONNECTIONS_LIMIT },
	{ "memory", 0, OPTION_SIZE, "SIZE",
	  "for payloads of all clients (1G)", FIELD(memory_bytes),
	  .min = (int64_t)BUDGET_BYTES_MIN, .max = MEMORY_BYTES_MAX },
	{ "timeout", 0, OPTION_NUMBER, "SECONDS",
	  "for a client to choose an export (10)", FIELD(handshake_s),
	  .min = 1, .max = SERVER_SECONDS_MAX },
	{ "send-timeout", 0, OPTION_NUMBER, "SECONDS",
	  "for a client to take its replies (60)", FIELD(send_s),
	  .min = 1, .max = SERVER_SECONDS_MAX },
	{ "dead-peer", 0, OPTION_NUMBER, "SECONDS",
	  "until a TCP client that is silent counts as dead (120)",
	  FIELD(dead_peer_s),
	  .min = SOCK_DEAD_PEER_S_MIN, .max = SOCK_DEAD_PEER_S_MAX },
	{ "insecure-plaintext", 0, OPTION_FLAG, NULL,
	  "allow TCP beyond this machine", FIELD(insecure_plaintext) },
	{ "stdio", 0, OPTION_FLAG, NULL,
	  "serve one client on standard input and output",
	  FIELD(stdio) },
	{ "run", 0, OPTION_TEXT, "COMMAND",
	  "serve while a shell runs this; $uri is the first URI",
	  FIELD(run) },
	{ "exit-with-parent", 0, OPTION_FLAG, NULL,
	  "stop when the program that started it ends",
	  FIELD(exit_with_parent) },
	{ "print-uri", 0, OPTION_FLAG, NULL,
	  "print the URIs and nothing else", FIELD(print_uri) },
	{ "ready-fd", 0, OPTION_NUMBER, "N",
	  "write a newline there once it listens", FIELD(ready_fd),
	  .min = 0, .max = INT_MAX },
	{ "verbose", 'v', OPTION_FLAG, NULL,
	  "log more", FIELD(verbose) },
	{ "fork", 0, OPTION_FLAG, NULL,
	  "go to the background once it listens", FIELD(background) },
	{ "pid-file", 0, OPTION_TEXT, "FILE",
	  "write the process id there", FIELD(pid_file) },
	{ "tls", 0, OPTION_TEXT, "DIR",
	  "TLS only, with the certificates there", FIELD(tls_directory) },
	{ "tls-psk", 0, OPTION_TEXT, "FILE",
	  "TLS only, with pre-shared keys USER:HEXKEY",
	  FIELD(tls_psk_file) },
	{ "tls-no-verify-clients", 0, OPTION_FLAG, NULL,
	  "with --tls: clients need no certificate", FIELD(tls_no_verify) },
	{ "tls-optional", 0, OPTION_TEXTS, "NAME",
	  "this export also without TLS; repeatable",
	  FIELD(tls_optional) },
	{ "allow", 0, OPTION_TEXTS, "[NAME:]CN=TEXT",
	  "who may use it; also DNS=, USER=; repeatable",
	  FIELD(allow_texts) },
	{ .name = NULL },
};

/* ---- names ---- */

/* NAME= before the image; a name has no "/", so ./a=b.qcow2 is a file. */
static size_t
name_bytes(const char *argument)
{
	size_t bytes = strcspn(argument, "=/");

	return argument[bytes] == '=' ? bytes : SIZE_MAX;
}

static char *
default_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *file = slash ? slash + 1 : path;
	size_t bytes = strlen(file);

	if (bytes > 6 && !strcmp(file + bytes - 6, ".qcow2"))
		bytes -= 6;
	return strndup(file, bytes);
}

/* Splits the arguments into names and images, in place. */
static int
name_images(struct serve_options *options, int count, char **arguments)
{
	options->images = arguments;
	options->images_count = (unsigned)count;
	options->names = calloc((size_t)count, sizeof(*options->names));
	if (!options->names)
		return -ENOMEM;
	for (int i = 0; i < count; i++) {
		size_t bytes = name_bytes(arguments[i]);

		if (options->export_name && bytes == SIZE_MAX)
			options->names[i] = strdup(options->export_name);
		else if (bytes == SIZE_MAX)
			options->names[i] = default_name(arguments[i]);
		else
			options->names[i] = strndup(arguments[i], bytes);
		if (!options->names[i])
			return -ENOMEM;
		if (bytes != SIZE_MAX)
			arguments[i] += bytes + 1;
	}
	return 0;
}

/* The index of an earlier image with the same name, or -1. */
static int
same_name(const struct serve_options *options, unsigned index)
{
	for (unsigned i = 0; i < index; i++)
		if (!strcmp(options->names[i], options->names[index]))
			return (int)i;
	return -1;
}

static int
check_names(const struct serve_options *options)
{
	for (unsigned i = 0; i < options->images_count; i++) {
		int earlier = same_name(options, i);

		if (earlier >= 0)
			return options_complain(&serve_command,
			    "%s and %s would both be called \"%s\"; "
			    "tell them apart as NAME=IMAGE",
			    options->images[earlier], options->images[i],
			    options->names[i]);
		if (strlen(options->names[i]) > NBD_NAME_BYTES_MAX)
			return options_complain(&serve_command,
			    "the export name for %s is longer than %d bytes",
			    options->images[i], NBD_NAME_BYTES_MAX);
		if (!options->images[i][0])
			return options_complain(&serve_command,
			    "%s= is followed by no image", options->names[i]);
	}
	return 0;
}

static int
check_images(struct serve_options *options, int count, char **arguments)
{
	if (count == 0)
		return options_complain(&serve_command,
		    "serve needs at least one image");
	if (count > EXPORTS_MAX)
		return options_complain(&serve_command,
		    "at most %d images can be served", EXPORTS_MAX);
	if (options->export_name && count > 1)
		return options_complain(&serve_command,
		    "--export-name is for one image; give each its own name "
		    "as NAME=IMAGE");
	if (options->export_name && name_bytes(arguments[0]) != SIZE_MAX)
		return options_complain(&serve_command,
		    "%s has a name already, so --export-name says another",
		    arguments[0]);
	if (name_images(options, count, arguments)) {
		fprintf(stderr, "qnbd: out of memory\n");
		return 1;
	}
	return check_names(options);
}

/* ---- all of it ---- */

bool
serve_allows_plain(const struct serve_options *options,
    const char *export_name)
{
	for (unsigned i = 0; i < options->tls_optional.count; i++)
		if (!strcmp(options->tls_optional.list[i], export_name))
			return true;
	return false;
}

void
serve_options_free(struct serve_options *options)
{
	for (unsigned i = 0; options->names && i < options->images_count; i++)
		free(options->names[i]);
	free(options->names);
}

int
serve_options_parse(const struct command *command, int argc, char **argv,
    struct serve_options *options)
{
	const struct server_limits limits = SERVER_LIMITS_DEFAULT;
	int first, exit_code;

	*options = (struct serve_options){
		.port = -1,
		.source = SOURCE_ARGUMENTS_DEFAULT,
		.discard = IMAGE_DISCARD_UNMAP,
		.io = LOOP_AUTO,
		.connections_max = limits.connections_max,
		.memory_bytes = (int64_t)limits.memory_bytes,
		.handshake_s = limits.handshake_s,
		.send_s = limits.send_s,
		.dead_peer_s = limits.dead_peer_s,
		.ready_fd = -1,
	};
	exit_code = options_parse(command, argc, argv, options, &first);
	if (exit_code)
		return exit_code;
	exit_code = serve_check_options(options);
	if (!exit_code)
		exit_code = check_images(options, argc - first, argv + first);
	if (!exit_code)
		exit_code = serve_check_tls(options);
	if (exit_code)
		serve_options_free(options);
	return exit_code;
}
