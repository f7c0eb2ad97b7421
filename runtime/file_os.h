/* SPDX-License-Identifier: MIT */
/* What only a file of the operating system has. */
#ifndef RUNTIME_FILE_OS_H
#define RUNTIME_FILE_OS_H

struct file;

/* Its descriptor, or -1 if it is none of the operating system's. */
int file_os_fd(struct file *file);

#endif
