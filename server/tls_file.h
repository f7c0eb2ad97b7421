/* SPDX-License-Identifier: MIT */
/*
 * The files of TLS, read whole: keys, certificates, lists.
 *
 * Only regular files of a limited size are read.  Anything else in their place
 * (a FIFO, a device) might let a server wait for ever that was only asked to
 * look at its files again.
 */
#ifndef SERVER_TLS_FILE_H
#define SERVER_TLS_FILE_H

#include <stddef.h>
#include <openssl/bio.h>
#include "runtime/error.h"

/* What a file may have at most: a chain of certificates, or all authorities. */
#define TLS_FILE_CERTIFICATES_BYTES_MAX ((size_t)4 << 20)
#define TLS_FILE_KEY_BYTES_MAX ((size_t)64 << 10)
/* Those of large authorities have some MiB. */
#define TLS_FILE_REVOKED_BYTES_MAX ((size_t)64 << 20)

/*
 * Reads the file at path, of at most bytes_max bytes, into memory for secrets,
 * *textp, with a zero byte behind: secret_put(*textp, *bytesp) ends it.  Warns
 * if everybody else may read it, too.  -errno, told in error.
 */
int tls_file_read(const char *path, size_t bytes_max, char **textp,
    size_t *bytesp, struct error *error);

/* The same for OpenSSL, which reads from *biop; without the warning. */
int tls_file_open(const char *path, size_t bytes_max, BIO **biop,
    struct error *error);

/* What OpenSSL had against it last, never NULL; the rest is forgotten. */
const char *tls_file_reason(void);

#endif
