/* SPDX-License-Identifier: MIT */
#include "proto/request.h"

#include <assert.h>

/* What sets the commands apart.  FUA may go with any of them. */
struct command {
	const char *name;
	uint16_t offered_by;	/* transmission flag, 0 if always there */
	uint16_t flags;	/* may be set; those of flags_offered() as well */
	bool writes;	/* changes the export */
	uint32_t past_end;	/* the error if the range leaves the export */
};

static const struct command commands[] = {
	[NBD_CMD_READ] = {
		.name = "READ",
		.flags = NBD_CMD_FLAG_DF,
		.past_end = NBD_EINVAL,
	},
	[NBD_CMD_WRITE] = {
		.name = "WRITE",
		.writes = true,
		.past_end = NBD_ENOSPC,
	},
	[NBD_CMD_DISC] = {
		.name = "DISC",
	},
	[NBD_CMD_FLUSH] = {
		.name = "FLUSH",
		.offered_by = NBD_FLAG_SEND_FLUSH,
	},
	[NBD_CMD_TRIM] = {
		.name = "TRIM",
		.offered_by = NBD_FLAG_SEND_TRIM,
		.writes = true,
		.past_end = NBD_EINVAL,
	},
	[NBD_CMD_CACHE] = {
		.name = "CACHE",
		.offered_by = NBD_FLAG_SEND_CACHE,
		.past_end = NBD_EINVAL,
	},
	[NBD_CMD_WRITE_ZEROES] = {
		.name = "WRITE_ZEROES",
		.offered_by = NBD_FLAG_SEND_WRITE_ZEROES,
		.flags = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
		.writes = true,
		.past_end = NBD_ENOSPC,
	},
	[NBD_CMD_BLOCK_STATUS] = {
		.name = "BLOCK_STATUS",
		.flags = NBD_CMD_FLAG_REQ_ONE,
		.past_end = NBD_EINVAL,
	},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* The command flags that the handshake made known to this client. */
static uint16_t
flags_offered(const struct nbd_terms *terms)
{
	uint16_t flags = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_REQ_ONE;

	if (terms->transmission_flags & NBD_FLAG_SEND_FUA)
		flags |= NBD_CMD_FLAG_FUA;
	if (terms->transmission_flags & NBD_FLAG_SEND_FAST_ZERO)
		flags |= NBD_CMD_FLAG_FAST_ZERO;
	if (terms->structured_replies)
		flags |= NBD_CMD_FLAG_DF;
	return flags;
}

/* Whether the client may send this command with these flags at all. */
static uint32_t
check_command(const struct command *command,
	const struct nbd_request *request, const struct nbd_terms *terms)
{
	uint16_t allowed;

	if (command->writes && terms->transmission_flags & NBD_FLAG_READ_ONLY)
		return NBD_EPERM;
	if (command->offered_by & ~terms->transmission_flags)
		return NBD_EINVAL;
	if (request->flags == 0)
		return NBD_SUCCESS;
	allowed = (command->flags | NBD_CMD_FLAG_FUA) & flags_offered(terms);
	return request->flags & ~allowed ? NBD_EINVAL : NBD_SUCCESS;
}

static uint32_t
check_range(const struct command *command, const struct nbd_request *request,
	const struct nbd_terms *terms)
{
	/* offset + length could wrap; this cannot. */
	if (request->offset > terms->export_bytes ||
	    request->length > terms->export_bytes - request->offset)
		return command->past_end;
	if ((request->offset | request->length) & (terms->block_bytes_min - 1))
		return NBD_EINVAL;
	return NBD_SUCCESS;
}

/* Only payloads are limited: a TRIM of 4 GiB is everyday business. */
static uint32_t
check_payload(const struct nbd_request *request, const struct nbd_terms *terms)
{
	if (request->length <= NBD_PAYLOAD_BYTES_MAX)
		return NBD_SUCCESS;
	if (request->type == NBD_CMD_WRITE)
		return NBD_EINVAL;
	/* Clients that never heard of DF need not know EOVERFLOW. */
	if (request->type == NBD_CMD_READ)
		return terms->structured_replies ? NBD_EOVERFLOW : NBD_EINVAL;
	return NBD_SUCCESS;
}

uint32_t
nbd_request_check(const struct nbd_request *request,
	const struct nbd_terms *terms)
{
	const struct command *command;
	uint32_t error;

	if (request->type >= COMMANDS)
		return NBD_EINVAL;
	if (request->type == NBD_CMD_DISC)
		return NBD_SUCCESS;
	command = &commands[request->type];
	error = check_command(command, request, terms);
	if (error)
		return error;
	if (request->type == NBD_CMD_FLUSH)
		return request->offset || request->length ?
			NBD_EINVAL : NBD_SUCCESS;
	/* A status of nothing could not hold the one extent it must. */
	if (request->type == NBD_CMD_BLOCK_STATUS &&
	    (!terms->meta_context || request->length == 0))
		return NBD_EINVAL;
	error = check_range(command, request, terms);
	if (error)
		return error;
	return check_payload(request, terms);
}

size_t
nbd_request_put(uint8_t wire[static NBD_REQUEST_BYTES],
	const struct nbd_request *request)
{
	assert(request->length <= UINT32_MAX);
	nbd_put_be32(wire, NBD_REQUEST_MAGIC);
	nbd_put_be16(wire + 4, request->flags);
	nbd_put_be16(wire + 6, request->type);
	nbd_put_be64(wire + 8, request->cookie);
	nbd_put_be64(wire + 16, request->offset);
	nbd_put_be32(wire + 24, (uint32_t)request->length);
	return NBD_REQUEST_BYTES;
}

const char *
nbd_request_name(uint16_t type)
{
	return type < COMMANDS ? commands[type].name : "unknown";
}
