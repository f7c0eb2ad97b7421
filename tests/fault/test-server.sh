#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards what a server does whose disk, memory or log fails: reads that fail
# hit nobody else, a failed sync stays failed, a file cut short is an error and
# no zeros, a log that nobody reads holds nobody up, the longest chain fits a
# stack, and each allocation of its life may fail.
#
#	test-server.sh [NAME...]	only these of server_faults.py
#
# TEST_ROUNDS multiplies how many of the allocations are tried.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires python3

QNBD_PRELOAD=$(dirname "$QNBD")/tests/fault/preload.so
export QNBD_PRELOAD
lives_max=$((150 * ${TEST_ROUNDS:-1}))
with_preload=(read_fails read_fails_raw sync_fails sync_fails_raw fua_fails
    fua_fails_raw)
without=(is_cut is_cut_raw log_pipe_is_full log_pipe_is_broken log_is_closed
    long_chain long_chain_threads)

failures=0 skipped=0
case ${QNBD_SANITIZE:-} in
'')
	[ -e "$QNBD_PRELOAD" ] ||
	    fail "there is no $QNBD_PRELOAD; make check builds it"
	cases=("${with_preload[@]}" "${without[@]}")
	;;
*)
	echo "left out: what needs LD_PRELOAD, which the sanitizers do not" \
	    "bear (${with_preload[*]}, allocations)"
	cases=("${without[@]}")
	skipped=$((${#with_preload[@]} + 1))
	;;
esac

[ $# -eq 0 ] || cases=("$@")
python3 -B "$top/tests/fault/server_faults.py" "${cases[@]}" >out ||
    failures=$?
cat out
passed=$(tail -n 1 out | cut -d ' ' -f 1)
if [ $skipped -eq 0 ] && [ $# -eq 0 ]; then
	if python3 -B "$top/tests/fault/server_memory.py" $lives_max; then
		passed=$((passed + 1))
	else
		failures=$((failures + 1))
	fi
fi
[ $failures -eq 0 ] || fail "a fault does harm"
echo "$passed passed, $failures failed, $skipped skipped"
