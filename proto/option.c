/* SPDX-License-Identifier: MIT */
#include "proto/option.h"

#include <assert.h>
#include <errno.h>

#include "proto/wire.h"

/* What is left of the data of an option while it is being parsed. */
struct rest {
	const uint8_t *wire;
	size_t bytes;
};

static int
take_be16(struct rest *rest, uint16_t *value)
{
	if (rest->bytes < 2)
		return -EINVAL;
	*value = nbd_get_be16(rest->wire);
	rest->wire += 2;
	rest->bytes -= 2;
	return 0;
}

static int
take_be32(struct rest *rest, uint32_t *value)
{
	if (rest->bytes < 4)
		return -EINVAL;
	*value = nbd_get_be32(rest->wire);
	rest->wire += 4;
	rest->bytes -= 4;
	return 0;
}

/* A string with its length of 32 bits before it. */
static int
take_text(struct rest *rest, struct nbd_text *text)
{
	uint32_t bytes;
	int err;

	err = take_be32(rest, &bytes);
	if (err)
		return err;
	if (bytes > rest->bytes)
		return -EINVAL;
	err = nbd_text_parse(rest->wire, bytes, text);
	if (err)
		return err;
	rest->wire += bytes;
	rest->bytes -= bytes;
	return 0;
}

int
nbd_option_parse(const uint8_t wire[static NBD_OPTION_HEADER_BYTES],
	struct nbd_option *option)
{
	uint32_t data_bytes = nbd_get_be32(wire + 12);

	if (nbd_get_be64(wire) != NBD_OPTION_MAGIC)
		return -EBADMSG;
	if (data_bytes > NBD_OPTION_BYTES_MAX)
		return -EMSGSIZE;
	option->type = nbd_get_be32(wire + 8);
	option->data_bytes = data_bytes;
	return 0;
}

int
nbd_option_parse_export_name(const uint8_t *data, size_t data_bytes,
	struct nbd_text *name)
{
	return nbd_text_parse(data, data_bytes, name);
}

int
nbd_option_parse_go(const uint8_t *data, size_t data_bytes,
	struct nbd_option_go *go)
{
	struct rest rest = { data, data_bytes };
	struct nbd_text name;
	uint32_t wanted = 0;
	uint16_t info, count;
	int err;

	err = take_text(&rest, &name);
	if (err)
		return err;
	err = take_be16(&rest, &count);
	if (err)
		return err;
	if (rest.bytes != 2 * (size_t)count)
		return -EINVAL;
	while (take_be16(&rest, &info) == 0) {
		if (info <= NBD_INFO_BLOCK_SIZE)
			wanted |= UINT32_C(1) << info;
	}
	go->name = name;
	go->wanted = wanted;
	return 0;
}

int
nbd_option_parse_meta(const uint8_t *data, size_t data_bytes,
	struct nbd_option_meta *meta)
{
	struct rest rest = { data, data_bytes };
	struct nbd_text name, query;
	const uint8_t *first;
	uint32_t count, index;
	int err;

	err = take_text(&rest, &name);
	if (err)
		return err;
	err = take_be32(&rest, &count);
	if (err)
		return err;
	/* Each has at least its length, so a huge count ends soon. */
	first = rest.wire;
	for (index = 0; index < count; index++) {
		err = take_text(&rest, &query);
		if (err)
			return err;
	}
	if (rest.bytes > 0)
		return -EINVAL;
	meta->name = name;
	meta->queries = count;
	meta->next = first;
	return 0;
}

bool
nbd_option_next_query(struct nbd_option_meta *meta, struct nbd_text *query)
{
	if (meta->queries == 0)
		return false;
	query->bytes = nbd_get_be32(meta->next);
	query->start = (const char *)meta->next + 4;
	meta->next += 4 + query->bytes;
	meta->queries--;
	return true;
}

/*
 * Writes the header, now that the data behind it is complete.  Returns the
 * bytes of both.
 */
static size_t
put_header(uint8_t *wire, uint32_t type, const uint8_t *end)
{
	size_t data_bytes = (size_t)(end - wire) - NBD_OPTION_HEADER_BYTES;

	nbd_put_be64(wire, NBD_OPTION_MAGIC);
	nbd_put_be32(wire + 8, type);
	nbd_put_be32(wire + 12, (uint32_t)data_bytes);
	return NBD_OPTION_HEADER_BYTES + data_bytes;
}

/* Writes a string with its length before it; returns where that ends. */
static uint8_t *
put_text(uint8_t *wire, struct nbd_text text)
{
	nbd_put_be32(wire, (uint32_t)text.bytes);
	return wire + 4 + nbd_text_put(wire + 4, text);
}

size_t
nbd_option_put(uint8_t wire[static NBD_OPTION_HEADER_BYTES], uint32_t type)
{
	return put_header(wire, type, wire + NBD_OPTION_HEADER_BYTES);
}

size_t
nbd_option_put_export_name(uint8_t *wire, struct nbd_text name)
{
	uint8_t *end = wire + NBD_OPTION_HEADER_BYTES;

	end += nbd_text_put(end, name);
	return put_header(wire, NBD_OPT_EXPORT_NAME, end);
}

size_t
nbd_option_put_go(uint8_t *wire, uint32_t type, struct nbd_text name,
	const uint16_t *infos, uint16_t info_count)
{
	uint8_t *end = wire + NBD_OPTION_HEADER_BYTES;
	uint16_t index;

	assert(type == NBD_OPT_INFO || type == NBD_OPT_GO);
	end = put_text(end, name);
	nbd_put_be16(end, info_count);
	end += 2;
	for (index = 0; index < info_count; index++) {
		nbd_put_be16(end, infos[index]);
		end += 2;
	}
	return put_header(wire, type, end);
}

size_t
nbd_option_put_meta(uint8_t *wire, uint32_t type, struct nbd_text name,
	const struct nbd_text *queries, uint32_t query_count)
{
	uint8_t *end = wire + NBD_OPTION_HEADER_BYTES;
	uint32_t index;

	assert(type == NBD_OPT_LIST_META_CONTEXT ||
		type == NBD_OPT_SET_META_CONTEXT);
	end = put_text(end, name);
	nbd_put_be32(end, query_count);
	end += 4;
	for (index = 0; index < query_count; index++)
		end = put_text(end, queries[index]);
	return put_header(wire, type, end);
}

const char *
nbd_option_name(uint32_t type)
{
	switch (type) {
	case NBD_OPT_EXPORT_NAME:
		return "EXPORT_NAME";
	case NBD_OPT_ABORT:
		return "ABORT";
	case NBD_OPT_LIST:
		return "LIST";
	case NBD_OPT_STARTTLS:
		return "STARTTLS";
	case NBD_OPT_INFO:
		return "INFO";
	case NBD_OPT_GO:
		return "GO";
	case NBD_OPT_STRUCTURED_REPLY:
		return "STRUCTURED_REPLY";
	case NBD_OPT_LIST_META_CONTEXT:
		return "LIST_META_CONTEXT";
	case NBD_OPT_SET_META_CONTEXT:
		return "SET_META_CONTEXT";
	case NBD_OPT_EXTENDED_HEADERS:
		return "EXTENDED_HEADERS";
	default:
		return "unknown";
	}
}
