/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes both sides of the handshake: option.h, option_reply.h, handshake.h.
 *
 * The first byte of the input chooses the side.  Even: the rest is what a
 * client sends after the greeting, its flags and options.  Odd: the rest is
 * what a server sends, its greeting and option replies.
 *
 * Beyond not crashing: what a parser accepts, the builders must turn into the
 * same bytes again (or, for GO, whose unknown infos are dropped, into the
 * same meaning), and no reply may be longer than stated.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "proto/handshake.h"
#include "proto/nbd.h"
#include "proto/option.h"
#include "proto/option_reply.h"
#include "tests/fuzz/input.h"

#define QUERIES_MAX (NBD_OPTION_BYTES_MAX / 4)

static bool
same_text(struct nbd_text one, struct nbd_text other)
{
	return one.bytes == other.bytes &&
		memcmp(one.start, other.start, one.bytes) == 0;
}

/* An error that quotes the client's name, as a server may send it. */
static void
quote(struct nbd_text name)
{
	static uint8_t wire[NBD_OPTION_REPLY_BYTES_MAX];
	static char message[2 * NBD_NAME_BYTES_MAX + 1];
	struct nbd_option_reply reply;
	size_t bytes;

	assert(name.bytes <= NBD_NAME_BYTES_MAX);
	memcpy(message, name.start, name.bytes);
	memcpy(message + name.bytes, name.start, name.bytes);
	message[2 * name.bytes] = '\0';
	bytes = nbd_option_reply_put_error(wire, NBD_OPT_GO,
		NBD_REP_ERR_UNKNOWN, message);
	assert(nbd_option_reply_parse(wire, &reply) == 0);
	assert(bytes == NBD_OPTION_REPLY_HEADER_BYTES + reply.data_bytes);
	assert(reply.data_bytes <= NBD_NAME_BYTES_MAX);
}

static void
try_export_name(const uint8_t *data, size_t data_bytes)
{
	static uint8_t wire[NBD_OPTION_EXPORT_NAME_BYTES_MAX];
	struct nbd_text name;
	size_t bytes;

	if (nbd_option_parse_export_name(data, data_bytes, &name))
		return;
	quote(name);
	bytes = nbd_option_put_export_name(wire, name);
	assert(bytes == NBD_OPTION_HEADER_BYTES + data_bytes);
	assert(memcmp(wire + NBD_OPTION_HEADER_BYTES, data, data_bytes) == 0);
}

static void
try_go(const uint8_t *data, size_t data_bytes)
{
	static uint8_t wire[NBD_OPTION_GO_BYTES_MAX(4)];
	uint16_t infos[4], count = 0, type;
	struct nbd_option_go go, again;
	size_t bytes;

	if (nbd_option_parse_go(data, data_bytes, &go))
		return;
	quote(go.name);
	for (type = 0; type < 4; type++) {
		if (nbd_option_go_wants(&go, type))
			infos[count++] = type;
	}
	bytes = nbd_option_put_go(wire, NBD_OPT_GO, go.name, infos, count);
	assert(bytes <= sizeof(wire));
	assert(nbd_option_parse_go(wire + NBD_OPTION_HEADER_BYTES,
		bytes - NBD_OPTION_HEADER_BYTES, &again) == 0);
	assert(same_text(go.name, again.name));
	assert(go.wanted == again.wanted);
}

static void
try_meta(const uint8_t *data, size_t data_bytes)
{
	static uint8_t wire[NBD_OPTION_HEADER_BYTES + NBD_OPTION_BYTES_MAX];
	static struct nbd_text queries[QUERIES_MAX];
	struct nbd_option_meta meta;
	uint32_t announced, count = 0;
	size_t bytes;

	if (nbd_option_parse_meta(data, data_bytes, &meta))
		return;
	announced = meta.queries;
	assert(announced <= QUERIES_MAX);
	while (nbd_option_next_query(&meta, &queries[count]))
		count++;
	assert(count == announced);
	bytes = nbd_option_put_meta(wire, NBD_OPT_SET_META_CONTEXT, meta.name,
		queries, count);
	assert(bytes == NBD_OPTION_HEADER_BYTES + data_bytes);
	assert(memcmp(wire + NBD_OPTION_HEADER_BYTES, data, data_bytes) == 0);
}

/* Each set of data goes to each parser: none may rely on the header. */
static void
try_option_data(const uint8_t *data, size_t data_bytes)
{
	try_export_name(data, data_bytes);
	try_go(data, data_bytes);
	try_meta(data, data_bytes);
}

/* False if a server would close the connection, or wait for more. */
static bool
try_option(struct input *input)
{
	struct nbd_option option;
	uint8_t *header, *data;
	int error;

	header = input_take(input, NBD_OPTION_HEADER_BYTES);
	if (!header)
		return false;
	error = nbd_option_parse(header, &option);
	free(header);
	if (error)
		return false;
	assert(option.data_bytes <= NBD_OPTION_BYTES_MAX);
	assert(*nbd_option_name(option.type));
	data = input_take(input, option.data_bytes);
	if (!data)
		return false;
	try_option_data(data, option.data_bytes);
	free(data);
	return true;
}

static void
be_server(struct input *input)
{
	const uint16_t offered = NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES;
	uint32_t flags;
	uint8_t *wire;
	int error;

	wire = input_take(input, NBD_CLIENT_FLAGS_BYTES);
	if (!wire)
		return;
	error = nbd_handshake_parse_client_flags(wire, offered, &flags);
	free(wire);
	if (error)
		return;
	assert(!(flags & ~(uint32_t)offered));
	while (try_option(input))
		continue;
}

static void
try_server_reply(const uint8_t *data, size_t data_bytes)
{
	static uint8_t wire[NBD_OPTION_REPLY_BYTES_MAX];
	static char terminated[NBD_NAME_BYTES_MAX + 1];
	struct nbd_text name, description;
	size_t bytes;

	if (nbd_option_reply_parse_server(data, data_bytes, &name,
		&description))
		return;
	memcpy(terminated, description.start, description.bytes);
	terminated[description.bytes] = '\0';
	bytes = nbd_option_reply_put_server(wire, name, terminated);
	assert(bytes == NBD_OPTION_REPLY_HEADER_BYTES + data_bytes);
	assert(memcmp(wire + NBD_OPTION_REPLY_HEADER_BYTES, data,
		data_bytes) == 0);
}

static void
try_info_reply(const uint8_t *data, size_t data_bytes)
{
	static uint8_t wire[NBD_OPTION_REPLY_BYTES_MAX];
	struct nbd_info info;
	size_t bytes;

	if (nbd_option_reply_parse_info(data, data_bytes, &info))
		return;
	switch (info.type) {
	case NBD_INFO_EXPORT:
		bytes = nbd_option_reply_put_info_export(wire, NBD_OPT_GO,
			info.export_bytes, info.transmission_flags);
		break;
	case NBD_INFO_NAME:
		bytes = nbd_option_reply_put_info_name(wire, NBD_OPT_GO,
			info.text);
		break;
	case NBD_INFO_BLOCK_SIZE:
		bytes = nbd_option_reply_put_info_block_size(wire, NBD_OPT_GO,
			&info.block_size);
		break;
	default:
		return;
	}
	assert(bytes == NBD_OPTION_REPLY_HEADER_BYTES + data_bytes);
	assert(memcmp(wire + NBD_OPTION_REPLY_HEADER_BYTES, data,
		data_bytes) == 0);
}

static void
try_meta_context_reply(const uint8_t *data, size_t data_bytes)
{
	static uint8_t wire[NBD_OPTION_REPLY_BYTES_MAX];
	struct nbd_text name;
	size_t bytes;
	uint32_t id;

	if (nbd_option_reply_parse_meta_context(data, data_bytes, &id, &name))
		return;
	bytes = nbd_option_reply_put_meta_context(wire,
		NBD_OPT_SET_META_CONTEXT, id, name);
	assert(bytes == NBD_OPTION_REPLY_HEADER_BYTES + data_bytes);
	assert(memcmp(wire + NBD_OPTION_REPLY_HEADER_BYTES, data,
		data_bytes) == 0);
}

/* False if a client would hang up, or wait for more. */
static bool
try_reply(struct input *input)
{
	struct nbd_option_reply reply;
	uint8_t *header, *data;
	int error;

	header = input_take(input, NBD_OPTION_REPLY_HEADER_BYTES);
	if (!header)
		return false;
	error = nbd_option_reply_parse(header, &reply);
	free(header);
	if (error)
		return false;
	assert(reply.data_bytes <= NBD_OPTION_REPLY_DATA_BYTES_MAX);
	assert(*nbd_option_reply_name(reply.type));
	data = input_take(input, reply.data_bytes);
	if (!data)
		return false;
	try_server_reply(data, reply.data_bytes);
	try_info_reply(data, reply.data_bytes);
	try_meta_context_reply(data, reply.data_bytes);
	free(data);
	return true;
}

static void
be_client(struct input *input)
{
	uint16_t flags;
	uint8_t *wire;
	int error;

	wire = input_take(input, NBD_GREETING_BYTES);
	if (!wire)
		return;
	error = nbd_handshake_parse_greeting(wire, &flags);
	free(wire);
	if (error)
		return;
	while (try_reply(input))
		continue;
}

int
LLVMFuzzerTestOneInput(const uint8_t *start, size_t bytes)
{
	struct input input = { start, bytes };
	uint8_t *side;

	side = input_take(&input, 1);
	if (!side)
		return 0;
	if (*side % 2 == 0)
		be_server(&input);
	else
		be_client(&input);
	free(side);
	return 0;
}
