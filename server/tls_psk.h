/* SPDX-License-Identifier: MIT */
/*
 * Pre-shared keys: who may come with which key, from a file as psktool writes
 * it.
 *
 *	USER:HEXKEY
 *
 * one a line; a user that begins with "#" is in hexadecimal behind it.  The
 * keys are in memory of their own (runtime/secret.h).
 */
#ifndef SERVER_TLS_PSK_H
#define SERVER_TLS_PSK_H

#include <stddef.h>
#include <stdint.h>
#include "runtime/error.h"

/* Of the whole file; some 8,000 users. */
#define TLS_PSK_FILE_BYTES_MAX (1u << 20)

#define TLS_PSK_KEY_BYTES_MIN 16
#define TLS_PSK_KEY_BYTES_MAX 256
#define TLS_PSK_USER_BYTES_MAX 128

struct tls_psk_list;

/* Reads the file at path; -errno, and error says what is wrong where. */
int tls_psk_load(const char *path, struct tls_psk_list **listp,
    struct error *error);

/* Wipes the keys; NULL is fine. */
void tls_psk_free(struct tls_psk_list *list);

/* The key of that user, which stays until the list goes; NULL: no such user. */
const uint8_t *tls_psk_find(const struct tls_psk_list *list, const char *user,
    size_t *key_bytesp);

#endif
