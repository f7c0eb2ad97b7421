/* SPDX-License-Identifier: MIT */
#include "qcow2/compress.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

/*
 * QEMU inflates with a window of 4 KiB, so no distance may be longer; that
 * leaves libdeflate out, whose window is always 32 KiB.  The minus sign means
 * no zlib header.
 */
#define WINDOW_BITS	(-12)
#define MEMORY_LEVEL	9	/* the most, and the fastest */

static int
compress_deflate(const void *source, size_t source_bytes, void *target,
    size_t target_bytes, size_t *streamp)
{
	z_stream stream = {
		.next_in = (Bytef *)(uintptr_t)source,
		.avail_in = (uInt)source_bytes,
		.next_out = target, .avail_out = (uInt)target_bytes,
	};
	int result;

	if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED,
	    WINDOW_BITS, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	result = deflate(&stream, Z_FINISH);
	deflateEnd(&stream);
	if (result != Z_STREAM_END)
		return -E2BIG;
	*streamp = target_bytes - stream.avail_out;
	return 0;
}

static int
compress_zstd(const void *source, size_t source_bytes, void *target,
    size_t target_bytes, size_t *streamp)
{
	ZSTD_CCtx *context = ZSTD_createCCtx();
	size_t got;

	if (!context)
		return -ENOMEM;
	got = ZSTD_compressCCtx(context, target, target_bytes, source,
	    source_bytes, ZSTD_CLEVEL_DEFAULT);
	ZSTD_freeCCtx(context);
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

	assert(cluster_bytes > 1 && cluster_bytes <= UINT32_MAX);
	switch (compression) {
	case COMPRESSION_DEFLATE:
		return compress_deflate(source, cluster_bytes, target,
		    target_bytes, streamp);
	case COMPRESSION_ZSTD:
		return compress_zstd(source, cluster_bytes, target,
		    target_bytes, streamp);
	}
	assert(!"a compression type");
	return -EIO;
}
