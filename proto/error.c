/* SPDX-License-Identifier: MIT */
#include "proto/error.h"

#include <errno.h>
#include <stdbool.h>

#include "proto/nbd.h"
#include "proto/request.h"

static bool
may_answer_notsup(const struct nbd_request *request)
{
	return request->type == NBD_CMD_WRITE_ZEROES &&
		request->flags & NBD_CMD_FLAG_FAST_ZERO;
}

static bool
may_answer_overflow(const struct nbd_request *request)
{
	switch (request->type) {
	case NBD_CMD_READ:
		return request->flags & NBD_CMD_FLAG_DF;
	case NBD_CMD_WRITE_ZEROES:
		return request->length > NBD_PAYLOAD_BYTES_MAX &&
			!(request->flags & NBD_CMD_FLAG_FAST_ZERO);
	case NBD_CMD_TRIM:
	case NBD_CMD_CACHE:
	case NBD_CMD_BLOCK_STATUS:
		return request->length > NBD_PAYLOAD_BYTES_MAX;
	default:
		return false;
	}
}

uint32_t
nbd_error_from_errno(int err, const struct nbd_request *request)
{
	switch (-err) {
	case 0:
		return NBD_SUCCESS;
	case EPERM:
	case EACCES:
	case EROFS:
		return NBD_EPERM;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	case ENOTSUP:
		return may_answer_notsup(request) ? NBD_ENOTSUP : NBD_EINVAL;
	case EOVERFLOW:
		return may_answer_overflow(request) ?
			NBD_EOVERFLOW : NBD_EINVAL;
	/*
	 * The storage failed, or what lies on it is damaged.  So did we, for
	 * lack of memory; a server is asked not to say that.
	 */
	case EIO:
	case EBADMSG:
	case EILSEQ:
	case ENODATA:
	case ENODEV:
	case ENOMEM:
	case ENXIO:
	case EREMOTEIO:
	case ESTALE:
	case ETIMEDOUT:
	case EUCLEAN:
		return NBD_EIO;
	default:
		return NBD_EINVAL;
	}
}

int
nbd_error_to_errno(uint32_t error)
{
	switch (error) {
	case NBD_SUCCESS:
		return 0;
	case NBD_EPERM:
		return -EPERM;
	case NBD_EIO:
		return -EIO;
	case NBD_ENOMEM:
		return -ENOMEM;
	case NBD_ENOSPC:
		return -ENOSPC;
	case NBD_EOVERFLOW:
		return -EOVERFLOW;
	case NBD_ENOTSUP:
		return -ENOTSUP;
	case NBD_ESHUTDOWN:
		return -ESHUTDOWN;
	default:
		return -EINVAL;
	}
}

const char *
nbd_error_name(uint32_t error)
{
	switch (error) {
	case NBD_SUCCESS:
		return "success";
	case NBD_EPERM:
		return "EPERM";
	case NBD_EIO:
		return "EIO";
	case NBD_ENOMEM:
		return "ENOMEM";
	case NBD_EINVAL:
		return "EINVAL";
	case NBD_ENOSPC:
		return "ENOSPC";
	case NBD_EOVERFLOW:
		return "EOVERFLOW";
	case NBD_ENOTSUP:
		return "ENOTSUP";
	case NBD_ESHUTDOWN:
		return "ESHUTDOWN";
	default:
		return "unknown";
	}
}
