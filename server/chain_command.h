/* SPDX-License-Identifier: MIT */
/*
 * What the commands that change chains have in common: how backing files are
 * found, which keys they take, and how they run.
 */
#ifndef SERVER_CHAIN_COMMAND_H
#define SERVER_CHAIN_COMMAND_H

#include "qcow2/image.h"
#include "qcow2/image_chain.h"
#include "server/key.h"
#include "server/options.h"
#include "server/progress.h"
#include "server/source.h"

/* At the start of the command's own struct. */
struct chain_options {
	struct option_texts backing_dirs;
	struct key_options keys;
	int64_t progress_fd;		/* 0: not said */
};

#define CHAIN_OPTION_SPECS \
	SOURCE_BACKING_DIR_OPTION(struct chain_options, backing_dirs), \
	PROGRESS_OPTION(struct chain_options, progress_fd), \
	KEY_OPTIONS(struct chain_options, keys)

/* For reading a qcow2 image; shares the memory of both. */
struct image_options chain_image_options(const struct chain_options *options,
    const struct key_ring *keys);

/*
 * Runs fn(arg) as command_run() does, with the keys that the options name; the
 * exit code, which tells of *errp, set by fn, too.
 */
int chain_run(const struct command *command,
    const struct chain_options *options, struct key_ring *keys,
    void (*fn)(void *arg), void *arg, const int *errp,
    const struct error *error);

#endif
