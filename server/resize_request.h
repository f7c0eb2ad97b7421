/* SPDX-License-Identifier: MIT */
/*
 * RESIZE, a draft of the protocol: a client changes the length of its export.
 */
#ifndef SERVER_RESIZE_REQUEST_H
#define SERVER_RESIZE_REQUEST_H

#include "runtime/co.h"

struct request;

/*
 * On success this client may use the new length, and those that come later;
 * others keep what they were told, and nobody but this one may be there when
 * the export becomes shorter.  -errno, and request->why where that is not
 * enough.
 */
co_fn int resize_run(struct request *request);

#endif
