/* SPDX-License-Identifier: MIT */
/*
 * What `qnbd serve` was asked to do.
 */
#ifndef SERVER_SERVE_OPTIONS_H
#define SERVER_SERVE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include "runtime/listener.h"
#include "server/allow.h"
#include "server/options.h"
#include "server/source.h"

/* Numbers are -1 where nothing was said. */
struct serve_options {
	struct option_texts listen;
	struct option_texts unix_paths;
	const char *socket_mode;
	const char *socket_owner;
	struct listener_access socket_access;	/* what these two say */
	const char *bind;
	int64_t port;
	const char *export_name;
	const char *description;
	struct source_arguments source;
	bool read_only;
	bool refuse_bitmaps;
	int discard;		/* enum image_discard */
	int detect_zeroes;	/* enum image_detect_zeroes */
	bool allow_resize;
	int64_t threads;
	int io;			/* enum loop_engine */
	int64_t metadata_cache_bytes;
	int64_t connections_max;
	int64_t export_connections_max;
	int64_t memory_bytes;
	int64_t handshake_s;
	int64_t send_s;
	int64_t dead_peer_s;
	bool insecure_plaintext;
	bool stdio;
	const char *run;
	bool exit_with_parent;
	bool print_uri;
	int64_t ready_fd;
	bool verbose;
	bool background;
	const char *pid_file;

	const char *tls_directory;
	const char *tls_psk_file;
	bool tls_no_verify;
	struct option_texts tls_optional;	/* names of exports */
	struct option_texts allow_texts;
	struct allow_list allow;	/* the same, parsed */

	/* The images, in order, and their names (an array of as many). */
	char **images;
	char **names;
	unsigned images_count;
};

extern const struct option_spec serve_specs[];

/*
 * Fills options from the command line; 0, or as options_parse() returns.  On
 * success it ends with serve_options_free().  argv is written to, and used.
 */
int serve_options_parse(const struct command *command, int argc, char **argv,
    struct serve_options *options);
void serve_options_free(struct serve_options *options);

/* Whether clients may, or have to, start TLS. */
static inline bool
serve_has_tls(const struct serve_options *options)
{
	return options->tls_directory || options->tls_psk_file;
}

/* Whether the export of that name is served without TLS, too. */
bool serve_allows_plain(const struct serve_options *options,
    const char *export_name);

#endif
