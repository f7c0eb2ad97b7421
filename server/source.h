/* SPDX-License-Identifier: MIT */
/*
 * The image that a command is given, with its chain: options that commands have
 * in common.
 *
 * A command has a struct source_arguments in the struct that its options fill,
 * which begins as SOURCE_ARGUMENTS_DEFAULT.  In its table it has SOURCE_OPTIONS
 * if all it does with the image is to read it, or else what it takes of the
 * others; and KEY_OPTIONS if it reads data.
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

/*
 * Lines of a table of options.  They fill a field of the struct type, or its
 * member, a struct source_arguments.  what is "SRC", or what help calls the
 * image.
 */
#define SOURCE_FORMAT_OPTION(type, field, what) \
	{ "format", 'f', OPTION_CHOICE, "qcow2|raw", \
	  "what " what " is (qcow2); never guessed", \
	  .offset = offsetof(type, field), \
	  .choices = source_formats }

#define SOURCE_BACKING_DIR_OPTION(type, field) \
	{ "backing-dir", 0, OPTION_TEXTS, "DIR", \
	  "backing files may lie here, repeatable", \
	  .offset = offsetof(type, field) }

/* The first is called prefix "backing-format"; of is "", or " of SRC". */
#define SOURCE_BACKING_OPTIONS(type, member, prefix, of) \
	{ prefix "backing-format", 0, OPTION_CHOICE, "qcow2|raw", \
	  "what the backing file" of " is, if it is not said", \
	  .offset = offsetof(type, member.backing_format), \
	  .choices = source_formats }, \
	SOURCE_BACKING_DIR_OPTION(type, member.backing_dirs)

#define SOURCE_OPTIONS(type, member, what) \
	SOURCE_FORMAT_OPTION(type, member.format, what), \
	{ "snapshot", 'l', OPTION_TEXT, "NAME", \
	  "read this snapshot of " what, \
	  .offset = offsetof(type, member.snapshot) }, \
	{ "force-share", 'U', OPTION_FLAG, NULL, \
	  "read although a writer may change it", \
	  .offset = offsetof(type, member.force_share) }, \
	SOURCE_BACKING_OPTIONS(type, member, "source-", " of " what)

/* For reading; shares the memory of arguments and keys (or NULL: none). */
struct image_options source_image_options(
    const struct source_arguments *arguments, const struct key_ring *keys,
    unsigned loops);

#endif
