/* SPDX-License-Identifier: MIT */
/*
 * The directory of --tls: a server's certificate and key, and who says who its
 * clients are.  The names of the files are in certificate.h.
 */
#ifndef SERVER_TLS_DIRECTORY_H
#define SERVER_TLS_DIRECTORY_H

#include <stdbool.h>
#include <openssl/ssl.h>
#include "runtime/error.h"

/*
 * Loads them into ssl; with verify_clients also the authorities and, if there
 * is one, their list of revoked certificates.  -errno, and error says which
 * file does not fit, why, and what to type.
 */
int tls_directory_load(const char *directory, bool verify_clients,
    SSL_CTX *ssl, struct error *error);

#endif
