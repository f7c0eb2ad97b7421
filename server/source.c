/* SPDX-License-Identifier: MIT */
#include "server/source.h"

const char *const source_formats[] = {
	[IMAGE_QCOW2] = "qcow2", [IMAGE_RAW] = "raw", NULL,
};

struct image_options
source_image_options(const struct source_arguments *arguments,
    const struct key_ring *keys, unsigned loops)
{
	int told = arguments->backing_format;

	return (struct image_options){
		.format = (enum image_format)arguments->format,
		.force_share = arguments->force_share,
		.snapshot = arguments->snapshot,
		.backing_format_told = told >= 0,
		.backing_format = told >= 0 ? (enum image_format)told :
		    IMAGE_QCOW2,
		.backing_dirs = arguments->backing_dirs.list,
		.backing_dirs_count = arguments->backing_dirs.count,
		.keys = keys ? keys->list : NULL,
		.keys_count = keys ? keys->count : 0,
		.loops = loops,
	};
}
