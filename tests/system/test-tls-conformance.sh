#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the protocol inside TLS: the cases of test-conformance.sh once more,
# with each client in a TLS session, so that records and requests do not begin
# and end together.  Left out are those that are about what comes before TLS.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires /usr/bin/python3 qemu-img qemu-io openssl

# The patterns are words.
# shellcheck disable=SC2086
/usr/bin/python3 -B "$top/tests/conformance/conformance.py" --over-tls \
    --qnbd "$QNBD" ${CONFORMANCE_CASES:-'c02*' 'c04*' 'c1*' 'c2*' 'c3*' 'c4*'}
