/* SPDX-License-Identifier: MIT */
#include "qcow2/encrypted.h"

#include <errno.h>
#include <string.h>
#include "qcow2/l2.h"
#include "runtime/buf.h"

/* ---- keys ---- */

static int
refuse_without_key(const struct image *image, struct error *error)
{
	error_set(error, -ENOKEY, "%s is encrypted with AES, and no key is "
	    "given", image->path);
	error_hint(error, "say where its passphrase is: --key-file FILE, "
	    "--key-fd N or --key-credential NAME");
	return -ENOKEY;
}

static int
refuse_keys(const struct image *top, unsigned given, unsigned encrypted,
    struct error *error)
{
	if (encrypted == 0)
		error_set(error, -EINVAL, "a key is given, but %s is not "
		    "encrypted", top->path);
	else
		error_set(error, -EINVAL, "%u keys are given, but only %u of "
		    "the files of %s %s encrypted", given, encrypted,
		    top->path, encrypted == 1 ? "is" : "are");
	error_hint(error, "give one key for each encrypted file, from the "
	    "image down, or one for all of them");
	return -EINVAL;
}

int
encrypted_take_keys(struct image *top, const struct image_options *options,
    struct error *error)
{
	unsigned given = options->keys_count, encrypted = 0;

	if (options->no_data)
		return 0;
	for (struct image *image = top; image; image = image->backing) {
		const struct image_key *key;
		int err;

		if (!image->encrypted)
			continue;
		if (given == 0)
			return refuse_without_key(image, error);
		/* The last one is for all that are further down. */
		key = &options->keys[encrypted < given ? encrypted :
		    given - 1];
		encrypted++;
		err = aes_create(key->text, key->bytes, &image->aes);
		if (err)
			return error_set(error, err, "cannot decrypt %s: %s",
			    image->path, err == -ENOTSUP ?
			    "OpenSSL has no AES-128-CBC here" :
			    "out of memory");
	}
	if (given > encrypted && !options->keys_spare)
		return refuse_keys(top, given, encrypted, error);
	return 0;
}

/* ---- reading ---- */

/* The sectors around a range of bytes. */
struct span {
	uint64_t guest;
	uint64_t before;	/* bytes of them before the range */
	uint64_t length;
};

static struct span
sectors_around(uint64_t guest, uint64_t length)
{
	uint64_t before = guest % AES_SECTOR_BYTES;
	uint64_t mask = AES_SECTOR_BYTES - 1;

	return (struct span){ .guest = guest - before, .before = before,
	    .length = (before + length + mask) & ~mask };
}

/* Whole sectors, into where they belong. */
co_fn static int
read_sectors(struct image *image, char *target, uint64_t guest,
    uint64_t length, uint64_t host)
{
	int err = file_pread(image->file, target, length, host);

	return err ? err : aes_decrypt(image->aes, guest, target, target,
	    length);
}

co_fn static int
read_any(struct image *image, char *target, uint64_t guest, uint64_t length,
    uint64_t host)
{
	struct span span = sectors_around(guest, length);
	char *buffer;
	int err;

	if (span.length == length)
		return read_sectors(image, target, guest, length, host);
	buffer = buf_get(span.length);
	if (!buffer)
		return -ENOMEM;
	err = read_sectors(image, buffer, span.guest, span.length,
	    host - span.before);
	if (!err)
		memcpy(target, buffer + span.before, length);
	buf_put(buffer, span.length);
	return err;
}

/* The same with the sectors claimed. */
co_fn static int
read_claimed(struct image *image, char *target, uint64_t guest,
    uint64_t length, uint64_t host)
{
	struct claim claim;
	int err;

	monitor_enter(&image->monitor);
	claim_take_sectors(image, &claim, guest, length, true);
	monitor_leave(&image->monitor);
	err = read_any(image, target, guest, length, host);
	monitor_enter(&image->monitor);
	claim_release(image, &claim);
	monitor_leave(&image->monitor);
	return err;
}

/*
 * A cluster that is this image's own may be written in place.  One that is
 * shared may become its own at any time, when a snapshot is deleted.
 */
int
encrypted_read(struct image *image, char *target, uint64_t guest,
    const struct l2_run *run)
{
	uint64_t done = 0;
	int err = image->aes ? 0 : -EIO;

	while (done < run->length && !err) {
		size_t part = encrypted_step(guest + done,
		    run->length - done);

		err = image->writable ?
		    read_claimed(image, target + done, guest + done, part,
		    run->host + done) :
		    read_any(image, target + done, guest + done, part,
		    run->host + done);
		done += part;
	}
	return err;
}

/* ---- writing ---- */

/* Fills in the first and the last sector, as far as they are to be kept. */
co_fn static int
read_kept(struct image *image, char *buffer, const struct span *span,
    size_t length, uint64_t host)
{
	uint64_t last = span->length - AES_SECTOR_BYTES;
	bool keeps_end = span->before + length < span->length;
	int err = 0;

	if (span->before > 0 || (keeps_end && last == 0))
		err = read_sectors(image, buffer, span->guest,
		    AES_SECTOR_BYTES, host);
	if (!err && keeps_end && last > 0)
		err = read_sectors(image, buffer + last, span->guest + last,
		    AES_SECTOR_BYTES, host + last);
	return err;
}

int
encrypted_seal(struct image *image, uint64_t guest, const void *data,
    size_t length, uint64_t host, struct encrypted_sectors *sectors)
{
	struct span span = sectors_around(guest, length);
	const void *source = data;
	char *buffer;
	int err = 0;

	if (!image->aes)
		return -EIO;
	buffer = buf_get(span.length);
	if (!buffer)
		return -ENOMEM;
	host -= span.before;
	if (span.length != length) {
		err = read_kept(image, buffer, &span, length, host);
		memcpy(buffer + span.before, data, length);
		source = buffer;
	}
	if (!err)
		err = aes_encrypt(image->aes, span.guest, source, buffer,
		    span.length);
	if (err) {
		buf_put(buffer, span.length);
		return err;
	}
	*sectors = (struct encrypted_sectors){ buffer, span.length, host };
	return 0;
}

int
encrypted_write_new(struct image *image, uint64_t guest, const void *data,
    size_t length, uint64_t host)
{
	uint64_t before = guest & (image->cluster_bytes - 1);
	uint64_t behind = -(before + length) & (image->cluster_bytes - 1);
	size_t bytes = before + length + behind;
	struct reader reader = {
		.guest = guest - before, .inside = image,
	};
	int err;

	if (!image->aes)
		return -EIO;
	reader.data = buf_get(bytes);
	if (!reader.data)
		return -ENOMEM;
	err = image_read_layer(image, &reader, reader.guest, before);
	if (!err)
		err = image_read_layer(image, &reader, guest + length,
		    behind);
	memcpy(reader.data + before, data, length);
	if (!err)
		err = aes_encrypt(image->aes, reader.guest, reader.data,
		    reader.data, bytes);
	if (!err) {
		err = file_pwrite(image->file, reader.data, bytes, host, 0);
		atomic_store(&image->unsynced, true);
	}
	buf_put(reader.data, bytes);
	return err;
}
