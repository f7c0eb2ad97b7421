/* SPDX-License-Identifier: MIT */
#include "qcow2/codec.h"

#include <pthread.h>
#include <stdlib.h>

static pthread_key_t codec_key;
static pthread_once_t codec_once = PTHREAD_ONCE_INIT;
static int codec_error;

static void
codec_free(void *arg)
{
	struct codec *codec = arg;

	libdeflate_free_decompressor(codec->fast_inflate);
	ZSTD_freeDCtx(codec->zstd_inflate);
	ZSTD_freeCCtx(codec->zstd_deflate);
	if (codec->inflate_ready)
		inflateEnd(&codec->inflate);
	if (codec->deflate_ready)
		deflateEnd(&codec->deflate);
	free(codec);
}

static void
codec_init(void)
{
	codec_error = pthread_key_create(&codec_key, codec_free);
}

struct codec *
codec_get(void)
{
	struct codec *codec;

	pthread_once(&codec_once, codec_init);
	if (codec_error)
		return NULL;
	codec = pthread_getspecific(codec_key);
	if (codec)
		return codec;
	codec = calloc(1, sizeof(*codec));
	if (codec && pthread_setspecific(codec_key, codec)) {
		free(codec);
		return NULL;
	}
	return codec;
}
