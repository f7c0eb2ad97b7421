/* SPDX-License-Identifier: MIT */
/*
 * Damage to an image, of the kinds that can be repaired: wrong refcounts and
 * flags, leaks, tables of refcounts that are lost, misplaced or shared,
 * snapshots without what version 3 has, the dirty and the corrupt bit.
 */
#ifndef TESTS_CRASH_INFLICT_H
#define TESTS_CRASH_INFLICT_H

#include <stddef.h>
#include <stdint.h>

struct file;

/*
 * Does to file, a simulated one that is a clone of sound, what seed says, and
 * says so in text.
 */
void inflict(struct file *file, struct file *sound, uint64_t seed, char *text,
    size_t text_bytes);

#endif
