/* SPDX-License-Identifier: MIT */
/*
 * A random load on four connections, held against a model in memory.
 *
 *	random_load URI MODEL SEED OPERATIONS [keep]
 *
 * MODEL is a raw file with the disk's content at the start; it is brought to
 * what the disk must hold at the end.  Requests in flight never overlap unless
 * both read, so every read has one right answer; they do share clusters, L2
 * slices and refcount blocks, over all connections.  "keep": a trim may leave
 * the content as it is (version 2 images with a backing file).
 *
 * Guards against: lost or misplaced writes, copy-on-write of the wrong bytes,
 * clusters handed out twice, stale data behind zeroed and trimmed ranges.
 */
#include <err.h>
#include <inttypes.h>
#include <libnbd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECTIONS 4
#define SLOTS 16	/* requests in flight on each */
#define LENGTH_MAX (1024 * 1024)

enum kind { READ, WRITE, ZERO, TRIM, FLUSH, KINDS };

struct slot {
	bool busy;
	enum kind kind;
	uint64_t offset;
	size_t length;
	char *data;
	int64_t cookie;
};

static struct nbd_handle *connections[CONNECTIONS];
static struct slot slots[CONNECTIONS][SLOTS];
static char *model;
static uint64_t size;
static bool trim_keeps;
static uint64_t random_state;

static uint64_t
random_bits(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static uint64_t
below(uint64_t limit)
{
	return random_bits() % limit;
}

/* Small and large, aligned to all sorts of things and to nothing. */
static void
choose_range(struct slot *slot)
{
	static const unsigned aligns[] = {1, 512, 4096, 65536};
	unsigned align = aligns[below(4)];
	uint64_t length = 1 + below(1ull << (9 + below(12)));
	uint64_t span = below(4) ? size : size / 16 + 1;

	length = (length + align - 1) / align * align;
	if (length > LENGTH_MAX)
		length = LENGTH_MAX;
	slot->offset = below(span) / align * align;
	if (slot->offset >= size)
		slot->offset = 0;
	if (length > size - slot->offset)
		length = size - slot->offset;
	slot->length = length;
}

static bool
conflicts(const struct slot *a, const struct slot *b)
{
	if (!b->busy || a == b || a->kind == FLUSH || b->kind == FLUSH)
		return false;
	if (a->kind == READ && b->kind == READ)
		return false;
	return a->offset < b->offset + b->length &&
	    b->offset < a->offset + a->length;
}

static bool
conflicts_with_any(const struct slot *slot)
{
	for (int i = 0; i < CONNECTIONS; i++)
		for (int j = 0; j < SLOTS; j++)
			if (conflicts(slot, &slots[i][j]))
				return true;
	return false;
}

static void
submit(struct nbd_handle *nbd, struct slot *slot)
{
	uint32_t fua = below(16) == 0 ? LIBNBD_CMD_FLAG_FUA : 0;
	uint32_t no_hole = below(2) ? LIBNBD_CMD_FLAG_NO_HOLE : 0;

	switch (slot->kind) {
	case READ:
		slot->cookie = nbd_aio_pread(nbd, slot->data, slot->length,
		    slot->offset, NBD_NULL_COMPLETION, 0);
		break;
	case WRITE:
		for (size_t i = 0; i < slot->length; i++)
			slot->data[i] = (char)(random_bits() >> 32);
		slot->cookie = nbd_aio_pwrite(nbd, slot->data, slot->length,
		    slot->offset, NBD_NULL_COMPLETION, fua);
		break;
	case ZERO:
		slot->cookie = nbd_aio_zero(nbd, slot->length, slot->offset,
		    NBD_NULL_COMPLETION, fua | no_hole);
		break;
	case TRIM:
		slot->cookie = nbd_aio_trim(nbd, slot->length, slot->offset,
		    NBD_NULL_COMPLETION, fua);
		break;
	default:
		slot->cookie = nbd_aio_flush(nbd, NBD_NULL_COMPLETION, 0);
		break;
	}
	if (slot->cookie < 0)
		errx(1, "cannot submit: %s", nbd_get_error());
	slot->busy = true;
}

static void
start(struct nbd_handle *nbd, struct slot *slot)
{
	static const enum kind kinds[] = {
		READ, READ, READ, READ, WRITE, WRITE, WRITE, WRITE, WRITE,
		ZERO, ZERO, TRIM, TRIM, FLUSH,
	};

	slot->kind = kinds[below(sizeof(kinds) / sizeof(kinds[0]))];
	choose_range(slot);
	if (!conflicts_with_any(slot))
		submit(nbd, slot);
}

static void
compare(const struct slot *slot)
{
	const char *expected = model + slot->offset;

	if (!memcmp(slot->data, expected, slot->length))
		return;
	for (size_t i = 0; i < slot->length; i++)
		if (slot->data[i] != expected[i])
			errx(1, "read of %zu at %" PRIu64 ": byte %" PRIu64
			    " is 0x%02x, not 0x%02x", slot->length,
			    slot->offset, slot->offset + i,
			    (unsigned char)slot->data[i],
			    (unsigned char)expected[i]);
}

/*
 * A trim frees whole clusters inside it and leaves the rest: ask what it did.
 * Whatever is not zeros now must be what it was.
 */
static void
learn_trim(struct nbd_handle *nbd, struct slot *slot)
{
	char *expected = model + slot->offset;

	if (nbd_pread(nbd, slot->data, slot->length, slot->offset, 0))
		errx(1, "%s", nbd_get_error());
	for (size_t i = 0; i < slot->length; i++) {
		if (slot->data[i] == expected[i])
			continue;
		if (slot->data[i] || trim_keeps)
			errx(1, "after a trim of %zu at %" PRIu64
			    " byte %" PRIu64 " is 0x%02x", slot->length,
			    slot->offset, slot->offset + i,
			    (unsigned char)slot->data[i]);
		expected[i] = 0;
	}
}

static void
finish(struct nbd_handle *nbd, struct slot *slot)
{
	switch (slot->kind) {
	case READ:
		compare(slot);
		break;
	case WRITE:
		memcpy(model + slot->offset, slot->data, slot->length);
		break;
	case ZERO:
		memset(model + slot->offset, 0, slot->length);
		break;
	case TRIM:
		learn_trim(nbd, slot);
		break;
	default:
		break;
	}
	slot->busy = false;
}

/* Collects answers that are there already; how many. */
static unsigned
collect(void)
{
	unsigned ended = 0;

	for (int i = 0; i < CONNECTIONS; i++) {
		for (int j = 0; j < SLOTS; j++) {
			struct slot *slot = &slots[i][j];
			int result;

			if (!slot->busy)
				continue;
			result = nbd_aio_command_completed(connections[i],
			    slot->cookie);
			if (result < 0)
				errx(1, "request of kind %d, %zu at %" PRIu64
				    ": %s", slot->kind, slot->length,
				    slot->offset, nbd_get_error());
			if (result == 0)
				continue;
			finish(connections[i], slot);
			ended++;
		}
	}
	return ended;
}

/* Lets the sockets work. */
static void
work(void)
{
	struct pollfd fds[CONNECTIONS];

	for (int i = 0; i < CONNECTIONS; i++) {
		unsigned direction =
		    nbd_aio_get_direction(connections[i]);

		fds[i].fd = nbd_aio_get_fd(connections[i]);
		fds[i].events = 0;
		if (direction & LIBNBD_AIO_DIRECTION_READ)
			fds[i].events |= POLLIN;
		if (direction & LIBNBD_AIO_DIRECTION_WRITE)
			fds[i].events |= POLLOUT;
	}
	if (poll(fds, CONNECTIONS, 60000) <= 0)
		errx(1, "no answer for a minute");
	for (int i = 0; i < CONNECTIONS; i++) {
		struct nbd_handle *nbd = connections[i];
		int result = 0;

		if (fds[i].revents & (POLLIN | POLLHUP | POLLERR))
			result = nbd_aio_notify_read(nbd);
		else if (fds[i].revents & POLLOUT)
			result = nbd_aio_notify_write(nbd);
		if (result < 0)
			errx(1, "%s", nbd_get_error());
	}
}

static bool
any_busy(void)
{
	for (int i = 0; i < CONNECTIONS; i++)
		for (int j = 0; j < SLOTS; j++)
			if (slots[i][j].busy)
				return true;
	return false;
}

static void
run(uint64_t operations)
{
	uint64_t ended = 0;

	while (ended < operations || any_busy()) {
		uint64_t now;

		for (int i = 0; i < CONNECTIONS; i++)
			for (int j = 0; j < SLOTS; j++)
				if (!slots[i][j].busy && ended < operations)
					start(connections[i], &slots[i][j]);
		/* A trim is looked into, which may bring other answers in. */
		now = collect();
		ended += now;
		if (now == 0 && any_busy())
			work();
	}
}

/* Every byte over the last connection, after all that. */
static void
read_all(void)
{
	struct slot *slot = &slots[0][0];

	slot->kind = READ;
	for (uint64_t offset = 0; offset < size; offset += slot->length) {
		slot->offset = offset;
		slot->length = size - offset < LENGTH_MAX ? size - offset :
		    LENGTH_MAX;
		if (nbd_pread(connections[CONNECTIONS - 1], slot->data,
		    slot->length, offset, 0))
			errx(1, "%s", nbd_get_error());
		compare(slot);
	}
}

int
main(int argc, char **argv)
{
	FILE *file;

	if (argc < 5)
		errx(64, "usage: random_load URI MODEL SEED OPERATIONS [keep]");
	random_state = strtoull(argv[3], NULL, 10) * 2654435761u +
	    88172645463325252ull;
	trim_keeps = argc > 5;
	for (int i = 0; i < CONNECTIONS; i++) {
		connections[i] = nbd_create();
		/* Of certificates, where there is TLS. */
		if (!connections[i] ||
		    nbd_set_uri_allow_local_file(connections[i], true) ||
		    nbd_connect_uri(connections[i], argv[1]))
			errx(1, "%s", nbd_get_error());
		for (int j = 0; j < SLOTS; j++)
			slots[i][j].data = malloc(LENGTH_MAX);
	}
	size = (uint64_t)nbd_get_size(connections[0]);
	model = malloc(size);
	file = fopen(argv[2], "r+b");
	if (!file || fread(model, 1, size, file) != size)
		err(1, "%s (%" PRIu64 " bytes)", argv[2], size);
	run(strtoull(argv[4], NULL, 10));
	read_all();
	rewind(file);
	if (fwrite(model, 1, size, file) != size || fclose(file))
		err(1, "%s", argv[2]);
	for (int i = 0; i < CONNECTIONS; i++)
		nbd_shutdown(connections[i], 0);
	return 0;
}
