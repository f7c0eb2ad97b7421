#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# tests/summary.sh BUILD...
#
# Counts what the last `make check` in each build directory ran and prints
# `N passed, N failed, N skipped` over all of them.  A test that counts its own
# cases (a unit test, or one whose last line has that form) adds those; any
# other adds one.  Fails if anything failed or nothing was run.
set -eu -o pipefail

passed=0 failed=0 skipped=0

# Prints the three numbers that the log of one test gives, if it gives any.
count_cases()
{
	awk '
	/^[0-9]+%: Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+$/ {
		ran += $3; bad += $5 + $7; has_checks = 1
	}
	# The very last line is the verdict of the test driver.
	NF { last = latest; latest = $0 }
	END {
		if (has_checks)
			print ran - bad, bad, 0
		else if (split(last, part, /[, ]+/) == 6 &&
		    part[2] == "passed" && part[4] == "failed")
			print part[1], part[3], part[5]
	}' "$1"
}

# add_test RESULT LOG
add_test()
{
	local p f s
	read -r p f s < <(count_cases "$2") || p=0 f=0 s=0
	case $1 in
	PASS)
		[ $((p + f + s)) -gt 0 ] || p=1
		;;
	SKIP)
		p=0 f=0 s=1
		;;
	*)
		# It may have died after its last good case.
		[ "$f" -gt 0 ] || f=1
		;;
	esac
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

for build; do
	while IFS= read -r trs; do
		result=$(sed -n 's/^:test-result: \([A-Z]*\).*/\1/p' "$trs")
		add_test "$result" "${trs%.trs}.log"
	done < <(find "$build" -name fuzzing -prune -o -name '*.trs' -print)
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
