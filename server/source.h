/* SPDX-License-Identifier: MIT */
/*
 * The image that a command only reads, with its chain: options that several
 * commands have in common.
 *
 * A command has SOURCE_OPTIONS in its table, and KEY_OPTIONS if it reads data,
 * and a struct source_arguments in the struct that these fill, which begins as
 * SOURCE_ARGUMENTS_DEFAULT.
 */
#ifndef SERVER_SOURCE_H
#define SERVER_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include "qcow2/image.h"
#include "server/key.h"
#include "server/options.h"

struct source_arguments {
	int format;			/* enum image_format */
	int backing_format;		/* -1: not said */
	bool force_share;
	const char *snapshot;		/* or NULL */
	struct option_texts backing_dirs;
	struct key_options keys;
};

#define SOURCE_ARGUMENTS_DEFAULT { \
	.format = IMAGE_QCOW2, .backing_format = -1, \
}

/* The words of the formats, in the order of enum image_format. */
extern const char *const source_formats[];

/* The lines of a table of options; what is "SRC", or what help calls it. */
#define SOURCE_OPTIONS(type, member, what) \
	{ "format", 'f', OPTION_CHOICE, "qcow2|raw", \
	  "what " what " is (qcow2); never guessed", \
	  .offset = offsetof(type, member.format), \
	  .choices = source_formats }, \
	{ "snapshot", 'l', OPTION_TEXT, "NAME", \
	  "read this snapshot of " what, \
	  .offset = offsetof(type, member.snapshot) }, \
	{ "force-share", 'U', OPTION_FLAG, NULL, \
	  "read although a writer may change it", \
	  .offset = offsetof(type, member.force_share) }, \
	{ "source-backing-format", 0, OPTION_CHOICE, "qcow2|raw", \
	  "what the backing file of " what " is, if it is not said", \
	  .offset = offsetof(type, member.backing_format), \
	  .choices = source_formats }, \
	{ "backing-dir", 0, OPTION_TEXTS, "DIR", \
	  "backing files may lie here, repeatable", \
	  .offset = offsetof(type, member.backing_dirs) }

/* For reading; shares the memory of arguments and keys. */
struct image_options source_image_options(
    const struct source_arguments *arguments, const struct key_ring *keys,
    unsigned loops);

#endif
