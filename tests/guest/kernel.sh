#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# tests/guest/kernel.sh DIRECTORY: brings Debian's kernel, and the modules that
# the guest needs, into DIRECTORY, unless they are there already:
#
#	vmlinuz		the kernel
#	modules		paths of modules, in the order in which they are loaded
#	lib/modules/	the modules
#
# Nothing is installed.  Exit status 77: the package cannot be had here.
set -eu -o pipefail

directory=${1:?"usage: $0 DIRECTORY"}
# gcm and below: what tls asks the kernel for.
wanted=(virtio_pci virtio_net virtio_blk nbd ext4 crc32c_generic
    vsock_loopback tls gcm ctr ghash_generic aes_generic)

unavailable()
{
	echo "SKIP: $*" >&2
	exit 77
}

# A copy that is made halfway never takes the place of a whole one, and one that
# was made for less is made anew.
if [ -e "$directory/modules" ] &&
    [ "${wanted[*]}" = "$(cat "$directory/wanted" 2>/dev/null)" ]; then
	exit 0
fi
mkdir -p "$directory"
cd "$directory"
work=$(mktemp -d ./work-XXXXXX)
trap 'rm -rf "$work"' EXIT

package=$(apt-cache depends linux-image-amd64 2>/dev/null |
    awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
[ -n "$package" ] || unavailable "apt-cache knows no linux-image-amd64;" \
    "run apt-get update"
(cd "$work" && timeout 120 apt-get -qq download "$package" 2>apt.log) ||
    unavailable "cannot download $package: $(tail -n 1 "$work/apt.log")"

dpkg-deb --fsys-tarfile "$work"/*.deb | tar -x -C "$work" --wildcards \
    './boot/vmlinuz-*' '*/kernel/net/tls/*' '*/lib/modules/*/modules.*' \
    '*/kernel/drivers/block/nbd.ko*' '*/kernel/drivers/block/virtio_blk.ko*' \
    '*/kernel/drivers/net/*virtio_net.ko*' \
    '*/kernel/drivers/net/net_failover.ko*' '*/kernel/net/core/*' \
    '*/kernel/net/vmw_vsock/*' \
    '*/kernel/drivers/virtio/*' '*/kernel/fs/ext4/*' '*/kernel/fs/jbd2/*' \
    '*/kernel/fs/mbcache.ko*' '*/kernel/lib/*' '*/kernel/crypto/*'
# From Debian 13 on they are below usr, and compressed.
[ ! -d "$work/usr/lib" ] || mv "$work/usr/lib" "$work/lib"
find "$work/lib" -name '*.ko.xz' -exec busybox unxz {} +
version=$(basename "$work"/lib/modules/*)
depmod -b "$work" "$version"
for module in "${wanted[@]}"; do
	modprobe -d "$PWD/$work" -S "$version" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
    sed "s|^$PWD/$work||" >"$work/modules"

mv "$work"/boot/vmlinuz-* vmlinuz
rm -rf lib
mv "$work/lib" lib
echo "${wanted[*]}" >wanted
mv "$work/modules" modules
