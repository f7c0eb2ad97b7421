/* SPDX-License-Identifier: MIT */
/*
 * libdeflate is some three times as fast as zlib but refuses what zlib takes:
 * a stream that is cut once the output is full, or one that would go on.  So
 * whatever it refuses is tried again with zlib, which has the last word.
 *
 * zstd frames are decompressed in one piece each: then the output is the
 * window, and a frame that asks for a window of 128 MiB gets nothing.
 */
#include <assert.h>
#include <errno.h>
#include <libdeflate.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>
#include "qcow2/inflate.h"

/* Distances up to 32 KiB; the minus sign means no zlib header. */
#define WINDOW_BITS	(-15)

/* What one thread keeps; each is made when it is first needed. */
struct contexts {
	struct libdeflate_decompressor *deflate;
	ZSTD_DCtx *zstd;
	z_stream zlib;
	bool zlib_ready;
};

static pthread_key_t contexts_key;
static pthread_once_t contexts_once = PTHREAD_ONCE_INIT;
static int contexts_error;

static void
contexts_free(void *arg)
{
	struct contexts *contexts = arg;

	libdeflate_free_decompressor(contexts->deflate);
	ZSTD_freeDCtx(contexts->zstd);
	if (contexts->zlib_ready)
		inflateEnd(&contexts->zlib);
	free(contexts);
}

static void
contexts_init(void)
{
	contexts_error = -pthread_key_create(&contexts_key, contexts_free);
}

/* The calling thread's, or NULL. */
static struct contexts *
contexts_get(void)
{
	struct contexts *contexts;

	pthread_once(&contexts_once, contexts_init);
	if (contexts_error)
		return NULL;
	contexts = pthread_getspecific(contexts_key);
	if (contexts)
		return contexts;
	contexts = calloc(1, sizeof(*contexts));
	if (contexts && pthread_setspecific(contexts_key, contexts)) {
		free(contexts);
		return NULL;
	}
	return contexts;
}

static int
inflate_by_zlib(struct contexts *contexts, const void *source,
    size_t source_bytes, void *target, size_t target_bytes)
{
	z_stream *stream = &contexts->zlib;
	int result;

	if (!contexts->zlib_ready) {
		if (inflateInit2(stream, WINDOW_BITS) != Z_OK)
			return -ENOMEM;
		contexts->zlib_ready = true;
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
inflate_deflate(struct contexts *contexts, const void *source,
    size_t source_bytes, void *target, size_t target_bytes)
{
	enum libdeflate_result result;

	if (!contexts->deflate)
		contexts->deflate = libdeflate_alloc_decompressor();
	if (!contexts->deflate)
		return -ENOMEM;
	/* Without a place for the length, exactly target_bytes is a success. */
	result = libdeflate_deflate_decompress(contexts->deflate, source,
	    source_bytes, target, target_bytes, NULL);
	if (result == LIBDEFLATE_SUCCESS)
		return 0;
	return inflate_by_zlib(contexts, source, source_bytes, target,
	    target_bytes);
}

static int
inflate_zstd(struct contexts *contexts, const void *source,
    size_t source_bytes, void *target, size_t target_bytes)
{
	const char *in = source;
	char *out = target;
	size_t frame_bytes, got;

	if (!contexts->zstd)
		contexts->zstd = ZSTD_createDCtx();
	if (!contexts->zstd)
		return -ENOMEM;
	/* A frame takes some input, so this ends; it may give no output. */
	while (target_bytes > 0) {
		frame_bytes = ZSTD_findFrameCompressedSize(in, source_bytes);
		if (ZSTD_isError(frame_bytes) || frame_bytes == 0)
			return -EIO;
		assert(frame_bytes <= source_bytes);
		got = ZSTD_decompressDCtx(contexts->zstd, out, target_bytes,
		    in, frame_bytes);
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
	struct contexts *contexts = contexts_get();

	assert(source_bytes <= UINT32_MAX && cluster_bytes <= UINT32_MAX);
	if (!contexts)
		return -ENOMEM;
	switch (compression) {
	case COMPRESSION_DEFLATE:
		return inflate_deflate(contexts, source, source_bytes, target,
		    cluster_bytes);
	case COMPRESSION_ZSTD:
		return inflate_zstd(contexts, source, source_bytes, target,
		    cluster_bytes);
	}
	assert(!"a compression type");
	return -EIO;
}
