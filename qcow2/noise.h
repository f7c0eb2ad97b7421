/* SPDX-License-Identifier: MIT */
/*
 * Whether data is noise, as what was compressed or encrypted before is: then
 * there is nothing to gain from compressing it.
 *
 * A guess, made some ten times faster than deflate() fails.  Two things shrink
 * data: bytes that are more frequent than others, and sequences that come again
 * within the window.  Noise has neither, but for what chance gives it.  Where
 * this errs, a cluster is a percent or so larger than it might be.
 */
#ifndef QCOW2_NOISE_H
#define QCOW2_NOISE_H

#include <stdbool.h>
#include <stddef.h>

bool noise_is_all(const void *data, size_t bytes);

#endif
