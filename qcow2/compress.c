/* SPDX-License-Identifier: MIT */
#include "qcow2/compress.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <zstd_errors.h>
#include "qcow2/codec.h"
#include "qcow2/noise.h"

/*
 * QEMU inflates with a window of 4 KiB, so no distance may be longer; that
 * leaves libdeflate out, whose window is always 32 KiB.  The minus sign means
 * no zlib header.
 */
#define WINDOW_BITS	(-12)
#define MEMORY_LEVEL	9	/* the most, and the fastest */

static int
compress_deflate(struct codec *codec, const void *source,
    size_t source_bytes, void *target, size_t target_bytes, size_t *streamp)
{
	z_stream *stream = &codec->deflate;
	int result;

	if (noise_is_all(source, source_bytes))
		return -E2BIG;
	if (!codec->deflate_ready) {
		if (deflateInit2(stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED,
		    WINDOW_BITS, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
			return -ENOMEM;
		codec->deflate_ready = true;
	}
	result = deflateReset(stream);
	assert(result == Z_OK);
	stream->next_in = (Bytef *)(uintptr_t)source;
	stream->avail_in = (uInt)source_bytes;
	stream->next_out = target;
	stream->avail_out = (uInt)target_bytes;
	if (deflate(stream, Z_FINISH) != Z_STREAM_END)
		return -E2BIG;
	*streamp = target_bytes - stream->avail_out;
	return 0;
}

static int
compress_zstd(struct codec *codec, const void *source, size_t source_bytes,
    void *target, size_t target_bytes, size_t *streamp)
{
	size_t got;

	if (!codec->zstd_deflate)
		codec->zstd_deflate = ZSTD_createCCtx();
	if (!codec->zstd_deflate)
		return -ENOMEM;
	got = ZSTD_compressCCtx(codec->zstd_deflate, target, target_bytes,
	    source, source_bytes, ZSTD_CLEVEL_DEFAULT);
	if (ZSTD_getErrorCode(got) == ZSTD_error_memory_allocation)
		return -ENOMEM;
	if (ZSTD_isError(got))
		return -E2BIG;
	*streamp = got;
	return 0;
}

int
compress_cluster(enum compression compression, const void *source,
    size_t cluster_bytes, void *target, size_t *streamp)
{
	size_t target_bytes = cluster_bytes - 1;
	struct codec *codec = codec_get();

	assert(cluster_bytes > 1 && cluster_bytes <= UINT32_MAX);
	if (!codec)
		return -ENOMEM;
	switch (compression) {
	case COMPRESSION_DEFLATE:
		return compress_deflate(codec, source, cluster_bytes, target,
		    target_bytes, streamp);
	case COMPRESSION_ZSTD:
		return compress_zstd(codec, source, cluster_bytes, target,
		    target_bytes, streamp);
	}
	assert(!"a compression type");
	return -EIO;
}
