/* SPDX-License-Identifier: MIT */
/*
 * Guards the plan of a header with another backing file: what is not about
 * that, known or not, must stay as it is and where it is in its order; the
 * sectors behind the first must stay whole for the old first sector; and what
 * has no room is refused.  That the plan is carried out in the right order is
 * what tests/crash/chains.c looks at.
 */
#include <check.h>
#include <errno.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/header.h"
#include "qcow2/header_update.h"
#include "tests/unit/test_qcow2.h"
#include "tests/unit/test_runtime.h"

static uint8_t cluster[MADE_CLUSTER_BYTES];
static uint8_t data[MADE_CLUSTER_BYTES];
static struct header header;
static struct header_plan plan;
static struct error error;

static struct header_backing
backing_of(const char *name, const char *format)
{
	return (struct header_backing){name, format};
}

static char *
long_name(size_t bytes)
{
	static char name[HEADER_BACKING_NAME_BYTES_MAX + 1];

	memset(name, 'x', bytes);
	name[bytes] = '\0';
	return name;
}

static void
parse(const uint8_t *bytes, struct header *target)
{
	ck_assert_msg(header_parse("x", bytes, MADE_FILE_BYTES, target,
	    &error) == 0, "%s", error.message);
}

static const uint8_t *
last_cluster(void)
{
	return plan.clusters[plan.count - 1];
}

/* Plans the change of cluster; what comes out is parsed. */
static void
must_plan(struct header_backing backing, struct header *changed)
{
	parse(cluster, &header);
	ck_assert_int_eq(header_plan(cluster, &header, &backing, &plan), 0);
	parse(last_cluster(), changed);
	ck_assert_int_eq(changed->backing, backing.name != NULL);
	ck_assert_str_eq(changed->backing_name,
	    backing.name ? backing.name : "");
	ck_assert_str_eq(changed->backing_format,
	    backing.name ? backing.format : "");
}

static void
end_plan(struct header *changed)
{
	header_free(changed);
	header_free(&header);
	header_plan_free(&plan);
}

/* Whether an old first sector leads to the same with every step's rest. */
static void
expect_whole_in_between(void)
{
	const uint8_t *before = cluster;
	uint8_t mixed[MADE_CLUSTER_BYTES];

	for (unsigned i = 0; i < plan.count; i++) {
		struct header old, seen;

		/* Also if nothing is left of the old but that sector. */
		parse(before, &old);
		memcpy(mixed, before, sizeof(mixed));
		for (uint32_t at = HEADER_SECTOR_BYTES; at < sizeof(mixed);
		    at++)
			if (plan.clusters[i][at])
				mixed[at] = plan.clusters[i][at];
		parse(mixed, &seen);
		ck_assert_str_eq(seen.backing_name, old.backing_name);
		ck_assert_uint_eq(seen.extension_count, old.extension_count);
		header_free(&old);
		header_free(&seen);
		before = plan.clusters[i];
	}
}

/* The extensions that are about other things, in their order. */
static void
expect_same_extensions(const struct header *changed)
{
	unsigned i = 0, j = 0;

	for (;; i++, j++) {
		while (i < header.extension_count &&
		    header.extensions[i].type ==
		    HEADER_EXTENSION_BACKING_FORMAT)
			i++;
		while (j < changed->extension_count &&
		    changed->extensions[j].type ==
		    HEADER_EXTENSION_BACKING_FORMAT)
			j++;
		if (i == header.extension_count)
			break;
		ck_assert_uint_lt(j, changed->extension_count);
		ck_assert_uint_eq(header.extensions[i].type,
		    changed->extensions[j].type);
		ck_assert_uint_eq(header.extensions[i].bytes,
		    changed->extensions[j].bytes);
		ck_assert_mem_eq(header.extensions[i].data,
		    changed->extensions[j].data, header.extensions[i].bytes);
	}
	ck_assert_uint_eq(j, changed->extension_count);
}

/* Extensions that nobody knows around those that are known. */
static void
make_strange(unsigned version)
{
	size_t end = make_header(cluster, version);

	memset(data, 0x5a, sizeof(data));
	if (version == 3)
		memcpy(cluster + 105, "strange", 7);
	end = make_extension(cluster, end, 0xfeedface, "unknown one", 11);
	end = make_extension(cluster, end, HEADER_EXTENSION_BACKING_FORMAT,
	    "raw", 3);
	end = make_extension(cluster, end, 0x00000001, "", 0);
	make_extension(cluster, end, 0xfeedface, "again", 5);
	make_backing(cluster, "base");
}

START_TEST(unknown_parts_stay_in_their_order)
{
	static const char *const names[] = {"other", "", "b"};
	unsigned version = 2 + (unsigned)_i % 2;
	const char *name = names[_i / 2];
	struct header changed;

	make_strange(version);
	must_plan(backing_of(*name ? name : NULL, *name ? "qcow2" : NULL),
	    &changed);
	expect_same_extensions(&changed);
	expect_whole_in_between();
	/* All fields but the name's, known or not. */
	ck_assert_mem_eq(last_cluster(), cluster, 8);
	ck_assert_mem_eq(last_cluster() + 20, cluster + 20,
	    version == 2 ? 52 : 92);
	if (*name)
		ck_assert_uint_eq(changed.extensions[1].type,
		    HEADER_EXTENSION_BACKING_FORMAT);
	end_plan(&changed);
}
END_TEST

/* Fields that this program does not know of, as encryption was one day. */
START_TEST(fields_stay_whatever_they_are)
{
	struct header changed;

	make_header(cluster, 3);
	bytes_put32(cluster + 100, 128);
	memcpy(cluster + 112, "of the future...", 16);
	must_plan(backing_of("b", "raw"), &changed);
	ck_assert_mem_eq(last_cluster() + 20, cluster + 20, 108);
	end_plan(&changed);
}
END_TEST

/* A name of n bytes after another of n bytes, wherever the first lies. */
START_TEST(new_name_leaves_the_old_one_alone)
{
	static const size_t lengths[] = {1, 300, 400, 401, 500, 1000, 1023};
	size_t bytes = lengths[_i];
	struct header changed;

	make_header(cluster, 3);
	must_plan(backing_of(long_name(bytes), "raw"), &changed);
	memcpy(cluster, last_cluster(), sizeof(cluster));
	end_plan(&changed);
	for (unsigned round = 0; round < 4; round++) {
		long_name(bytes)[bytes - 1] = (char)('a' + round);
		must_plan(backing_of(long_name(bytes > 1 ? bytes - round % 2 :
		    1), "qcow2"), &changed);
		ck_assert_uint_eq(plan.count, 1);
		expect_whole_in_between();
		memcpy(cluster, last_cluster(), sizeof(cluster));
		end_plan(&changed);
	}
}
END_TEST

/* 392 bytes, as everybody writes them, and so many before. */
static void
make_with_names(uint32_t before_bytes)
{
	size_t end = make_header(cluster, 3);

	memset(data, 0x5a, sizeof(data));
	if (before_bytes > 0)
		end = make_extension(cluster, end, 0xfeedface, data,
		    before_bytes);
	make_extension(cluster, end, HEADER_EXTENSION_FEATURE_NAMES, data,
	    8 * 48);
}

START_TEST(extensions_that_move_go_by_way_of_fewer)
{
	struct header changed;
	size_t end;

	memset(data, 0x5a, sizeof(data));
	/* The format comes first, so that all that follows moves. */
	end = make_header(cluster, 3);
	end = make_extension(cluster, end, HEADER_EXTENSION_BACKING_FORMAT,
	    "raw", 3);
	end = make_extension(cluster, end, 0xfeedface, data, 64);
	make_extension(cluster, end, HEADER_EXTENSION_FEATURE_NAMES, data,
	    8 * 48);
	make_backing(cluster, "base");
	must_plan(backing_of(NULL, NULL), &changed);
	ck_assert_uint_eq(plan.count, 2);
	expect_same_extensions(&changed);
	expect_whole_in_between();
	end_plan(&changed);
	/* The same format needs no more than a name. */
	must_plan(backing_of("other", "qcow2"), &changed);
	ck_assert_uint_eq(plan.count, 1);
	expect_same_extensions(&changed);
	expect_whole_in_between();
	end_plan(&changed);
}
END_TEST

START_TEST(names_of_features_go_where_there_is_no_room)
{
	struct header changed;

	make_with_names(0);
	bytes_put32(cluster + 20, 9);
	bytes_put64(cluster + 24, 65536);
	must_plan(backing_of(long_name(300), "raw"), &changed);
	ck_assert_ptr_null(header_find_extension(&changed,
	    HEADER_EXTENSION_FEATURE_NAMES));
	ck_assert_uint_eq(changed.extension_count, 1);
	end_plan(&changed);
}
END_TEST

static void
expect_refusal(struct header_backing backing)
{
	parse(cluster, &header);
	plan.count = 77;
	ck_assert_int_eq(header_plan(cluster, &header, &backing, &plan),
	    -ENOSPC);
	header_free(&header);
}

START_TEST(what_has_no_room_is_refused)
{
	/* The whole cluster is one sector. */
	make_with_names(0);
	bytes_put32(cluster + 20, 9);
	bytes_put64(cluster + 24, 65536);
	expect_refusal(backing_of(long_name(400), "raw"));
	/* Extensions up to the end of the cluster. */
	make_with_names(MADE_CLUSTER_BYTES - 112 - 3 * 8 - 8 * 48);
	expect_refusal(backing_of(long_name(400), "raw"));
	/* They would have to move, and are too many for one sector. */
	make_strange(3);
	make_extension(cluster, 112 + 24 + 16 + 8 + 16, 7, data, 512);
	expect_refusal(backing_of(NULL, NULL));
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("header_update");
	TCase *plans = tcase_create("plans");

	tcase_add_loop_test(plans, unknown_parts_stay_in_their_order, 0, 6);
	tcase_add_test(plans, fields_stay_whatever_they_are);
	tcase_add_loop_test(plans, new_name_leaves_the_old_one_alone, 0, 7);
	tcase_add_test(plans, extensions_that_move_go_by_way_of_fewer);
	tcase_add_test(plans, names_of_features_go_where_there_is_no_room);
	tcase_add_test(plans, what_has_no_room_is_refused);
	suite_add_tcase(suite, plans);
	return test_main(suite);
}
