/* SPDX-License-Identifier: MIT */
/* The key of the encrypted images that tests make; scripts know it, too. */
#ifndef TESTS_KEY_H
#define TESTS_KEY_H

#include "qcow2/image.h"

static const struct image_key test_key = { "the key of tests", 16 };

/* Where the header says how an image is encrypted, and that it is with AES. */
#define CRYPT_METHOD_OFFSET	32
#define CRYPT_METHOD_AES	1

#endif
