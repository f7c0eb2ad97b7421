/* SPDX-License-Identifier: MIT */
/*
 * The order of a repair: rounds of looking at the whole file and doing what is
 * to be done next, until there is nothing.
 */
#include "qcow2/repair.h"

#include <stdio.h>
#include <string.h>
#include "qcow2/repair_internal.h"

/* More than it takes: entries, a new place, refcounts, flags, and a look. */
#define ROUNDS_MAX 8

struct repair {
	struct file *file;
	const char *name;
	enum repair_extent extent;
	const struct check_listener *listener;
	struct check_listener quiet;	/* progress, no reports */
	struct repair_result *result;
	struct error *error;
	struct check check;		/* of this round */
	bool fix_entries, fix_copied;	/* in the next one */
	bool as_a_check;		/* the last one */
	bool changed;			/* the file, by any round */
};

/* ---- looking ---- */

/* Looks at the whole file; tables may be put right on the way. */
co_fn static int
look(struct repair *repair, const struct check_listener *listener)
{
	struct check *check = &repair->check;
	int err;

	*check = (struct check){
		.file = repair->file,
		.name = repair->name,
		.listener = listener,
		.error = repair->error,
		.for_repair = !repair->as_a_check &&
		    repair->extent == REPAIR_ALL,
		.fix_entries = repair->fix_entries,
		.fix_copied = repair->fix_copied,
	};
	repair->fix_entries = repair->fix_copied = false;
	err = check_open(check);
	if (!err)
		err = check_count_users(check);
	if (!err)
		err = check_compare_refcounts(check);
	/* O3: what an entry has let go of is lowered after that. */
	if (!err && check->fixed > 0)
		err = check_sync(check);
	if (err)
		return err;
	repair->result->corruptions_fixed += check->fixed;
	repair->changed |= check->fixed > 0;
	return 0;
}

static void
report_left(void *arg, enum check_finding kind, const char *line)
{
	const struct check_listener *listener = arg;
	char text[320];

	snprintf(text, sizeof(text), "after the repair, %s", line);
	listener->report(listener->arg, kind, text);
}

static void
pass_progress(void *arg, uint64_t done, uint64_t total)
{
	const struct check_listener *listener = arg;

	if (listener->progress)
		listener->progress(listener->arg, done, total);
}

static bool
pass_stop(void *arg)
{
	const struct check_listener *listener = arg;

	return listener->stop && listener->stop(listener->arg);
}

/* What is left: a check says the same. */
co_fn static int
look_again(struct repair *repair)
{
	struct check_listener listener = {
		.report = report_left, .progress = pass_progress,
		.stop = pass_stop,
	};

	repair->as_a_check = true;
	check_close(&repair->check);
	if (!repair->changed || !repair->listener ||
	    !repair->listener->report)
		return look(repair, &repair->quiet);
	/* It only hands on what it is told. */
	memcpy(&listener.arg, &repair->listener, sizeof(listener.arg));
	return look(repair, &listener);
}

static bool
is_clean(const struct check_result *result)
{
	return result->corruptions == 0 && result->leaks == 0 &&
	    result->check_errors == 0;
}

/* ---- one round ---- */

/* All that was wrong with refcounts and snapshots is right then. */
co_fn static int
rebuild(struct repair *repair, bool *didp)
{
	struct check *check = &repair->check;
	uint64_t others = check->copied_faults + check->entry_faults;
	bool is_hopeless;
	int err = repair_rebuild(check, didp, &is_hopeless);

	if (err || !*didp)
		return err;
	repair->result->rebuilt |= repair_needs_rebuild(check);
	repair->fix_copied = !is_hopeless && check->entry_faults == 0;
	if (is_hopeless)
		return 0;
	if (check->result.corruptions > others)
		repair->result->corruptions_fixed +=
		    check->result.corruptions - others;
	repair->result->leaks_fixed += check->result.leaks;
	return 0;
}

co_fn static int
adjust(struct repair *repair, bool *didp)
{
	struct check *check = &repair->check;
	struct repair_result *result = repair->result;
	uint64_t raised = 0, lowered = 0;
	int err = 0;

	if (repair->extent == REPAIR_ALL)
		err = repair_refcounts(check, REPAIR_RAISE, &raised);
	if (!err && !repair_is_hopeless(check))
		err = repair_refcounts(check, REPAIR_LOWER, &lowered);
	if (err)
		return err;
	result->corruptions_fixed += raised;
	result->leaks_fixed += lowered;
	*didp = raised + lowered > 0;
	return 0;
}

/*
 * The file gets the length that it was to have: what was not flushed reads as
 * zeros there, as others read it already.
 */
co_fn static int
lengthen(struct repair *repair, bool *didp)
{
	struct check *check = &repair->check;
	int err = check_lengthen(check, check->unflushed_end);

	if (err)
		return err;
	repair->result->corruptions_fixed += check->unflushed;
	*didp = true;
	return 0;
}

/* Flags follow the refcounts, which are right or about to be. */
static bool
may_fix_copied(const struct repair *repair)
{
	const struct check *check = &repair->check;

	if (repair->extent == REPAIR_ALL)
		return !repair_is_hopeless(check);
	return check->result.corruptions == check->copied_faults &&
	    check->result.check_errors == 0;
}

/* Their table goes to another place, together with the refcounts. */
static bool
may_renew_snapshots(const struct repair *repair)
{
	return repair->extent == REPAIR_ALL &&
	    repair->check.snapshot_faults > 0 &&
	    !repair_is_hopeless(&repair->check);
}

/* Does what comes next, if there is anything. */
co_fn static int
act(struct repair *repair, bool *didp)
{
	struct check *check = &repair->check;
	bool had_fixed = check->fixed > 0;
	int err;

	*didp = had_fixed;
	if (is_clean(&check->result))
		return 0;
	if (check->unflushed > 0 && !repair_is_hopeless(check))
		return lengthen(repair, didp);
	if (repair_needs_rebuild(check) || may_renew_snapshots(repair))
		return repair->extent == REPAIR_ALL ? rebuild(repair, didp) :
		    0;
	if (repair->extent == REPAIR_ALL && !had_fixed &&
	    check->entry_faults > 0 && !repair_is_hopeless(check)) {
		repair->fix_entries = true;
		*didp = true;
		return 0;
	}
	err = adjust(repair, didp);
	if (err)
		return err;
	repair->fix_copied = may_fix_copied(repair) &&
	    (*didp || check->copied_faults > 0);
	*didp |= had_fixed || repair->fix_copied;
	return 0;
}

/* ---- all of it ---- */

/* O7: last of all. */
co_fn static int
clear_bits(struct repair *repair)
{
	struct check *check = &repair->check;
	uint64_t incompatible = check->header.incompatible;
	struct header_patch patch;
	int err;

	if (check->result.corruptions > 0 || check->result.check_errors > 0 ||
	    !(incompatible & (HEADER_DIRTY | HEADER_CORRUPT)))
		return 0;
	incompatible &= ~(HEADER_DIRTY | HEADER_CORRUPT);
	/* The check's parser was not shown these. */
	if (check->data_elsewhere)
		incompatible |= HEADER_DATA_FILE;
	if (check->extended_l2)
		incompatible |= HEADER_EXTENDED_L2;
	patch = header_patch_incompatible(incompatible);
	err = check_write(check, patch.data, patch.bytes, patch.offset,
	    "the header");
	return err ? err : check_sync(check);
}

co_fn static int
run_rounds(struct repair *repair)
{
	bool did = true;
	int err;

	err = look(repair, repair->listener);
	if (err)
		return err;
	repair->result->found = repair->check.result;
	for (unsigned round = 0; round < ROUNDS_MAX; round++) {
		err = act(repair, &did);
		if (err || !did)
			return err;
		repair->changed = true;
		check_close(&repair->check);
		err = look(repair, &repair->quiet);
		if (err)
			return err;
	}
	return 0;
}

co_fn int
repair_file(struct file *file, const char *name, enum repair_extent extent,
    const struct check_listener *listener, struct repair_result *result,
    struct error *error)
{
	struct repair_result outcome = {0};
	struct repair repair = {
		.file = file,
		.name = name,
		.extent = extent,
		.listener = listener,
		.quiet = listener ? *listener : (struct check_listener){0},
		.result = &outcome,
		.error = error,
	};
	int err;

	repair.quiet.report = NULL;
	err = run_rounds(&repair);
	if (!err && !is_clean(&repair.check.result))
		err = look_again(&repair);
	if (!err)
		err = clear_bits(&repair);
	if (!err) {
		outcome.left = repair.check.result;
		*result = outcome;
	}
	check_close(&repair.check);
	return err;
}
