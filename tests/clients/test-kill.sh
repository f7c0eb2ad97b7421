#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards what clients were told is stable against SIGKILL: the server dies a
# hundred times under load on images of several kinds (kill.c says how, and what
# is asked of them then).
#
# QNBD_SEED is the first seed, TEST_ROUNDS multiplies the number of kills.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img

build=$(dirname "$QNBD")
kill=$build/tests/clients/kill
[ -x "$kill" ] || skip "there is no kill: install libnbd-dev, run configure" \
    "again, then make check"
seed=${QNBD_SEED:-1}
kills=20
if [ -n "${QNBD_SANITIZE:-}" ]; then
	kills=4
	echo "4 kills of each image instead of 20: the sanitizer is slow"
fi
rounds=${TEST_ROUNDS:-1}
echo "QNBD_SEED=$seed TEST_ROUNDS=$rounds"

# A base with data in its first three quarters.
qemu-img create -q -f qcow2 -o cluster_size=64k base.qcow2 16M
"$build/tests/crash/crash" base.qcow2 prepare
qemu-img create -q -f qcow2 -o cluster_size=512 512.qcow2 8M
qemu-img create -q -f qcow2 -o cluster_size=4k 4k.qcow2 16M
qemu-img create -q -f qcow2 -o cluster_size=64k 64k.qcow2 16M
qemu-img create -q -f qcow2 -o cluster_size=2M 2M.qcow2 64M
qemu-img create -q -f qcow2 -o cluster_size=64k -b base.qcow2 -F qcow2 \
    overlay.qcow2

failures=0
for ((round = 0; round < rounds; round++)); do
	for image in 512 4k 64k 2M overlay; do
		begin=$SECONDS
		"$kill" "$QNBD" "$image.qcow2" $((seed + round)) $kills \
		    >out 2>"$image.log" || {
			echo "$image, seed $((seed + round)): status $?"
			tail -n 20 "$image.log"
			failures=$((failures + 1))
		}
		echo "$image: $(grep kills out), $((SECONDS - begin)) s"
		if grep -E 'Sanitizer|runtime error:' "$image.log"; then
			failures=$((failures + 1))
		fi
		# What was leaked must not fill the disk.
		qemu-img check -q -f qcow2 -r leaks "$image.qcow2" \
		    >leaks.log 2>&1 || fail "$image: leaks, status $?"
	done
done
[ $failures -eq 0 ] || fail "a kill did harm"
