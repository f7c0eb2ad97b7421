#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards what a damaged image may lead to: every bit of the tables of ten small
# images is turned over, one after the other, and the image is read and written
# (flips.c says what must come of that).
#
# With QNBD_DAMAGES, so many images are damaged at random from QNBD_SEED on, and
# qnbd check and qemu-img check must agree on them (damage.py says in what they
# need not), and half as many are repaired (repairs.py).  test-check.sh and
# test-repair.sh do that with some.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io

flips=$(dirname "$QNBD")/tests/damage/flips
[ -x "$flips" ] || fail "there is no $flips; make check builds it"
bash "$top/tests/damage/make-seeds.sh" seeds
images=(seeds/*.qcow2)
[ ${#images[@]} -eq 10 ] || fail "${#images[@]} images"
case ${QNBD_SANITIZE:-} in
?*)
	images=(seeds/0[356]*.qcow2)
	echo "three images of ten: the sanitizer is slow"
	;;
esac
"$flips" "${images[@]}" || fail "a bit that is turned over does harm"
[ -n "${QNBD_DAMAGES:-}" ] || exit 0

# qemu-img opens the backing file, too.
cp seeds/09-base.raw .
python3 -B "$top/tests/system/damage.py" "$QNBD" "${QNBD_SEED:-1}" \
    "$QNBD_DAMAGES" seeds/*.qcow2 || fail "two checks do not agree"
python3 -B "$top/tests/damage/repairs.py" "$QNBD" "${QNBD_SEED:-1}" \
    "$((QNBD_DAMAGES / 2))" seeds/*.qcow2 || fail "a repair is wrong"
