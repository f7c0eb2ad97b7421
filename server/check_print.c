/* SPDX-License-Identifier: MIT */
/* What `qnbd check` prints when it is done. */
#include "server/check.h"

#include <inttypes.h>
#include <stdio.h>
#include "server/json_text.h"

/* Exit codes, as of qemu-img check. */
#define EXIT_CORRUPT 2
#define EXIT_LEAKS 3

/* qemu-img leaves out what is 0, except for the errors. */
static void
set_number(json_t *object, const char *key, uint64_t number)
{
	if (number > 0)
		json_object_set_new(object, key,
		    json_integer((json_int_t)number));
}

static int
print_json(const struct check_call *call)
{
	const struct check_result *result = &call->result;
	json_t *object;

	json_text_begin();
	object = json_object();
	set_number(object, "image-end-offset", result->image_end_offset);
	set_number(object, "total-clusters", result->total_clusters);
	set_number(object, "corruptions-fixed",
	    call->repaired.corruptions_fixed);
	set_number(object, "leaks-fixed", call->repaired.leaks_fixed);
	json_object_set_new(object, "check-errors",
	    json_integer((json_int_t)result->check_errors));
	set_number(object, "corruptions", result->corruptions);
	set_number(object, "leaks", result->leaks);
	set_number(object, "allocated-clusters", result->allocated_clusters);
	set_number(object, "fragmented-clusters",
	    result->fragmented_clusters);
	set_number(object, "compressed-clusters",
	    result->compressed_clusters);
	json_object_set_new(object, "filename", json_string(call->path));
	json_object_set_new(object, "format", json_string("qcow2"));
	return json_text_print(object);
}

static void
print_repair(const struct check_call *call)
{
	const struct repair_result *repaired = &call->repaired;

	if (repaired->corruptions_fixed > 0)
		printf("%s: repaired %" PRIu64 " faults\n", call->path,
		    repaired->corruptions_fixed);
	if (repaired->rebuilt)
		printf("%s: its refcounts were unusable and have been written "
		    "anew\n", call->path);
	if (repaired->leaks_fixed > 0)
		printf("%s: gave %" PRIu64 " leaked clusters back\n",
		    call->path, repaired->leaks_fixed);
}

/* What a repair of all left is not known how to repair. */
static void
print_corruptions(const struct check_call *call)
{
	if (call->repair == CHECK_REPAIR_ALL)
		printf("%s is still corrupt: %" PRIu64 " faults of which it "
		    "cannot be known what was meant\n"
		    "  do not write to it; what can be read: "
		    "qnbd serve -r %s\n", call->path,
		    call->result.corruptions, call->path);
	else
		printf("%s is corrupt: %" PRIu64 " faults\n"
		    "  do not write to it; repair: "
		    "qnbd check --repair all %s\n", call->path,
		    call->result.corruptions, call->path);
}

static void
print_leaks(const struct check_call *call)
{
	if (call->repair == CHECK_REPAIR_NOTHING)
		printf("%s has %" PRIu64 " leaked clusters\n"
		    "  they only waste room; give it back: "
		    "qnbd check --repair leaks %s\n", call->path,
		    call->result.leaks, call->path);
	else
		printf("%s has %" PRIu64 " leaked clusters\n"
		    "  they are kept while it is corrupt: what a bad entry "
		    "has lost may be among them\n", call->path,
		    call->result.leaks);
}

static void
print_findings(const struct check_call *call)
{
	const struct check_result *result = &call->result;

	print_repair(call);
	if (result->check_errors > 0)
		printf("%s: %" PRIu64 " refcounts could not be checked\n",
		    call->path, result->check_errors);
	if (result->corruptions > 0)
		print_corruptions(call);
	if (result->leaks > 0)
		print_leaks(call);
	if (!result->check_errors && !result->corruptions && !result->leaks)
		printf("%s is clean\n", call->path);
}

static double
percent(uint64_t part, uint64_t whole)
{
	return whole > 0 ? (double)part * 100 / (double)whole : 0;
}

static void
print_text(const struct check_call *call)
{
	const struct check_result *result = &call->result;

	print_findings(call);
	printf("%-16s %" PRIu64 " of %" PRIu64 " clusters (%.2f %%)\n",
	    "allocated", result->allocated_clusters, result->total_clusters,
	    percent(result->allocated_clusters, result->total_clusters));
	printf("%-16s %.2f %% of these\n", "fragmented",
	    percent(result->fragmented_clusters, result->allocated_clusters));
	printf("%-16s %.2f %% of these\n", "compressed",
	    percent(result->compressed_clusters, result->allocated_clusters));
	printf("%-16s %" PRIu64 " bytes\n", "end of image",
	    result->image_end_offset);
}

static void
say_more(uint64_t found, uint64_t reported, const char *what)
{
	if (found > reported)
		fprintf(stderr, "%" PRIu64 " more %s\n", found - reported,
		    what);
}

int
check_print(const struct check_call *call, bool json)
{
	const struct check_result *result = &call->result;

	say_more(result->check_errors, call->reported[CHECK_ERROR],
	    "refcounts were not checked");
	say_more(result->corruptions, call->reported[CHECK_CORRUPTION],
	    "are corrupt");
	say_more(result->leaks, call->reported[CHECK_LEAK],
	    "clusters are leaked");
	if (!json)
		print_text(call);
	else if (print_json(call))
		return 1;
	if (result->check_errors > 0)
		return 1;
	if (result->corruptions > 0)
		return EXIT_CORRUPT;
	return result->leaks > 0 ? EXIT_LEAKS : 0;
}
