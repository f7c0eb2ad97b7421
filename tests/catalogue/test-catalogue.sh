#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards against every hole that other servers had in what they make of an
# image: crafted headers and tables, names of files, disks that a guest made
# look like an image; each is a case (image_*.py say what they guard against).
# Guards the list of them, too: whatever test it names must be there.
#
#	test-catalogue.sh [PATTERN...]	ids, or names of cases
#
# The cases on the wire that the list names are run by test-conformance.sh.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires /usr/bin/python3

if [ -n "${QNBD_SANITIZE:-}" ]; then
	echo "some images are an eighth as large: the sanitizer is slow"
fi
/usr/bin/python3 -B "$top/tests/catalogue/catalogue.py" --images \
    --qnbd "$QNBD" "$@"
