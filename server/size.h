/* SPDX-License-Identifier: MIT */
/*
 * Sizes as people type and read them; suffixes are powers of 1024.
 */
#ifndef SERVER_SIZE_H
#define SERVER_SIZE_H

#include <stdint.h>
#include <stdio.h>

/*
 * "65536", "64k", "1.5G", "2 TiB": bytes into *bytesp.  -EINVAL if it is no
 * size, -ERANGE if it does not fit 63 bits.
 */
int size_parse(const char *text, int64_t *bytesp);

#define SIZE_TEXT_BYTES 32

/* "1 GiB", "1.5 MiB", "12 B": three digits, rounded. */
const char *size_print(char text[SIZE_TEXT_BYTES], uint64_t bytes);

/* A line of a listing: what it is the size of, and that in both ways. */
void size_print_row(FILE *out, const char *what, uint64_t bytes);

#endif
