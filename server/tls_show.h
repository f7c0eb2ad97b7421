/* SPDX-License-Identifier: MIT */
/*
 * What a directory of certificates holds, and whether it is of use: as `serve
 * --tls` and its clients would find it.
 */
#ifndef SERVER_TLS_SHOW_H
#define SERVER_TLS_SHOW_H

#include <stdbool.h>
#include "runtime/error.h"

/*
 * Prints what the files of directory say, as text or as JSON, and what is
 * wrong with them.  0; 1 if anything is; -errno if the directory has no
 * certificate that could be shown, told in *error.
 */
int tls_show(const char *directory, bool json, struct error *error);

#endif
