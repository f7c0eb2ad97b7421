/* SPDX-License-Identifier: MIT */
#include "server/resize_request.h"

#include <errno.h>
#include <string.h>
#include "qcow2/image.h"
#include "qcow2/image_resize.h"
#include "runtime/log.h"
#include "server/connection.h"
#include "server/export.h"
#include "server/request.h"

static void
set_terms(struct nbd_terms *terms, uint64_t wanted_bytes,
    uint64_t size_bytes)
{
	uint64_t old_bytes = terms->export_bytes;

	/* An image may only be able to have a rounder size. */
	terms->export_bytes = wanted_bytes < size_bytes ? wanted_bytes :
	    size_bytes;
	if (terms->export_bytes < old_bytes)
		terms->former_bytes = old_bytes;
}

static const char *
why_not(int err)
{
	switch (err) {
	case -ENOTSUP:
		return "this image has one length for good; the server's log "
		    "says why";
	case -EFBIG:
		return "its clusters are too small for a disk that long";
	default:
		return NULL;
	}
}

int
resize_run(struct request *request)
{
	struct connection *connection = request->connection;
	struct export *export = connection->export;
	const struct image_resize how = {
		.size_bytes = request->wire.offset, .shrink = true,
	};
	struct error error = {0};
	char name[128];
	int err;

	if (how.size_bytes < image_size_bytes(export->image) &&
	    atomic_load(&export->connections) > 1) {
		request->why = "others use the export, so it cannot become "
		    "shorter";
		return -EPERM;
	}
	err = image_resize(export->image, &how, &error);
	atomic_store(&export->size_bytes, image_size_bytes(export->image));
	if (err) {
		log_warning("%s peer=\"%s\"", error.message,
		    connection->peer.name);
		request->why = why_not(err);
		return err;
	}
	set_terms(&connection->terms, how.size_bytes,
	    image_size_bytes(export->image));
	log_quote(name, sizeof(name), export->name,
	    (int)strlen(export->name));
	log_info("resized export=\"%s\" bytes=%llu peer=\"%s\"", name,
	    (unsigned long long)image_size_bytes(export->image),
	    connection->peer.name);
	return 0;
}
