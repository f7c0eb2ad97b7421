/* SPDX-License-Identifier: MIT */
#include "server/serve_check.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include "proto/nbd.h"
#include "qcow2/image.h"
#include "server/commands.h"
#include "server/serve_listen.h"
#include "server/serve_options.h"
#include "server/socket_access.h"

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

int
serve_check_options(struct serve_options *options)
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

/* ---- TLS, and who may use which export ---- */

static bool
has_name(const struct serve_options *options, const char *name)
{
	for (unsigned i = 0; i < options->images_count; i++)
		if (!strcmp(options->names[i], name))
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

int
serve_check_tls(struct serve_options *options)
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
