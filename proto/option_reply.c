/* SPDX-License-Identifier: MIT */
#include "proto/option_reply.h"

#include <assert.h>
#include <errno.h>

#include "proto/wire.h"

/* Writes the header before data_bytes of data.  Returns the bytes of both. */
static size_t
put_header(uint8_t *wire, uint32_t option, uint32_t type, size_t data_bytes)
{
	assert(data_bytes <= NBD_OPTION_REPLY_DATA_BYTES_MAX);
	nbd_put_be64(wire, NBD_OPTION_REPLY_MAGIC);
	nbd_put_be32(wire + 8, option);
	nbd_put_be32(wire + 12, type);
	nbd_put_be32(wire + 16, (uint32_t)data_bytes);
	return NBD_OPTION_REPLY_HEADER_BYTES + data_bytes;
}

size_t
nbd_option_reply_put_ack(
	uint8_t wire[static NBD_OPTION_REPLY_HEADER_BYTES], uint32_t option)
{
	return put_header(wire, option, NBD_REP_ACK, 0);
}

size_t
nbd_option_reply_put_server(uint8_t *wire, struct nbd_text name,
	const char *description)
{
	uint8_t *data = wire + NBD_OPTION_REPLY_HEADER_BYTES;
	size_t data_bytes = 4;

	nbd_put_be32(data, (uint32_t)name.bytes);
	data_bytes += nbd_text_put(data + data_bytes, name);
	data_bytes += nbd_text_put(data + data_bytes,
		nbd_text_cut(nbd_text_of(description)));
	return put_header(wire, NBD_OPT_LIST, NBD_REP_SERVER, data_bytes);
}

size_t
nbd_option_reply_put_info_export(uint8_t *wire, uint32_t option,
	uint64_t export_bytes, uint16_t transmission_flags)
{
	uint8_t *data = wire + NBD_OPTION_REPLY_HEADER_BYTES;

	nbd_put_be16(data, NBD_INFO_EXPORT);
	nbd_put_be64(data + 2, export_bytes);
	nbd_put_be16(data + 10, transmission_flags);
	return put_header(wire, option, NBD_REP_INFO, 12);
}

static size_t
put_info_text(uint8_t *wire, uint32_t option, uint16_t type,
	struct nbd_text text)
{
	uint8_t *data = wire + NBD_OPTION_REPLY_HEADER_BYTES;

	nbd_put_be16(data, type);
	return put_header(wire, option, NBD_REP_INFO,
		2 + nbd_text_put(data + 2, text));
}

size_t
nbd_option_reply_put_info_name(uint8_t *wire, uint32_t option,
	struct nbd_text name)
{
	return put_info_text(wire, option, NBD_INFO_NAME, name);
}

size_t
nbd_option_reply_put_info_description(uint8_t *wire, uint32_t option,
	const char *description)
{
	return put_info_text(wire, option, NBD_INFO_DESCRIPTION,
		nbd_text_cut(nbd_text_of(description)));
}

static bool
is_power_of_2(uint32_t value)
{
	return value && !(value & (value - 1));
}

static bool
block_size_is_valid(const struct nbd_block_size *size)
{
	return is_power_of_2(size->minimum) &&
		size->minimum <= NBD_BLOCK_MINIMUM_BYTES_MAX &&
		is_power_of_2(size->preferred) &&
		size->preferred >= NBD_BLOCK_PREFERRED_BYTES_MIN &&
		size->preferred >= size->minimum &&
		size->payload_max >= size->preferred;
}

size_t
nbd_option_reply_put_info_block_size(uint8_t *wire, uint32_t option,
	const struct nbd_block_size *size)
{
	uint8_t *data = wire + NBD_OPTION_REPLY_HEADER_BYTES;

	assert(block_size_is_valid(size));
	nbd_put_be16(data, NBD_INFO_BLOCK_SIZE);
	nbd_put_be32(data + 2, size->minimum);
	nbd_put_be32(data + 6, size->preferred);
	nbd_put_be32(data + 10, size->payload_max);
	return put_header(wire, option, NBD_REP_INFO, 14);
}

size_t
nbd_option_reply_put_meta_context(uint8_t *wire, uint32_t option,
	uint32_t id, struct nbd_text name)
{
	uint8_t *data = wire + NBD_OPTION_REPLY_HEADER_BYTES;

	nbd_put_be32(data, id);
	return put_header(wire, option, NBD_REP_META_CONTEXT,
		4 + nbd_text_put(data + 4, name));
}

size_t
nbd_option_reply_put_error(uint8_t *wire, uint32_t option, uint32_t error,
	const char *message)
{
	uint8_t *data = wire + NBD_OPTION_REPLY_HEADER_BYTES;

	assert(error & NBD_REP_FLAG_ERROR);
	return put_header(wire, option, error,
		nbd_text_put(data, nbd_text_cut(nbd_text_of(message))));
}

int
nbd_option_reply_parse(
	const uint8_t wire[static NBD_OPTION_REPLY_HEADER_BYTES],
	struct nbd_option_reply *reply)
{
	uint32_t data_bytes = nbd_get_be32(wire + 16);

	if (nbd_get_be64(wire) != NBD_OPTION_REPLY_MAGIC)
		return -EBADMSG;
	if (data_bytes > NBD_OPTION_REPLY_DATA_BYTES_MAX)
		return -EMSGSIZE;
	reply->option = nbd_get_be32(wire + 8);
	reply->type = nbd_get_be32(wire + 12);
	reply->data_bytes = data_bytes;
	return 0;
}

int
nbd_option_reply_parse_server(const uint8_t *data, size_t data_bytes,
	struct nbd_text *name, struct nbd_text *description)
{
	struct nbd_text first, second;
	size_t name_bytes;
	int err;

	if (data_bytes < 4)
		return -EINVAL;
	name_bytes = nbd_get_be32(data);
	data += 4;
	data_bytes -= 4;
	if (name_bytes > data_bytes)
		return -EINVAL;
	err = nbd_text_parse(data, name_bytes, &first);
	if (err)
		return err;
	err = nbd_text_parse(data + name_bytes, data_bytes - name_bytes,
		&second);
	if (err)
		return err;
	*name = first;
	*description = second;
	return 0;
}

static int
parse_info_export(const uint8_t *data, size_t data_bytes,
	struct nbd_info *info)
{
	if (data_bytes != 12)
		return -EINVAL;
	info->export_bytes = nbd_get_be64(data + 2);
	info->transmission_flags = nbd_get_be16(data + 10);
	return 0;
}

static int
parse_info_block_size(const uint8_t *data, size_t data_bytes,
	struct nbd_info *info)
{
	struct nbd_block_size *size = &info->block_size;

	if (data_bytes != 14)
		return -EINVAL;
	size->minimum = nbd_get_be32(data + 2);
	size->preferred = nbd_get_be32(data + 6);
	size->payload_max = nbd_get_be32(data + 10);
	return block_size_is_valid(size) ? 0 : -EINVAL;
}

static int
parse_info_payload(const uint8_t *data, size_t data_bytes,
	struct nbd_info *info)
{
	switch (info->type) {
	case NBD_INFO_EXPORT:
		return parse_info_export(data, data_bytes, info);
	case NBD_INFO_NAME:
	case NBD_INFO_DESCRIPTION:
		return nbd_text_parse(data + 2, data_bytes - 2, &info->text);
	case NBD_INFO_BLOCK_SIZE:
		return parse_info_block_size(data, data_bytes, info);
	default:
		return 0;
	}
}

int
nbd_option_reply_parse_info(const uint8_t *data, size_t data_bytes,
	struct nbd_info *info)
{
	struct nbd_info parsed = { 0 };
	int err;

	if (data_bytes < 2)
		return -EINVAL;
	parsed.type = nbd_get_be16(data);
	err = parse_info_payload(data, data_bytes, &parsed);
	if (err)
		return err;
	*info = parsed;
	return 0;
}

int
nbd_option_reply_parse_meta_context(const uint8_t *data, size_t data_bytes,
	uint32_t *id, struct nbd_text *name)
{
	int err;

	if (data_bytes < 4)
		return -EINVAL;
	err = nbd_text_parse(data + 4, data_bytes - 4, name);
	if (err)
		return err;
	*id = nbd_get_be32(data);
	return 0;
}

const char *
nbd_option_reply_name(uint32_t type)
{
	switch (type) {
	case NBD_REP_ACK:
		return "ACK";
	case NBD_REP_SERVER:
		return "SERVER";
	case NBD_REP_INFO:
		return "INFO";
	case NBD_REP_META_CONTEXT:
		return "META_CONTEXT";
	case NBD_REP_ERR_UNSUP:
		return "ERR_UNSUP";
	case NBD_REP_ERR_POLICY:
		return "ERR_POLICY";
	case NBD_REP_ERR_INVALID:
		return "ERR_INVALID";
	case NBD_REP_ERR_PLATFORM:
		return "ERR_PLATFORM";
	case NBD_REP_ERR_TLS_REQD:
		return "ERR_TLS_REQD";
	case NBD_REP_ERR_UNKNOWN:
		return "ERR_UNKNOWN";
	case NBD_REP_ERR_SHUTDOWN:
		return "ERR_SHUTDOWN";
	case NBD_REP_ERR_BLOCK_SIZE_REQD:
		return "ERR_BLOCK_SIZE_REQD";
	case NBD_REP_ERR_TOO_BIG:
		return "ERR_TOO_BIG";
	case NBD_REP_ERR_EXT_HEADER_REQD:
		return "ERR_EXT_HEADER_REQD";
	default:
		return "unknown";
	}
}
