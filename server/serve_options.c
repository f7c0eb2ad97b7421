/* SPDX-License-Identifier: MIT */
/* The options of qnbd serve, and what of them does not go together. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "proto/nbd.h"
#include "qcow2/image.h"
#include "runtime/loop.h"
#include "server/commands.h"
#include "server/serve.h"
#include "server/server.h"
#include "server/socket_access.h"

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

/* ---- TLS ---- */

static bool
has_name(const struct serve_options *options, const char *name)
{
	for (unsigned i = 0; i < options->images_count; i++)
		if (!strcmp(options->names[i], name))
			return true;
	return false;
}

bool
serve_allows_plain(const struct serve_options *options,
    const char *export_name)
{
	for (unsigned i = 0; i < options->tls_optional.count; i++)
		if (!strcmp(options->tls_optional.list[i], export_name))
			return true;
	return false;
}

/* A rule that no client could ever meet is a mistake. */
static int
check_rule(const struct serve_options *options, const char *text,
    const struct allow_rule *rule)
{
	if (rule->kind == TLS_NAME_USER && !options->tls_psk_file)
		return options_complain(&serve_command, "--allow %s: users "
		    "come with --tls-psk, which is missing", text);
	if (rule->kind != TLS_NAME_USER &&
	    (!options->tls_directory || options->tls_no_verify))
		return options_complain(&serve_command, "--allow %s: this is "
		    "in certificates of clients, which come with --tls%s",
		    text, options->tls_no_verify ?
		    " but without --tls-no-verify-clients" : "");
	if (rule->for_all)
		return 0;
	for (unsigned i = 0; i < options->images_count; i++) {
		const char *name = options->names[i];

		if (!allow_is_for(rule, name))
			continue;
		if (serve_allows_plain(options, name))
			return options_complain(&serve_command, "--allow %s: "
			    "everybody may use this export, because of "
			    "--tls-optional %s", text, name);
		return 0;
	}
	return options_complain(&serve_command, "--allow %s: there is no "
	    "export \"%.*s\"", text, (int)rule->export_bytes,
	    rule->export_name);
}

static int
parse_rules(struct serve_options *options)
{
	for (unsigned i = 0; i < options->allow_texts.count; i++) {
		const char *text = options->allow_texts.list[i];
		struct allow_rule *rule = &options->allow.list[i];
		int exit_code;

		if (!allow_parse(text, rule))
			return options_complain(&serve_command, "--allow %s: "
			    "this takes CN=NAME, DNS=NAME or USER=NAME, with "
			    "EXPORT: before it or without", text);
		exit_code = check_rule(options, text, rule);
		if (exit_code)
			return exit_code;
		options->allow.count++;
	}
	return 0;
}

static int
check_tls(struct serve_options *options)
{
	const struct option_texts *optional = &options->tls_optional;

	if (!serve_has_tls(options) && (options->tls_no_verify ||
	    optional->count > 0 || options->allow_texts.count > 0))
		return options_complain(&serve_command, "%s needs --tls DIR "
		    "or --tls-psk FILE", options->tls_no_verify ?
		    "--tls-no-verify-clients" : optional->count > 0 ?
		    "--tls-optional" : "--allow");
	if (options->tls_no_verify && !options->tls_directory)
		return options_complain(&serve_command,
		    "--tls-no-verify-clients is for --tls DIR");
	for (unsigned i = 0; i < optional->count; i++)
		if (!has_name(options, optional->list[i]))
			return options_complain(&serve_command,
			    "--tls-optional %s: there is no such export",
			    optional->list[i]);
	return parse_rules(options);
}

/* ---- checks ---- */

/* Where nothing is said: as the umask has it for any file. */
static int
check_access(struct serve_options *options)
{
	struct listener_access *access = &options->socket_access;
	mode_t mask = umask(0);

	umask(mask);
	*access = (struct listener_access){
		0666 & ~mask, (uid_t)-1, (gid_t)-1,
	};
	if (options->socket_mode &&
	    !socket_mode_parse(options->socket_mode, &access->mode))
		return options_complain(&serve_command,
		    "--socket-mode %s: this takes octal permissions, as 0660",
		    options->socket_mode);
	if (options->socket_owner &&
	    !socket_owner_parse(options->socket_owner, access))
		return options_complain(&serve_command,
		    "--socket-owner %s: there is no such user or group; this "
		    "takes USER, USER:GROUP or :GROUP", options->socket_owner);
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

/* The ways to end by itself, and what they do not go with. */
static int
check_company(const struct serve_options *options)
{
	if (options->stdio && (serve_listen_wanted(options) || options->run))
		return options_complain(&serve_command,
		    "--stdio serves the one client that is there already; it "
		    "does not go with %s", options->run ? "--run" :
		    "listening");
	if (options->background && (options->stdio || options->run ||
	    options->exit_with_parent))
		return options_complain(&serve_command,
		    "--fork leaves what --stdio, --run and --exit-with-parent "
		    "belong to");
	if (options->run && !options->run[0])
		return options_complain(&serve_command,
		    "--run needs a command");
	return 0;
}

static int
check_options(struct serve_options *options)
{
	int exit_code = check_company(options);

	if (!exit_code)
		exit_code = check_access(options);
	if (exit_code)
		return exit_code;
	for (unsigned i = 0; i < options->listen.count; i++)
		if (!serve_listen_valid(options->listen.list[i]))
			return options_complain(&serve_command,
			    "--listen %s: this takes unix:PATH, "
			    "tcp:ADDR:PORT or vsock:PORT",
			    options->listen.list[i]);
	if (options->ready_fd >= 0 &&
	    fcntl((int)options->ready_fd, F_GETFD) < 0)
		return options_complain(&serve_command,
		    "--ready-fd %lld: this descriptor is not open",
		    (long long)options->ready_fd);
	if (options->discard == IMAGE_DISCARD_NO_UNREF &&
	    options->source.format == IMAGE_RAW)
		return options_complain(&serve_command,
		    "--discard no-unref is for qcow2; nothing in a raw image "
		    "loses its place, so use unmap");
	if (options->detect_zeroes == IMAGE_DETECT_UNMAP &&
	    options->discard == IMAGE_DISCARD_IGNORE)
		return options_complain(&serve_command,
		    "--detect-zeroes unmap gives room back, which --discard "
		    "ignore forbids; use on");
	if (options->source.force_share && !options->read_only)
		return options_complain(&serve_command,
		    "--force-share is only safe read-only; add -r");
	if (options->allow_resize && options->read_only)
		return options_complain(&serve_command,
		    "--allow-resize is for what can be written; leave out -r");
	if (options->source.snapshot && !options->read_only)
		return options_complain(&serve_command,
		    "--snapshot is served read-only; add -r");
	if (options->description &&
	    strlen(options->description) > NBD_NAME_BYTES_MAX)
		return options_complain(&serve_command,
		    "--description is longer than %d bytes",
		    NBD_NAME_BYTES_MAX);
	return 0;
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
	exit_code = check_options(options);
	if (!exit_code)
		exit_code = check_images(options, argc - first, argv + first);
	if (!exit_code)
		exit_code = check_tls(options);
	if (exit_code)
		serve_options_free(options);
	return exit_code;
}
