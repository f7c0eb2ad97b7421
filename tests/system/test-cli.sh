#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the command line: a mistake must end with status 64 and a message that
# names what was wrong, and what was probably meant, before anything is opened.
. "${abs_top_srcdir:-.}/tests/functions.sh"

# usage_error REGEX ARG...: status 64, nothing on standard output, two lines.
usage_error()
{
	local regex=$1
	shift
	expect_status 64 "$QNBD" "$@"
	expect_text "$tmp/err" "^qnbd: $regex"
	expect_text "$tmp/err" '^  for help: qnbd '
	[ ! -s "$tmp/out" ] || fail "output from: qnbd $*"
	[ "$(wc -l <"$tmp/err")" -eq 2 ] || fail "not two lines: qnbd $*"
}

echo "help and version:"
expect_status 0 "$QNBD" --help
expect_text "$tmp/out" '^Usage: qnbd COMMAND'
expect_status 0 "$QNBD" -h
expect_status 0 "$QNBD" --version
expect_text "$tmp/out" '^qnbd [0-9]+\.[0-9]+'
for command in serve info map; do
	expect_status 0 "$QNBD" "$command" --help
	expect_text "$tmp/out" "^Usage: qnbd $command "
	expect_status 0 "$QNBD" "$command" -h
done
expect_status 64 "$QNBD"
expect_text "$tmp/err" '^Usage: qnbd COMMAND'

echo "every short option has a long one:"
for command in serve info map; do
	"$QNBD" "$command" --help | grep -E '^  +-[a-z]' >"$tmp/short" || :
	if grep -vE '^  -[a-z], --[a-z]' "$tmp/short"; then
		fail "$command has an option of one letter only"
	fi
done

echo "unknown words:"
usage_error 'unknown command serv; did you mean serve\?$' serv
usage_error 'unknown command xyzzy$' xyzzy
usage_error 'unknown option --versoin; did you mean --version\?$' --versoin
usage_error 'unknown option --read-onyl; did you mean --read-only\?$' \
    serve --read-onyl x.qcow2
usage_error 'unknown option --lsiten; did you mean --listen\?$' \
    serve --lsiten=unix:/x x.qcow2
usage_error 'unknown option --zzzzzzzz$' serve --zzzzzzzz x.qcow2
usage_error 'unknown option -Z$' serve -Z x.qcow2
usage_error 'unknown option --cahin; did you mean --chain\?$' info --cahin x

echo "values:"
usage_error '--port needs PORT$' serve -p
usage_error '--export-name needs NAME$' serve x.qcow2 --export-name
usage_error '--read-only=yes takes no value$' serve --read-only=yes x
for port in 65536 -1 ten 1x ''; do
	usage_error "--port $port: this takes a number from 0 to 65535$" \
	    serve --port "$port" x.qcow2
done
usage_error '--threads 0: this takes a number' serve --threads 0 x.qcow2
usage_error '--format vmdk: this takes qcow2\|raw$' serve -f vmdk x.qcow2
usage_error '--io epoll: this takes auto\|uring\|threads$' \
    serve --io epoll x.qcow2
usage_error '--discard no: this takes unmap\|ignore\|no-unref$' \
    serve --discard no x
for size in 64Q 1K x '' 99999999999G; do
	usage_error "--metadata-cache $size: this takes a size" \
	    serve --metadata-cache "$size" x.qcow2
done
for place in x unix: tcp:1 tcp:a:b tcp:a:65536 tcp:::1:5 vsock: vsock:x \
    vsock:4294967296 tcp::1; do
	usage_error "--listen $place: this takes unix:PATH, tcp:ADDR:PORT or \
vsock:PORT$" \
	    serve --listen "$place" x.qcow2
done
usage_error '--ready-fd 77: this descriptor is not open$' \
    serve --ready-fd 77 x.qcow2

echo "what does not go together:"
usage_error 'serve needs at least one image$' serve
usage_error '--export-name is for one image' serve -x a x.qcow2 y.qcow2
usage_error 'b=x.qcow2 has a name already' serve -x a b=x.qcow2
usage_error '--force-share is only safe read-only' serve --force-share x
usage_error 'info takes one FILE$' info
usage_error 'info takes one FILE$' info a b
usage_error 'map takes one FILE$' map

echo "names:"
usage_error 'a/x.qcow2 and b/x.qcow2 would both be called "x"' \
    serve a/x.qcow2 b/x.qcow2
usage_error 'x.qcow2 and y.qcow2 would both be called "n"' \
    serve n=x.qcow2 n=y.qcow2
usage_error 'n= is followed by no image$' serve n=
usage_error 'the export name for x.qcow2 is longer than 4096 bytes$' \
    serve -x "$(printf '%04097d' 0)" x.qcow2

echo "--json before the command:"
expect_status 1 "$QNBD" --json info absent.qcow2
usage_error 'unknown option --json$' --json serve x.qcow2

echo "images that cannot be served:"
failure()
{
	local status=$1 regex=$2
	shift 2
	expect_status "$status" "$QNBD" serve -u "$tmp/none.sock" "$@"
	expect_text "$tmp/err" "$regex"
	[ ! -s "$tmp/out" ] || fail "output from: qnbd serve $*"
	[ ! -e "$tmp/none.sock" ] || fail "a socket stayed behind"
}
failure 1 '^qnbd: .*absent.qcow2' absent.qcow2
printf 'not an image' >text.qcow2
failure 1 '^qnbd: .*text.qcow2' text.qcow2
failure 1 '^qnbd: ' "$tmp"
