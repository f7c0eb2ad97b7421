/* SPDX-License-Identifier: MIT */
/*
 * The options of `qnbd create -o`, with the names and values of qemu-img:
 * compat, cluster_size, refcount_bits, lazy_refcounts, preallocation,
 * compression_type, encryption, encrypt.format.  Of the others that it has, a
 * message says why they are not taken, or what to type for them.
 */
#ifndef SERVER_CREATE_OPTIONS_H
#define SERVER_CREATE_OPTIONS_H

#include "qcow2/create.h"
#include "server/options.h"

/* What holds where nothing is said. */
extern const struct create_options create_options_default;

/*
 * Takes texts of "name=value,name=value"; the last one given rules.  0, or
 * EXIT_USAGE after saying what is wrong.  Whether the values go together is not
 * judged.
 */
int create_options_parse(const struct command *command,
    const struct option_texts *texts, struct create_options *options);

#endif
