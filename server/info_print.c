/* SPDX-License-Identifier: MIT */
#include "server/info.h"

#include <string.h>
#include <time.h>
#include "runtime/log.h"
#include "server/size.h"

#define NS_PER_SECOND UINT64_C(1000000000)

static const char *
format_name(enum image_format format)
{
	return format == IMAGE_RAW ? "raw" : "qcow2";
}

static const char *
compression_name(const struct header *header)
{
	return header->compression == COMPRESSION_ZSTD ? "zstd" : "zlib";
}

/* ---- JSON, with the names and values of qemu-img ---- */

/* A name that is no UTF-8 cannot be in JSON as it is. */
static json_t *
text_json(const char *text)
{
	json_t *string = json_string(text);
	char quoted[4096];

	if (string)
		return string;
	return json_string(log_quote(quoted, sizeof(quoted), text,
	    (int)strlen(text)));
}

static json_t *
number_json(uint64_t number)
{
	return json_integer((json_int_t)number);
}

static json_t *
snapshot_json(const struct snapshot *snapshot)
{
	json_t *object = json_object();
	uint64_t clock_ns = snapshot->vm_clock_ns;

	json_object_set_new(object, "id", text_json(snapshot->id));
	json_object_set_new(object, "name", text_json(snapshot->name));
	json_object_set_new(object, "vm-state-size",
	    number_json(snapshot->vm_state_bytes));
	json_object_set_new(object, "date-sec",
	    number_json(snapshot->date_seconds));
	json_object_set_new(object, "date-nsec",
	    number_json(snapshot->date_nanoseconds));
	json_object_set_new(object, "vm-clock-sec",
	    number_json(clock_ns / NS_PER_SECOND));
	json_object_set_new(object, "vm-clock-nsec",
	    number_json(clock_ns % NS_PER_SECOND));
	if (snapshot->icount != SNAPSHOT_NO_ICOUNT)
		json_object_set_new(object, "icount",
		    number_json(snapshot->icount));
	return object;
}

json_t *
info_snapshots_to_json(const struct snapshot_table *table)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < table->count; i++)
		json_array_append_new(list, snapshot_json(&table->list[i]));
	return list;
}

static json_t *
bitmap_json(const struct bitmap *bitmap)
{
	json_t *object = json_object();
	json_t *flags = json_array();

	if (bitmap->flags & BITMAP_IN_USE)
		json_array_append_new(flags, json_string("in-use"));
	if (bitmap->flags & BITMAP_AUTO)
		json_array_append_new(flags, json_string("auto"));
	json_object_set_new(object, "flags", flags);
	json_object_set_new(object, "name", text_json(bitmap->name));
	json_object_set_new(object, "granularity",
	    number_json(UINT64_C(1) << bitmap->granularity_bits));
	return object;
}

static json_t *
specific_json(const struct info *info)
{
	const struct header *header = &info->header;
	json_t *data = json_object();

	json_object_set_new(data, "compat",
	    json_string(header->version == 2 ? "0.10" : "1.1"));
	json_object_set_new(data, "compression-type",
	    json_string(compression_name(header)));
	json_object_set_new(data, "refcount-bits",
	    number_json(UINT64_C(1) << header->refcount_order));
	if (header->version >= 3) {
		json_object_set_new(data, "lazy-refcounts", json_boolean(
		    header->compatible & HEADER_LAZY_REFCOUNTS));
		json_object_set_new(data, "corrupt", json_boolean(
		    header->incompatible & HEADER_CORRUPT));
		json_object_set_new(data, "extended-l2", json_boolean(
		    header->incompatible & HEADER_EXTENDED_L2));
	}
	if (header->crypt_method == HEADER_CRYPT_AES)
		json_object_set_new(data, "encrypt",
		    json_pack("{s:s}", "format", "aes"));
	if (info->bitmaps.count > 0) {
		json_t *bitmaps = json_array();

		for (unsigned i = 0; i < info->bitmaps.count; i++)
			json_array_append_new(bitmaps,
			    bitmap_json(&info->bitmaps.list[i]));
		json_object_set_new(data, "bitmaps", bitmaps);
	}
	return json_pack("{s:s, s:o}", "type", "qcow2", "data", data);
}

static void
add_qcow2_json(json_t *object, const struct info *info)
{
	const struct header *header = &info->header;

	json_object_set_new(object, "cluster-size",
	    number_json(header_cluster_bytes(header)));
	json_object_set_new(object, "format-specific", specific_json(info));
	if (header->backing) {
		json_object_set_new(object, "backing-filename",
		    text_json(header->backing_name));
		json_object_set_new(object, "full-backing-filename",
		    text_json(info->backing_filename));
		if (header->backing_format[0])
			json_object_set_new(object, "backing-filename-format",
			    text_json(header->backing_format));
	}
	if (info->snapshots.count > 0)
		json_object_set_new(object, "snapshots",
		    info_snapshots_to_json(&info->snapshots));
}

json_t *
info_to_json(const struct info *info)
{
	json_t *object = json_object();

	json_object_set_new(object, "filename", text_json(info->filename));
	json_object_set_new(object, "format",
	    json_string(format_name(info->format)));
	json_object_set_new(object, "virtual-size",
	    number_json(info->virtual_bytes));
	json_object_set_new(object, "actual-size",
	    number_json(info->actual_bytes));
	json_object_set_new(object, "dirty-flag", json_boolean(
	    info->header.incompatible & HEADER_DIRTY));
	if (info->header.crypt_method != HEADER_CRYPT_NONE)
		json_object_set_new(object, "encrypted", json_true());
	if (info->in_use)
		json_object_set_new(object, "in-use", json_true());
	if (info->format == IMAGE_QCOW2)
		add_qcow2_json(object, info);
	return object;
}

/* ---- for people ---- */

static void
print_text(FILE *out, const char *what, const char *text)
{
	char quoted[4096];

	fprintf(out, "%-16s %s\n", what, log_quote(quoted, sizeof(quoted),
	    text, (int)strlen(text)));
}

static void
print_state(const struct header *header, FILE *out)
{
	if (header->incompatible & HEADER_DIRTY)
		fprintf(out, "%-16s not closed cleanly: repaired when it is "
		    "next written to\n", "state");
	if (header->incompatible & HEADER_CORRUPT)
		fprintf(out, "%-16s marked corrupt: qnbd check --repair all "
		    "repairs it\n", "state");
}

void
info_print_snapshots(const struct snapshot_table *table, FILE *out)
{
	for (unsigned i = 0; i < table->count; i++) {
		const struct snapshot *snapshot = &table->list[i];
		time_t seconds = snapshot->date_seconds;
		char id[64], name[256], date[32], size[SIZE_TEXT_BYTES];
		struct tm when;

		localtime_r(&seconds, &when);
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &when);
		fprintf(out, "%-16s %s \"%s\" of %s", i ? "" : "snapshots",
		    log_quote(id, sizeof(id), snapshot->id,
		    (int)strlen(snapshot->id)),
		    log_quote(name, sizeof(name), snapshot->name,
		    (int)strlen(snapshot->name)), date);
		if (snapshot->vm_state_bytes > 0)
			fprintf(out, ", with %s of VM state",
			    size_print(size, snapshot->vm_state_bytes));
		fputc('\n', out);
	}
}

static void
print_bitmaps(const struct bitmap_directory *directory, FILE *out)
{
	for (unsigned i = 0; i < directory->count; i++) {
		const struct bitmap *bitmap = &directory->list[i];
		char name[256], size[SIZE_TEXT_BYTES];

		fprintf(out, "%-16s \"%s\" by %s%s%s\n", i ? "" : "bitmaps",
		    log_quote(name, sizeof(name), bitmap->name,
		    (int)strlen(bitmap->name)),
		    size_print(size, UINT64_C(1) << bitmap->granularity_bits),
		    bitmap->flags & BITMAP_AUTO ? ", recording" : "",
		    bitmap->flags & BITMAP_IN_USE ? ", not saved" : "");
	}
}

/* Where the first L2 table begins that the disk does not need. */
static uint64_t
vm_state_offset(const struct header *header)
{
	unsigned entry_bits = header->incompatible & HEADER_EXTENDED_L2 ? 4 :
	    3;
	uint64_t span = UINT64_C(1) << (2 * header->cluster_bits -
	    entry_bits);

	return header->size_bytes / span * span +
	    (header->size_bytes % span ? span : 0);
}

static void
print_qcow2(const struct info *info, FILE *out)
{
	const struct header *header = &info->header;

	size_print_row(out, "cluster size", header_cluster_bytes(header));
	size_print_row(out, "VM state at", vm_state_offset(header));
	fprintf(out, "%-16s %u (compat %s)\n", "version", header->version,
	    header->version == 2 ? "0.10" : "1.1");
	fprintf(out, "%-16s %s\n", "compression", compression_name(header));
	fprintf(out, "%-16s %u bits%s\n", "refcounts",
	    1u << header->refcount_order,
	    header->compatible & HEADER_LAZY_REFCOUNTS ? ", lazy" : "");
	if (header->crypt_method == HEADER_CRYPT_AES)
		fprintf(out, "%-16s AES, the legacy kind, which is weak\n",
		    "encryption");
	if (header->backing) {
		print_text(out, "backing file", header->backing_name);
		if (strcmp(header->backing_name, info->backing_filename))
			print_text(out, "  found at",
			    info->backing_filename);
		print_text(out, "  format", header->backing_format[0] ?
		    header->backing_format : "not said");
	}
	print_state(header, out);
	info_print_snapshots(&info->snapshots, out);
	print_bitmaps(&info->bitmaps, out);
}

void
info_print(const struct info *info, FILE *out)
{
	print_text(out, "image", info->filename);
	fprintf(out, "%-16s %s\n", "format", format_name(info->format));
	size_print_row(out, "virtual size", info->virtual_bytes);
	size_print_row(out, "size on disk", info->actual_bytes);
	if (info->in_use)
		fprintf(out, "%-16s yes, %s writes to it\n", "in use",
		    info->holder);
	if (info->format == IMAGE_QCOW2)
		print_qcow2(info, out);
}
