/* SPDX-License-Identifier: MIT */
/*
 * The compressors and decompressors that a thread keeps until it ends, since
 * to make one costs more than to use it.  Each is made by whoever needs it
 * first.
 */
#ifndef QCOW2_CODEC_H
#define QCOW2_CODEC_H

#include <libdeflate.h>
#include <stdbool.h>
#include <zlib.h>
#include <zstd.h>

struct codec {
	struct libdeflate_decompressor *fast_inflate;
	ZSTD_DCtx *zstd_inflate;
	z_stream inflate;
	bool inflate_ready;
	z_stream deflate;
	bool deflate_ready;
	ZSTD_CCtx *zstd_deflate;
};

/* The calling thread's, or NULL: no memory. */
struct codec *codec_get(void);

#endif
