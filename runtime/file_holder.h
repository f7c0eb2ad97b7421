/* SPDX-License-Identifier: MIT */
/*
 * Who has a file open: for the message that it is locked.
 *
 * A lock of an open file description does not name its owner, so the open
 * files of all processes are looked through, as far as /proc may be read.
 */
#ifndef RUNTIME_FILE_HOLDER_H
#define RUNTIME_FILE_HOLDER_H

struct file;

#define FILE_HOLDER_BYTES 96

/*
 * Writes "qemu-nbd (pid 4711)" into target for the first other process that
 * has file open, or "another process".  Blocks; for start-up.
 */
void file_holder(const struct file *file, char target[FILE_HOLDER_BYTES]);

#endif
