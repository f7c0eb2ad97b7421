/* SPDX-License-Identifier: MIT */
/*
 * Errors: between -errno, as functions here return it, and the few values
 * that a reply may carry.
 *
 * (Specification: "Error values".)
 */
#ifndef PROTO_ERROR_H
#define PROTO_ERROR_H
#include <stdint.h>
struct nbd_request;

/*
 * The error to reply with after carrying out a request gave err, which is 0
 * or -errno.  The request matters, because NBD_ENOTSUP may only answer a
 * FAST_ZERO, and NBD_EOVERFLOW a DF read or a long command without payload;
 * elsewhere they turn into NBD_EINVAL.  So does every errno that says nothing
 * about storage.
 */
uint32_t nbd_error_from_errno(int err, const struct nbd_request *request);

/* For clients: 0 or -errno; -EINVAL for a value that is not defined. */
int nbd_error_to_errno(uint32_t error);

/* For logs: "ENOSPC", or "unknown". */
const char *nbd_error_name(uint32_t error);
#endif
