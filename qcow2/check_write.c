/* SPDX-License-Identifier: MIT */
/*
 * Writing to the file that is checked: only for a repair.
 */
#include <inttypes.h>
#include <string.h>
#include "qcow2/check_internal.h"
#include "runtime/file.h"

/* Autoclear features that a repair keeps as they are. */
#define AUTOCLEAR_KEPT (HEADER_BITMAPS | HEADER_DATA_FILE_RAW)

co_fn static int
write_raw(struct check *check, const void *data, size_t bytes, uint64_t host,
    const char *what)
{
	int err = check_stop(check);

	if (err)
		return err;
	err = file_pwrite(check->file, data, bytes, host, 0);
	if (!err)
		return 0;
	return error_set(check->error, err, "cannot write %s of %s at 0x%"
	    PRIx64 ": %s", what, check->name, host, strerror(-err));
}

/* O7: what says that nobody else has written is gone before anything else. */
co_fn static int
clear_autoclear(struct check *check)
{
	uint64_t autoclear = check->header.autoclear & AUTOCLEAR_KEPT;
	struct header_patch patch = header_patch_autoclear(autoclear);
	int err;

	if (check->header.version < 3 ||
	    check->header.autoclear == autoclear)
		return 0;
	err = write_raw(check, patch.data, patch.bytes, patch.offset,
	    "the header");
	if (err)
		return err;
	check->header.autoclear = autoclear;
	return check_sync(check);
}

co_fn static int
begin_writing(struct check *check)
{
	int err = check->has_written ? 0 : clear_autoclear(check);

	if (!err)
		check->has_written = true;
	return err;
}

co_fn int
check_write(struct check *check, const void *data, size_t bytes,
    uint64_t host, const char *what)
{
	int err = begin_writing(check);

	return err ? err : write_raw(check, data, bytes, host, what);
}

co_fn int
check_lengthen(struct check *check, uint64_t bytes)
{
	int err = check_stop(check);

	if (!err)
		err = begin_writing(check);
	if (err)
		return err;
	err = file_truncate(check->file, bytes);
	if (err)
		return error_set(check->error, err, "cannot make %s longer: "
		    "%s", check->name, strerror(-err));
	return check_sync(check);
}

co_fn int
check_sync(struct check *check)
{
	int err = file_fdatasync(check->file);

	if (!err)
		return 0;
	return error_set(check->error, err, "cannot make the repair of %s "
	    "stable: %s", check->name, strerror(-err));
}
