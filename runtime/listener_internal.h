/* SPDX-License-Identifier: MIT */
/*
 * What the files that make listeners share.
 */
#ifndef RUNTIME_LISTENER_INTERNAL_H
#define RUNTIME_LISTENER_INTERNAL_H

#include "runtime/listener.h"

/* A new listener at the end of list that owns fd; NULL without memory. */
struct listener *listener_append(struct listener **list, int fd);

/*
 * Fills what a listening TCP or unix socket's own address tells: kind, name,
 * address, port, path, is_loopback.  0 or -errno.
 */
int listener_describe(struct listener *listener);

#endif
