/* SPDX-License-Identifier: MIT */
#include "server/chain_command.h"

#include "server/commands.h"

struct image_options
chain_image_options(const struct chain_options *options,
    const struct key_ring *keys)
{
	return (struct image_options){
		.format = IMAGE_QCOW2,
		.backing_dirs = options->backing_dirs.list,
		.backing_dirs_count = options->backing_dirs.count,
		.keys = keys->list,
		.keys_count = keys->count,
	};
}

int
chain_run(const struct command *command, const struct chain_options *options,
    struct key_ring *keys, void (*fn)(void *arg), void *arg, const int *errp,
    const struct error *error)
{
	int exit_code = key_ring_load(command, &options->keys, keys);

	if (!exit_code)
		exit_code = command_run(fn, arg);
	key_ring_free(keys);
	if (!exit_code && *errp)
		exit_code = error_print(error);
	return exit_code;
}
