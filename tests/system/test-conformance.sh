#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the protocol, byte by byte: each rule of the NBD specification that
# concerns what qnbd offers is a case with raw sockets.  tests/conformance says
# what each case guards against; CONFORMANCE_CASES chooses some ('c38*').
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires /usr/bin/python3 qemu-img qemu-io

# The patterns are words.
# shellcheck disable=SC2086
/usr/bin/python3 -B "$top/tests/conformance/conformance.py" --qnbd "$QNBD" \
    ${CONFORMANCE_CASES:-}
