/* SPDX-License-Identifier: MIT */
#include "qcow2/guard.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "qcow2/internal.h"
#include "runtime/log.h"

/* The one write that is made to a failed image. */
co_fn static void
set_corrupt_bit(struct image *image)
{
	struct header_patch patch;
	int err;

	if (image->header.version < 3)
		return;
	image->header.incompatible |= HEADER_CORRUPT;
	patch = header_patch_incompatible(image->header.incompatible);
	err = file_pwrite(image->file, patch.data, patch.bytes, patch.offset,
	    0);
	if (!err)
		err = file_fdatasync(image->file);
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
