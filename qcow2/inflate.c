/* SPDX-License-Identifier: MIT */
/*
 * libdeflate is some three times as fast as zlib but refuses what zlib takes:
 * a stream that is cut once the output is full, or one that would go on.  So
 * whatever it refuses is tried again with zlib, which has the last word.
 *
 * zstd frames are decompressed in one piece each: then the output is the
 * window, and a frame that asks for a window of 128 MiB gets nothing.
 */
#include "qcow2/inflate.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include "qcow2/codec.h"

/* Distances up to 32 KiB; the minus sign means no zlib header. */
#define WINDOW_BITS	(-15)

static int
inflate_by_zlib(struct codec *codec, const void *source,
    size_t source_bytes, void *target, size_t target_bytes)
{
	z_stream *stream = &codec->inflate;
	int result;

	if (!codec->inflate_ready) {
		if (inflateInit2(stream, WINDOW_BITS) != Z_OK)
			return -ENOMEM;
		codec->inflate_ready = true;
	} else if (inflateReset(stream) != Z_OK) {
		return -EIO;
	}
	stream->next_in = (Bytef *)(uintptr_t)source;
	stream->avail_in = (uInt)source_bytes;
	stream->next_out = target;
	stream->avail_out = (uInt)target_bytes;
	result = inflate(stream, Z_FINISH);
	if (result == Z_MEM_ERROR)
		return -ENOMEM;
	/* Z_BUF_ERROR: the output is full, or the input is used up. */
	if (result != Z_STREAM_END && result != Z_BUF_ERROR)
		return -EIO;
	return stream->avail_out == 0 ? 0 : -EIO;
}

static int
inflate_deflate(struct codec *codec, const void *source,
    size_t source_bytes, void *target, size_t target_bytes)
{
	enum libdeflate_result result;

	if (!codec->fast_inflate)
		codec->fast_inflate = libdeflate_alloc_decompressor();
	if (!codec->fast_inflate)
		return -ENOMEM;
	/* Without a place for the length, exactly target_bytes is a success. */
	result = libdeflate_deflate_decompress(codec->fast_inflate, source,
	    source_bytes, target, target_bytes, NULL);
	if (result == LIBDEFLATE_SUCCESS)
		return 0;
	return inflate_by_zlib(codec, source, source_bytes, target,
	    target_bytes);
}

static int
inflate_zstd(struct codec *codec, const void *source,
    size_t source_bytes, void *target, size_t target_bytes)
{
	const char *in = source;
	char *out = target;
	size_t frame_bytes, got;

	if (!codec->zstd_inflate)
		codec->zstd_inflate = ZSTD_createDCtx();
	if (!codec->zstd_inflate)
		return -ENOMEM;
	/* A frame takes some input, so this ends; it may give no output. */
	while (target_bytes > 0) {
		frame_bytes = ZSTD_findFrameCompressedSize(in, source_bytes);
		if (ZSTD_isError(frame_bytes) || frame_bytes == 0)
			return -EIO;
		assert(frame_bytes <= source_bytes);
		got = ZSTD_decompressDCtx(codec->zstd_inflate, out,
		    target_bytes, in, frame_bytes);
		if (ZSTD_isError(got))
			return -EIO;
		in += frame_bytes;
		source_bytes -= frame_bytes;
		out += got;
		target_bytes -= got;
	}
	return 0;
}

int
inflate_cluster(enum compression compression, const void *source,
    size_t source_bytes, void *target, size_t cluster_bytes)
{
	struct codec *codec = codec_get();

	assert(source_bytes <= UINT32_MAX && cluster_bytes <= UINT32_MAX);
	if (!codec)
		return -ENOMEM;
	switch (compression) {
	case COMPRESSION_DEFLATE:
		return inflate_deflate(codec, source, source_bytes, target,
		    cluster_bytes);
	case COMPRESSION_ZSTD:
		return inflate_zstd(codec, source, source_bytes, target,
		    cluster_bytes);
	}
	assert(!"a compression type");
	return -EIO;
}
