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
	[NBD_CMD_RESIZE] = {
		.name = "RESIZE",
		.offered_by = NBD_FLAG_SEND_RESIZE,
		.writes = true,
	},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* Why a request is refused; error is NBD_SUCCESS if it is not. */
struct refusal {
	uint32_t error;
	const char *why;
};

static const struct refusal none;

static struct refusal
refuse(uint32_t error, const char *why)
{
	return (struct refusal){ error, why };
}

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

/* The flags that this command may have, from this client. */
static uint16_t
flags_allowed(const struct command *command,
	const struct nbd_request *request, const struct nbd_terms *terms)
{
	uint16_t flags;

	flags = (command->flags | NBD_CMD_FLAG_FUA) & flags_offered(terms);
	if (request->extended && (request->type == NBD_CMD_WRITE ||
	    (request->type == NBD_CMD_BLOCK_STATUS &&
	    terms->transmission_flags & NBD_FLAG_BLOCK_STATUS_PAYLOAD)))
		flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
	return flags;
}

/* Whether the client may send this command with these flags at all. */
static struct refusal
check_command(const struct command *command,
	const struct nbd_request *request, const struct nbd_terms *terms)
{
	if (command->writes && terms->transmission_flags & NBD_FLAG_READ_ONLY)
		return refuse(NBD_EPERM, "the export is read-only");
	if (command->offered_by & ~terms->transmission_flags)
		return refuse(NBD_EINVAL, "this command was not offered");
	if (request->flags == 0)
		return none;
	if (request->flags & ~flags_allowed(command, request, terms))
		return refuse(NBD_EINVAL, "it has flags that do not go with "
			"it, or were not offered");
	return none;
}

/* The range leaves the export. */
static struct refusal
refuse_range(const struct command *command, const struct nbd_request *request,
	const struct nbd_terms *terms)
{
	if (request->offset <= terms->former_bytes &&
	    request->length <= terms->former_bytes - request->offset)
		return refuse(NBD_ENOSPC,
			"it is past the end, since the export was shortened");
	return refuse(command->past_end, "it is past the end of the export");
}

static struct refusal
check_range(const struct command *command, const struct nbd_request *request,
	const struct nbd_terms *terms)
{
	/* offset + length could wrap; this cannot. */
	if (request->offset > terms->export_bytes ||
	    request->length > terms->export_bytes - request->offset)
		return refuse_range(command, request, terms);
	if ((request->offset | request->length) & (terms->block_bytes_min - 1))
		return refuse(NBD_EINVAL, "it is not aligned to the export's "
			"minimum block size");
	return none;
}

/* Only payloads are limited: a TRIM of 4 GiB is everyday business. */
static struct refusal
check_payload(const struct nbd_request *request, const struct nbd_terms *terms)
{
	static const char why[] = "it is longer than 32 MiB";

	if (request->length <= NBD_PAYLOAD_BYTES_MAX)
		return none;
	if (request->type == NBD_CMD_WRITE)
		return refuse(NBD_EINVAL, why);
	/* Clients that never heard of DF need not know EOVERFLOW. */
	if (request->type == NBD_CMD_READ)
		return refuse(terms->structured_replies ? NBD_EOVERFLOW :
			NBD_EINVAL, why);
	return none;
}

/* What of a request is no range of the export. */
static struct refusal
check_fields(const struct nbd_request *request, const struct nbd_terms *terms)
{
	switch (request->type) {
	case NBD_CMD_FLUSH:
		if (request->offset || request->length)
			return refuse(NBD_EINVAL,
				"its offset and length must be 0");
		break;
	case NBD_CMD_RESIZE:
		if (request->length)
			return refuse(NBD_EINVAL, "its length must be 0; the "
				"new size goes into the offset");
		break;
	case NBD_CMD_BLOCK_STATUS:
		if (!terms->contexts)
			return refuse(NBD_EINVAL,
				"no metadata context was selected");
		/* There could not be the one extent that there must. */
		if (request->length == 0)
			return refuse(NBD_EINVAL, "its length is 0");
		break;
	}
	return none;
}

static struct refusal
check_choice(const struct nbd_request *request)
{
	if (request->length < NBD_STATUS_CHOICE_BYTES(1) ||
	    request->length > NBD_STATUS_CHOICE_BYTES_MAX ||
	    request->length % 4)
		return refuse(NBD_EINVAL, "its payload must be a length and "
			"ids of contexts");
	return none;
}

static struct refusal
check(const struct nbd_request *request, const struct nbd_terms *terms)
{
	const struct command *command;
	struct refusal refusal;

	if (request->type >= COMMANDS)
		return refuse(NBD_EINVAL, "there is no such command");
	if (request->type == NBD_CMD_DISC)
		return none;
	command = &commands[request->type];
	refusal = check_command(command, request, terms);
	if (!refusal.error)
		refusal = check_fields(request, terms);
	if (refusal.error || request->type == NBD_CMD_FLUSH ||
	    request->type == NBD_CMD_RESIZE)
		return refusal;
	if (nbd_request_has_choice(request))
		return check_choice(request);
	refusal = check_range(command, request, terms);
	return refusal.error ? refusal : check_payload(request, terms);
}

uint32_t
nbd_request_check(const struct nbd_request *request,
	const struct nbd_terms *terms)
{
	return check(request, terms).error;
}

const char *
nbd_request_refusal(const struct nbd_request *request,
	const struct nbd_terms *terms)
{
	return check(request, terms).why;
}

uint32_t
nbd_request_choose(struct nbd_request *request, const struct nbd_terms *terms,
	const uint8_t *payload, uint64_t *contextsp)
{
	struct nbd_request chosen = *request;
	uint64_t contexts = 0;
	size_t at;
	uint32_t error;

	assert(nbd_request_has_choice(request));
	for (at = 8; at < request->length; at += 4) {
		uint32_t id = nbd_get_be32(payload + at);
		uint64_t context;

		if (id == 0 || id > NBD_CONTEXTS_MAX)
			return NBD_EINVAL;
		context = UINT64_C(1) << (id - 1);
		if (!(terms->contexts & context) || contexts & context)
			return NBD_EINVAL;
		contexts |= context;
	}
	chosen.length = nbd_get_be64(payload);
	chosen.flags &= (uint16_t)~NBD_CMD_FLAG_PAYLOAD_LEN;
	error = nbd_request_check(&chosen, terms);
	if (error)
		return error;
	*request = chosen;
	*contextsp = contexts;
	return NBD_SUCCESS;
}

size_t
nbd_request_put_choice(uint8_t *wire, uint64_t length, uint64_t contexts)
{
	size_t bytes = 8;
	uint32_t id;

	assert(contexts);
	nbd_put_be64(wire, length);
	for (id = 1; id <= NBD_CONTEXTS_MAX; id++) {
		if (contexts >> (id - 1) & 1) {
			nbd_put_be32(wire + bytes, id);
			bytes += 4;
		}
	}
	return bytes;
}

size_t
nbd_request_put(uint8_t *wire,
	const struct nbd_request *request)
{
	nbd_put_be32(wire, request->extended ? NBD_EXTENDED_REQUEST_MAGIC :
		NBD_REQUEST_MAGIC);
	nbd_put_be16(wire + 4, request->flags);
	nbd_put_be16(wire + 6, request->type);
	nbd_put_be64(wire + 8, request->cookie);
	nbd_put_be64(wire + 16, request->offset);
	if (request->extended) {
		nbd_put_be64(wire + 24, request->length);
	} else {
		assert(request->length <= UINT32_MAX);
		nbd_put_be32(wire + 24, (uint32_t)request->length);
	}
	return nbd_request_bytes(request->extended);
}

const char *
nbd_request_name(uint16_t type)
{
	return type < COMMANDS ? commands[type].name : "unknown";
}
