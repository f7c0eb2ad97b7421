#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards against unit files that systemd warns about or that give the service
# more of the machine than it needs: a misspelt directive is otherwise ignored
# in silence, and so is the protection it should have given.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires systemd-analyze systemctl

# The units as installed, but starting the program that was just built.
units=$tmp/root/etc/systemd/system
mkdir -p "$units"
sed "s|@bindir@/qnbd|$QNBD|" "$top/systemd/qnbd@.service.in" \
    >"$units/qnbd@.service"
cp "$top/systemd/qnbd@.socket" "$units"

echo "verify:"
expect_status 0 systemd-analyze verify --man=no \
    "$units/qnbd@.service" "$units/qnbd@.socket"
if [ -s "$tmp/out" ] || [ -s "$tmp/err" ]; then
	cat "$tmp/out" "$tmp/err" >&2
	fail "systemd-analyze verify has warnings"
fi

echo "exposure, at most 1.0:"
expect_status 0 systemd-analyze security --offline=yes --threshold=10 \
    --no-pager "$units/qnbd@.service"
tail -n 1 "$tmp/out"

# A wrong [Install] section would otherwise be found by the first user.
echo "enable:"
expect_status 0 systemctl --root="$tmp/root" enable qnbd@demo.service
expect_text "$tmp/err" 'sockets.target.wants/qnbd@demo.socket'
expect_text "$tmp/err" 'multi-user.target.wants/qnbd@demo.service'

if [ "$(id -u)" -ne 0 ]; then
	echo "sysusers, tmpfiles: not tried, since only root may"
	exit 0
fi
echo "sysusers, tmpfiles:"
requires systemd-sysusers systemd-tmpfiles
mkdir -p "$tmp/root/var/lib" "$tmp/root/run"
expect_status 0 systemd-sysusers --root="$tmp/root" \
    "$top/systemd/sysusers.d/qnbd.conf"
expect_text "$tmp/root/etc/passwd" '^qnbd:.*:/var/lib/qnbd:'
expect_status 0 systemd-tmpfiles --root="$tmp/root" --create \
    "$top/systemd/tmpfiles.d/qnbd.conf"
[ -d "$tmp/root/var/lib/qnbd" ] || fail "no /var/lib/qnbd was made"
