/* SPDX-License-Identifier: MIT */
/*
 * Crash states.  Guards against an explorer that takes for stable what is not
 * (and so misses the states in which it is lost), that builds states no disk
 * can be in (and so blames the innocent), or that tells them apart wrongly.
 *
 * Each test has a log made by hand and the set of contents it may lead to.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/state.h"
#include "tests/unit/test_runtime.h"

#define UNIT 512u
#define UNITS_MAX 24
#define STATES_MAX 4096

/*
 * A content as text: a character for each 512 bytes, "." for zeros; cut off at
 * the file's size.
 */
struct states {
	size_t count;
	struct {
		char text[UNITS_MAX + 1];
		uint64_t point;
		uint64_t number;
	} seen[STATES_MAX];
};

struct fixture {
	struct record_log *log;
	struct file *base;
	struct crash_options options;
	struct states states;
	struct crash_counts counts;
};

static struct fixture *
setup(const char *content, unsigned kinds)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	char unit[UNIT];

	ck_assert_int_eq(record_log_create(&fixture->log), 0);
	ck_assert_int_eq(file_sim_create(NULL, "base", 0, &fixture->base), 0);
	for (size_t i = 0; content[i]; i++) {
		memset(unit, content[i] == '.' ? 0 : content[i], UNIT);
		file_sim_poke(fixture->base, unit, UNIT, i * UNIT);
	}
	fixture->options = crash_defaults;
	fixture->options.kinds = kinds;
	return fixture;
}

static void
teardown(struct fixture *fixture)
{
	file_close(fixture->base);
	record_log_free(fixture->log);
	free(fixture);
}

/* ---- the log ---- */

/* Writes count units of value at unit index. */
static void
add_write(struct fixture *fixture, char value, size_t index, size_t count,
    uint64_t submitted, uint64_t completed, unsigned flags)
{
	uint8_t data[UNITS_MAX * UNIT];

	memset(data, value, count * UNIT);
	record_add(fixture->log, &(struct record){
		.kind = RECORD_WRITE, .flags = flags,
		.offset = index * UNIT, .length = count * UNIT,
		.submitted = submitted, .completed = completed,
		.result = (int64_t)(count * UNIT), .data = data,
	});
}

static void
add_sync(struct fixture *fixture, uint64_t submitted, uint64_t completed,
    int result)
{
	record_add(fixture->log, &(struct record){
		.kind = RECORD_SYNC, .result = result,
		.submitted = submitted, .completed = completed,
	});
}

static void
add_other(struct fixture *fixture, enum record_kind kind, uint64_t offset,
    uint64_t length, uint64_t submitted, uint64_t completed)
{
	record_add(fixture->log, &(struct record){
		.kind = kind, .offset = offset, .length = length,
		.submitted = submitted, .completed = completed,
	});
}

/* ---- the states ---- */

static int
note_state(const struct crash_state *state, void *arg)
{
	struct states *states = arg;
	int64_t size = file_size(state->file);
	char *text = states->seen[states->count].text;

	ck_assert_uint_lt(states->count, STATES_MAX);
	ck_assert_int_le(size, UNITS_MAX * UNIT);
	for (int64_t at = 0; at < size; at += UNIT) {
		char unit[UNIT];

		file_sim_peek(state->file, unit, UNIT, (uint64_t)at);
		ck_assert(!memcmp(unit, unit + 1, UNIT - 1));
		*text++ = unit[0] ? unit[0] : '.';
	}
	states->seen[states->count].point = state->point;
	states->seen[states->count].number = state->number;
	states->count++;
	ck_assert_ptr_nonnull(state->text);
	return 0;
}

static void
explore(struct fixture *fixture)
{
	fixture->states.count = 0;
	ck_assert_int_eq(crash_explore(fixture->log, 0, fixture->base,
	    &fixture->options, note_state, &fixture->states,
	    &fixture->counts), 0);
	ck_assert_uint_eq(fixture->counts.distinct, fixture->states.count);
	ck_assert_uint_ge(fixture->counts.states, fixture->counts.distinct);
}

/* The states are exactly those in the list, separated by spaces. */
static void
expect(struct fixture *fixture, const char *list)
{
	char copy[1000], *rest = copy, *word;
	size_t words = 0;

	explore(fixture);
	ck_assert_uint_lt(strlen(list), sizeof(copy));
	strcpy(copy, list);
	while ((word = strsep(&rest, " "))) {
		size_t i = 0;

		while (i < fixture->states.count &&
		    strcmp(fixture->states.seen[i].text, word))
			i++;
		ck_assert_msg(i < fixture->states.count, "no state %s", word);
		words++;
	}
	for (size_t i = 0; i < fixture->states.count; i++)
		ck_assert_msg(strstr(list, fixture->states.seen[i].text),
		    "state %s", fixture->states.seen[i].text);
	ck_assert_uint_eq(words, fixture->states.count);
}

static bool
has_state(const struct fixture *fixture, const char *text)
{
	for (size_t i = 0; i < fixture->states.count; i++) {
		if (!strcmp(fixture->states.seen[i].text, text))
			return true;
	}
	return false;
}

/* ---- what is stable ---- */

START_TEST(test_prefixes)
{
	struct fixture *f = setup("...", CRASH_PREFIX);

	add_write(f, 'a', 0, 1, 1, 2, 0);
	add_write(f, 'b', 1, 1, 3, 4, 0);
	expect(f, "... a.. ab.");
	teardown(f);
}
END_TEST

/* What is on its way may have arrived or not, whatever came after it. */
START_TEST(test_prefix_with_operations_in_flight)
{
	struct fixture *f = setup("..", CRASH_PREFIX);

	add_write(f, 'a', 0, 1, 1, 4, 0);
	add_write(f, 'b', 1, 1, 2, 3, 0);
	expect(f, ".. a. ab .b");
	teardown(f);
}
END_TEST

START_TEST(test_subsets_of_an_epoch)
{
	struct fixture *f = setup("...", CRASH_SUBSETS);

	add_write(f, 'a', 0, 1, 1, 2, 0);
	add_write(f, 'b', 1, 1, 3, 4, 0);
	add_sync(f, 5, 6, 0);
	add_write(f, 'c', 2, 1, 7, 8, 0);
	expect(f, "... a.. .b. ab. abc");
	teardown(f);
}
END_TEST

/* A write that was on its way when the sync began is not covered by it. */
START_TEST(test_sync_covers_what_completed_before_it)
{
	struct fixture *f = setup("...", CRASH_SUBSETS);

	add_write(f, 'a', 0, 1, 1, 2, 0);
	add_write(f, 'b', 1, 1, 3, 5, 0);
	add_sync(f, 4, 6, 0);
	/* Makes the states after it distinct from those before it. */
	add_other(f, RECORD_REQUEST_FLUSH, 0, 0, 7, RECORD_NEVER);
	explore(f);
	ck_assert_uint_eq(f->states.count, 4 + 2);
	for (size_t i = 0; i < f->states.count; i++) {
		const char *text = f->states.seen[i].text;

		if (f->states.seen[i].point <= 6)
			continue;
		ck_assert(!strcmp(text, "a..") || !strcmp(text, "ab."));
	}
	teardown(f);
}
END_TEST

START_TEST(test_failed_and_unfinished_syncs)
{
	struct fixture *f = setup("..", CRASH_SUBSETS);

	add_write(f, 'a', 0, 1, 1, 2, 0);
	add_sync(f, 3, 4, -EIO);
	add_write(f, 'b', 1, 1, 5, 6, 0);
	add_sync(f, 7, RECORD_NEVER, 0);
	expect(f, ".. a. .b ab");
	ck_assert_uint_eq(f->states.seen[0].point, 8);
	teardown(f);
}
END_TEST

/* After the FUA write's completion the plain one before it may still go. */
START_TEST(test_dsync_is_stable_alone)
{
	struct fixture *f = setup("..", CRASH_SUBSETS);

	add_write(f, 'a', 0, 1, 1, 2, 0);
	add_write(f, 'b', 1, 1, 3, 4, RECORD_DSYNC);
	add_write(f, 'c', 0, 1, 5, 6, 0);
	explore(f);
	ck_assert(has_state(f, ".b"));
	for (size_t i = 0; i < f->states.count; i++) {
		if (f->states.seen[i].point > 4)
			ck_assert_int_eq(f->states.seen[i].text[1], 'b');
	}
	teardown(f);
}
END_TEST

/* An older write that is still pending does not undo a stable newer one. */
START_TEST(test_order_is_kept)
{
	struct fixture *f = setup(".", CRASH_ALL);

	add_write(f, 'a', 0, 1, 1, 2, 0);
	add_write(f, 'b', 0, 1, 3, 4, RECORD_DSYNC);
	explore(f);
	for (size_t i = 0; i < f->states.count; i++) {
		if (f->states.seen[i].point > 4)
			ck_assert_str_eq(f->states.seen[i].text, "b");
	}
	ck_assert(has_state(f, "."));
	ck_assert(has_state(f, "a"));
	teardown(f);
}
END_TEST

START_TEST(test_failed_write_stays_pending)
{
	struct fixture *f = setup(".", CRASH_SUBSETS);
	uint8_t data[UNIT];

	memset(data, 'a', UNIT);
	record_add(f->log, &(struct record){
		.kind = RECORD_WRITE, .length = UNIT, .data = data,
		.submitted = 1, .completed = 2, .result = -EIO,
	});
	add_sync(f, 3, 4, 0);
	expect(f, ". a");
	ck_assert_uint_eq(f->states.seen[0].point, 5);
	teardown(f);
}
END_TEST

START_TEST(test_short_write)
{
	struct fixture *f = setup("..", CRASH_PREFIX);
	uint8_t data[2 * UNIT];

	memset(data, 'a', sizeof(data));
	record_add(f->log, &(struct record){
		.kind = RECORD_WRITE, .length = 2 * UNIT, .data = data,
		.submitted = 1, .completed = 2, .result = UNIT,
	});
	expect(f, ".. a.");
	teardown(f);
}
END_TEST

/* ---- the kinds of states ---- */

START_TEST(test_lost_and_survivors)
{
	struct fixture *f = setup("....", CRASH_LOST);

	for (unsigned i = 0; i < 4; i++)
		add_write(f, (char)('a' + i), i, 1, 2 * i + 1, 2 * i + 2, 0);
	expect(f, ".bcd a.cd ab.d abc.");
	f->options.kinds = CRASH_SURVIVOR;
	expect(f, "a... .b.. ..c. ...d");
	teardown(f);
}
END_TEST

START_TEST(test_reversed)
{
	struct fixture *f = setup("...", CRASH_REVERSED);

	for (unsigned i = 0; i < 3; i++)
		add_write(f, (char)('a' + i), i, 1, 2 * i + 1, 2 * i + 2, 0);
	expect(f, "abc .bc ..c ...");
	teardown(f);
}
END_TEST

/* Only what overlapped in time can have taken effect the other way round. */
START_TEST(test_reversed_overlap)
{
	struct fixture *f = setup("..", CRASH_REVERSED);

	add_write(f, 'a', 0, 2, 1, 3, 0);
	add_write(f, 'b', 1, 1, 2, 4, 0);
	add_write(f, 'c', 0, 1, 5, 6, 0);
	explore(f);
	ck_assert(has_state(f, "ca"));
	ck_assert(!has_state(f, "aa"));
	ck_assert(!has_state(f, "ab"));
	teardown(f);
}
END_TEST

START_TEST(test_torn)
{
	struct fixture *f = setup("....", CRASH_TORN);

	add_write(f, 'a', 0, 4, 1, 2, 0);
	add_write(f, 'b', 0, 1, 3, 4, 0);
	expect(f, "aa..");
	f->options.tear_ways = 3;
	expect(f, "aa.. a... aaa.");
	f->options.tear_ways = 1;
	f->options.tear_bytes = 4096;
	explore(f);
	ck_assert_uint_eq(f->states.count, 0);
	teardown(f);
}
END_TEST

START_TEST(test_torn_at_random)
{
	struct fixture *f = setup("........", CRASH_TORN);
	char first[2][UNITS_MAX + 1];

	add_write(f, 'a', 0, 8, 1, 2, 0);
	f->options.tear_ways = 5;
	explore(f);
	ck_assert_uint_ge(f->states.count, 4);
	strcpy(first[0], f->states.seen[3].text);
	f->options.seed = 1;
	explore(f);
	strcpy(first[1], f->states.seen[3].text);
	ck_assert_str_ne(first[0], first[1]);
	teardown(f);
}
END_TEST

START_TEST(test_torn_punch)
{
	struct fixture *f = setup("aaaaaaaaaaaaaaaaaaaaaaaa", CRASH_TORN);

	add_other(f, RECORD_PUNCH, 0, 12288, 1, 2);
	expect(f, "................aaaaaaaa");
	teardown(f);
}
END_TEST

START_TEST(test_sizes)
{
	struct fixture *f = setup("..", CRASH_SIZES);

	add_write(f, 'a', 1, 2, 1, 2, 0);
	expect(f, "... .a");
	teardown(f);
}
END_TEST

START_TEST(test_truncate_may_be_lost)
{
	struct fixture *f = setup("aa", CRASH_SUBSETS);

	add_other(f, RECORD_TRUNCATE, UNIT, 0, 1, 2);
	add_write(f, 'b', 2, 1, 3, 4, 0);
	expect(f, "aa a aab a.b");
	teardown(f);
}
END_TEST

START_TEST(test_zero_and_allocate)
{
	struct fixture *f = setup("a", CRASH_SUBSETS);

	add_other(f, RECORD_ZERO, 0, UNIT, 1, 2);
	add_other(f, RECORD_ALLOCATE, 0, 2 * UNIT, 3, 4);
	expect(f, "a . a. ..");
	teardown(f);
}
END_TEST

START_TEST(test_random_subsets_of_large_epochs)
{
	struct fixture *f = setup("", CRASH_SUBSETS);
	unsigned sizes = 0;

	for (unsigned i = 0; i < 12; i++)
		add_write(f, (char)('a' + i), i, 1, 2 * i + 1, 2 * i + 2, 0);
	f->options.random_subsets = 50;
	explore(f);
	ck_assert_uint_eq(f->counts.states, 50);
	ck_assert_uint_gt(f->states.count, 40);
	/* In some of them a size made it without its data. */
	for (size_t i = 0; i < f->states.count; i++) {
		const char *text = f->states.seen[i].text;

		sizes += *text && text[strlen(text) - 1] == '.';
	}
	ck_assert_uint_gt(sizes, 0);
	f->options.subset_operations = 12;
	explore(f);
	ck_assert_uint_eq(f->states.count, 4096);
	teardown(f);
}
END_TEST

/* ---- telling states apart ---- */

/* The same content after a reply has to be judged again. */
START_TEST(test_requests_make_states_distinct)
{
	struct fixture *f = setup(".", CRASH_PREFIX);

	add_write(f, 'a', 0, 1, 1, 2, 0);
	add_write(f, 'a', 0, 1, 4, 5, 0);
	explore(f);
	ck_assert_uint_eq(f->states.count, 2);
	teardown(f);
	f = setup(".", CRASH_PREFIX);
	add_write(f, 'a', 0, 1, 1, 2, 0);
	add_other(f, RECORD_REQUEST_FLUSH, 0, 0, 3, RECORD_NEVER);
	add_write(f, 'a', 0, 1, 4, 5, 0);
	explore(f);
	ck_assert_uint_eq(f->states.count, 3);
	/* And a reply counts at the latest point it can. */
	ck_assert_uint_eq(f->states.seen[2].point, 4);
	teardown(f);
}
END_TEST

/*
 * All is there at the end of a sync: before its reply, which promises it, and
 * after, but before the next request, which may excuse its loss.
 */
START_TEST(test_crash_around_a_reply)
{
	struct fixture *f = setup(".", CRASH_PREFIX);
	size_t count;

	add_other(f, RECORD_REQUEST_WRITE, 0, UNIT, 1, 4);
	add_write(f, 'a', 0, 1, 2, 3, 0);
	add_other(f, RECORD_REQUEST_FLUSH, 0, 0, 5, 8);
	add_sync(f, 6, 7, 0);
	add_other(f, RECORD_REQUEST_FLUSH, 0, 0, 10, RECORD_NEVER);
	explore(f);
	count = f->states.count;
	ck_assert_uint_ge(count, 3);
	ck_assert_uint_eq(f->states.seen[count - 3].point, 6);
	ck_assert_uint_eq(f->states.seen[count - 2].point, 10);
	ck_assert_uint_eq(f->states.seen[count - 1].point, 11);
	teardown(f);
}
END_TEST

static uint64_t
half_point(uint64_t point, void *arg)
{
	(void)arg;
	return point / 4;
}

/* What is seen and what makes verdicts differ may be the caller's. */
START_TEST(test_explorations_share_what_was_seen)
{
	struct fixture *f = setup(".", CRASH_PREFIX);
	struct seen seen = {0};

	add_write(f, 'a', 0, 1, 1, 2, 0);
	add_other(f, RECORD_REQUEST_FLUSH, 0, 0, 3, 4);
	f->options.context = half_point;
	f->options.seen = &seen;
	explore(f);
	ck_assert_uint_eq(f->states.count, 3);
	ck_assert_uint_eq(seen.count, 3);
	explore(f);
	ck_assert_uint_eq(f->states.count, 0);
	add_write(f, 'b', 0, 1, 5, 6, 0);
	expect(f, "b");
	seen_free(&seen);
	teardown(f);
}
END_TEST

START_TEST(test_other_sources_are_not_ours)
{
	struct fixture *f = setup(".", CRASH_ALL);

	record_add(f->log, &(struct record){
		.kind = RECORD_TRUNCATE, .source = 1, .submitted = 1,
		.completed = 2,
	});
	expect(f, ".");
	teardown(f);
}
END_TEST

START_TEST(test_state_can_be_replayed)
{
	struct fixture *f = setup("....", CRASH_ALL);
	struct states all;

	for (unsigned i = 0; i < 4; i++)
		add_write(f, (char)('a' + i), i, 1, 2 * i + 1, 2 * i + 2, 0);
	explore(f);
	all = f->states;
	ck_assert_uint_gt(all.count, 10);
	for (size_t i = 0; i < all.count; i++) {
		f->options.first = all.seen[i].number;
		f->options.count = 1;
		explore(f);
		ck_assert_uint_eq(f->states.count, 1);
		ck_assert_str_eq(f->states.seen[0].text, all.seen[i].text);
		ck_assert_uint_eq(f->states.seen[0].point, all.seen[i].point);
	}
	f->options.count = 0;
	explore(f);
	ck_assert_uint_eq(f->states.seen[0].number,
	    all.seen[all.count - 1].number);
	teardown(f);
}
END_TEST

static int
spoil(const struct crash_state *state, void *arg)
{
	unsigned *left = arg;

	file_sim_poke(state->file, "spoilt", 6, 0);
	return --*left == 0 ? -ECANCELED : 0;
}

/* A visit may write to its state; no other is the worse for it. */
START_TEST(test_visits_are_alone)
{
	struct fixture *f = setup("..", CRASH_ALL);
	unsigned left = 2;

	add_write(f, 'a', 0, 1, 1, 2, 0);
	add_write(f, 'b', 1, 1, 3, 4, 0);
	ck_assert_int_eq(crash_explore(f->log, 0, f->base, &f->options, spoil,
	    &left, &f->counts), -ECANCELED);
	ck_assert_uint_eq(f->counts.distinct, 2);
	f->options.kinds = CRASH_PREFIX;
	expect(f, ".. a. ab");
	teardown(f);
}
END_TEST

static int
note_device(const struct crash_state *state, void *arg)
{
	unsigned *kinds = arg;
	uint8_t data[2 * UNIT];

	ck_assert(!state->file->is_regular);
	ck_assert_int_eq(file_size(state->file), 8192);
	file_sim_peek(state->file, data, sizeof(data), 4096);
	ck_assert_uint_eq(data[UNIT], 0xa5);
	*kinds |= data[0] == 'a' ? 1 : data[0] == 0xa5 ? 2 : 4;
	return 0;
}

/* On a device, space that was never written holds what was there before. */
START_TEST(test_device)
{
	struct fixture *f = setup("", CRASH_ALL);
	unsigned kinds = 0;

	file_close(f->base);
	ck_assert_int_eq(file_sim_create_device(NULL, "d", 8192, 0xa5,
	    &f->base), 0);
	add_write(f, 'a', 8, 1, 1, 2, 0);
	ck_assert_int_eq(crash_explore(f->log, 0, f->base, &f->options,
	    note_device, &kinds, NULL), 0);
	ck_assert_uint_eq(kinds, 3);
	teardown(f);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("crash_state");
	TCase *tcase = tcase_create("crash_state");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_prefixes);
	tcase_add_test(tcase, test_prefix_with_operations_in_flight);
	tcase_add_test(tcase, test_subsets_of_an_epoch);
	tcase_add_test(tcase, test_sync_covers_what_completed_before_it);
	tcase_add_test(tcase, test_failed_and_unfinished_syncs);
	tcase_add_test(tcase, test_dsync_is_stable_alone);
	tcase_add_test(tcase, test_order_is_kept);
	tcase_add_test(tcase, test_failed_write_stays_pending);
	tcase_add_test(tcase, test_short_write);
	tcase_add_test(tcase, test_lost_and_survivors);
	tcase_add_test(tcase, test_reversed);
	tcase_add_test(tcase, test_reversed_overlap);
	tcase_add_test(tcase, test_torn);
	tcase_add_test(tcase, test_torn_at_random);
	tcase_add_test(tcase, test_torn_punch);
	tcase_add_test(tcase, test_sizes);
	tcase_add_test(tcase, test_truncate_may_be_lost);
	tcase_add_test(tcase, test_zero_and_allocate);
	tcase_add_test(tcase, test_random_subsets_of_large_epochs);
	tcase_add_test(tcase, test_requests_make_states_distinct);
	tcase_add_test(tcase, test_crash_around_a_reply);
	tcase_add_test(tcase, test_explorations_share_what_was_seen);
	tcase_add_test(tcase, test_other_sources_are_not_ours);
	tcase_add_test(tcase, test_state_can_be_replayed);
	tcase_add_test(tcase, test_visits_are_alone);
	tcase_add_test(tcase, test_device);
	suite_add_tcase(suite, tcase);
	return test_main(suite);
}
