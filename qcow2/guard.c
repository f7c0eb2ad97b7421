/* SPDX-License-Identifier: MIT */
#include "qcow2/guard.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "qcow2/internal.h"
#include "runtime/log.h"

/*
 * Writes the bits with some set and others cleared, stably; by the one who
 * holds features_writing, so that nobody overwrites what others have set.
 */
co_fn static int
write_bits(struct image *image, uint64_t set, uint64_t clear)
{
	uint64_t bits = (image->header.incompatible | set) & ~clear;
	struct header_patch patch = header_patch_incompatible(bits);
	int err = file_pwrite(image->file, patch.data, patch.bytes,
	    patch.offset, 0);

	if (err)
		return err;
	err = file_fdatasync(image->file);
	if (err)
		image_fail(image, "fdatasync of the header failed", err);
	else
		image->header.incompatible = bits;
	return err;
}

/* The one write that is made to a failed image. */
co_fn static void
set_corrupt_bit(struct image *image)
{
	int err;

	if (image->header.version < 3)
		return;
	co_mutex_lock(&image->features_writing);
	err = write_bits(image, HEADER_CORRUPT, 0);
	co_mutex_unlock(&image->monitor, &image->features_writing);
	if (err)
		log_error("cannot mark it as corrupt: %s file=%s",
		    strerror(-err), image->path);
}

int
guard_corrupt(struct image *image, const char *format, ...)
{
	char why[256];
	va_list arguments;

	if (!image->writable || image->corrupt)
		return -EIO;
	image->corrupt = true;
	/* The barrier writes nothing from here on. */
	image->failed = true;
	va_start(arguments, format);
	vsnprintf(why, sizeof(why), format, arguments);
	va_end(arguments);
	log_error("the image is corrupt: %s; no writes are accepted until it "
	    "is repaired (qnbd check --repair all), and what was not flushed "
	    "is lost file=%s", why, image->path);
	set_corrupt_bit(image);
	return -EIO;
}

int
guard_new(struct image *image, uint64_t host, uint64_t bytes)
{
	const char *table = metadata_find(&image->metadata, host, bytes);

	if (!table)
		return 0;
	return guard_corrupt(image, "%s lies in the %llu bytes at 0x%llx, "
	    "which have no user", table, (unsigned long long)bytes,
	    (unsigned long long)host);
}

int
guard_table(struct image *image, enum metadata_kind kind, uint64_t host,
    uint64_t bytes)
{
	if (image->failed)
		return -EIO;
	if (metadata_is(&image->metadata, kind, host, bytes))
		return 0;
	return guard_corrupt(image, "%llu bytes at 0x%llx are to be written "
	    "as %s, but are none", (unsigned long long)bytes,
	    (unsigned long long)host, metadata_name(kind));
}

int
guard_write_header(struct image *image, struct header_patch patch)
{
	int err = guard_table(image, METADATA_HEADER, patch.offset,
	    patch.bytes);

	return err ? err : file_pwrite(image->file, patch.data, patch.bytes,
	    patch.offset, 0);
}

int
guard_write_features(struct image *image, uint64_t set, uint64_t clear)
{
	struct header_patch patch = header_patch_incompatible(0);
	int err;

	/* First: who finds something wrong takes features_writing, too. */
	err = guard_table(image, METADATA_HEADER, patch.offset, patch.bytes);
	if (err)
		return err;
	co_mutex_lock(&image->features_writing);
	err = image->failed ? -EIO : write_bits(image, set, clear);
	co_mutex_unlock(&image->monitor, &image->features_writing);
	return err;
}
