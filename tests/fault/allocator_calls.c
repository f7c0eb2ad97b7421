/* SPDX-License-Identifier: MIT */
/*
 * What is called in place of the C library's functions by libraries in which
 * allocator.symbols was replaced.
 */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include "tests/fault/allocator.h"

void *allocator_malloc(size_t bytes);
void *allocator_calloc(size_t count, size_t bytes);
void *allocator_realloc(void *data, size_t bytes);
void *allocator_aligned_alloc(size_t alignment, size_t bytes);
char *allocator_strdup(const char *text);
char *allocator_strndup(const char *text, size_t length);
EVP_CIPHER_CTX *allocator_cipher_context(void);

void *
allocator_malloc(size_t bytes)
{
	return allocator_fails() ? NULL : malloc(bytes);
}

void *
allocator_calloc(size_t count, size_t bytes)
{
	return allocator_fails() ? NULL : calloc(count, bytes);
}

void *
allocator_realloc(void *data, size_t bytes)
{
	return allocator_fails() ? NULL : realloc(data, bytes);
}

void *
allocator_aligned_alloc(size_t alignment, size_t bytes)
{
	return allocator_fails() ? NULL : aligned_alloc(alignment, bytes);
}

char *
allocator_strdup(const char *text)
{
	return allocator_fails() ? NULL : strdup(text);
}

char *
allocator_strndup(const char *text, size_t length)
{
	return allocator_fails() ? NULL : strndup(text, length);
}

EVP_CIPHER_CTX *
allocator_cipher_context(void)
{
	return allocator_fails() ? NULL : EVP_CIPHER_CTX_new();
}
