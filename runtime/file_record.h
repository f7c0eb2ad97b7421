/* SPDX-License-Identifier: MIT */
/*
 * A file that passes everything on to another and records it.
 *
 * Each try is recorded as the back end saw it: what file_pwritev() finishes in
 * two writes are two entries.  Write data is copied when it is submitted, and
 * compared when it completes: a buffer must not change under I/O.
 */
#ifndef RUNTIME_FILE_RECORD_H
#define RUNTIME_FILE_RECORD_H

#include "runtime/file.h"
#include "runtime/record.h"

/*
 * Wraps inner, which belongs to the new file from then on.  log stays the
 * caller's and outlives the file.  source is what the entries carry: the
 * caller's number for the disk, the same when it is opened again.  with_reads
 * also records reads (without their data).
 */
int file_record_open(struct record_log *log, unsigned source,
    struct file *inner, bool with_reads, struct file **filep);

/* Writes whose buffer changed between submission and completion; a bug. */
uint64_t file_record_changed(struct file *file);

#endif
