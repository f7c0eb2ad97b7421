/* SPDX-License-Identifier: MIT */
/*
 * Files that hold keys: read into memory for secrets, with a warning if
 * everybody else may read them, too.
 */
#ifndef SERVER_TLS_FILE_H
#define SERVER_TLS_FILE_H

#include <stddef.h>
#include "runtime/error.h"

/*
 * Reads the file at path, of at most bytes_max bytes, into *textp, with a zero
 * byte behind: secret_put(*textp, *bytesp) ends it.  -errno, told in error.
 */
int tls_file_read(const char *path, size_t bytes_max, char **textp,
    size_t *bytesp, struct error *error);

#endif
