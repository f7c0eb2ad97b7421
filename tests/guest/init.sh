#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The first and only process of the guest that test-guest.sh boots; sh and all
# small tools are busybox, which prefers its own mke2fs to any other: programs
# that it may have too are called by their path.  The kernel's command line
# brings
#
#	nbd_port=PORT		exports "disk" and "swap" on the host
#	result_port=PORT	and there, raw, "result"
#
# Everything is printed to the serial line; the last line is the verdict.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

step=start
verdict()
{
	status=$?
	trap - EXIT
	if [ "$status" -eq 0 ]; then
		echo "GUEST-VERDICT ok"
	else
		echo "GUEST-VERDICT failed at: $step"
	fi
	poweroff -f
}
trap verdict EXIT

begin()
{
	step=$*
	echo "GUEST [$(cut -d ' ' -f 1 /proc/uptime)] $step"
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
begin "kernel $(uname -r)"
nbd_port=$(sed 's/.*nbd_port=\([0-9]*\).*/\1/' /proc/cmdline)
result_port=$(sed 's/.*result_port=\([0-9]*\).*/\1/' /proc/cmdline)
while read -r module; do
	insmod "$module"
done </modules
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up

attach()
{
	/usr/bin/nbd-client -N disk -C 2 10.0.2.2 "$nbd_port" /dev/nbd0
	[ "$(cat /sys/block/nbd0/size)" -gt 0 ]
	[ "$(find /sys/block/nbd0/mq -mindepth 1 -maxdepth 1 | wc -l)" -eq 2 ]
}

detach()
{
	/usr/bin/nbd-client -d /dev/nbd0
	# The device is free again a little later.
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		[ -e /sys/block/nbd0/pid ] || return 0
		sleep 0.2
	done
	return 1
}

begin "attach over two connections"
attach
begin "make a file system"
/usr/bin/mke2fs -q -t ext4 /dev/nbd0
mount -t ext4 -o discard /dev/nbd0 /mnt
begin "write a tree of files"
mkdir /mnt/tree /mnt/gone
cp -a /usr /mnt/tree/
cp -a /lib /mnt/gone/
dd if=/dev/urandom of=/mnt/tree/noise bs=1M count=8 2>/dev/null
dd if=/dev/urandom of=/mnt/tree/pieces bs=3000 count=1 2>/dev/null
for i in $(seq 100 20 400); do
	dd if=/dev/urandom of=/mnt/tree/pieces bs=999 count=3 seek="$i" \
	    conv=notrunc,fsync 2>/dev/null
done
mkdir /mnt/tree/small
for i in $(seq 1 300); do
	seq 1 "$i" >"/mnt/tree/small/$i"
done
rm -r /mnt/gone
fstrim /mnt
(cd /mnt && find tree -type f -exec sha256sum {} +) >/tmp/sums
[ "$(wc -l </tmp/sums)" -gt 300 ]
umount /mnt
begin "detach and attach again"
detach
attach
begin "check the file system"
/usr/bin/e2fsck -fn /dev/nbd0
mount -t ext4 -o ro /dev/nbd0 /mnt
(cd /mnt && sha256sum -c /tmp/sums >/tmp/checked) || {
	grep -v ': OK$' /tmp/checked
	exit 1
}
umount /mnt
detach

begin "swap: what a group has no memory for"
/usr/bin/nbd-client -swap -N swap 10.0.2.2 "$nbd_port" /dev/nbd0
mkswap /dev/nbd0
swapon /dev/nbd0
mkdir /cgroup
mount -t cgroup2 cgroup2 /cgroup
echo +memory >/cgroup/cgroup.subtree_control
mkdir /cgroup/small
echo $((16 << 20)) >/cgroup/small/memory.max
sh -c 'echo $$ >/cgroup/small/cgroup.procs
    dd if=/dev/urandom bs=1M count=32 2>/dev/null | tee /tmp/blob | sha256sum \
	>/tmp/blob.sum'
grep -w pswpout /proc/vmstat
[ "$(awk '$1 == "pswpout" { print $2 }' /proc/vmstat)" -gt 2500 ]
[ "$(sha256sum </tmp/blob)" = "$(cat /tmp/blob.sum)" ]
rm /tmp/blob
swapoff /dev/nbd0
detach

# serve IMAGE: our own server, in this guest.
serve()
{
	rm -f /tmp/ready
	mkfifo /tmp/ready
	qnbd serve -u /tmp/sock --ready-fd 9 "$@" 9>/tmp/ready >/tmp/uri \
	    2>/tmp/log &
	server=$!
	read -r _ </tmp/ready || [ -S /tmp/sock ]
}

stop()
{
	kill -TERM "$server"
	wait "$server"
	cat /tmp/log
}

begin "serve an image in the guest"
cp /image.qcow2 /tmp/image.qcow2
serve /tmp/image.qcow2
grep 'ready engine=io_uring' /tmp/log
uri="nbd+unix:///image?socket=/tmp/sock"
nbdinfo --size "$uri"
nbdcopy "$uri" /tmp/copy.raw
sha256sum /tmp/copy.raw >/tmp/sum
grep "$(cat /image.sum)" /tmp/sum
begin "write it in the guest"
nbdcopy --flush --connections=4 /other.raw "$uri"
stop
begin "read that again, with both engines"
for engine in uring threads; do
	serve -r --io "$engine" /tmp/image.qcow2
	rm /tmp/copy.raw
	nbdcopy "$uri" /tmp/copy.raw
	cmp /tmp/copy.raw /other.raw
	stop
done
begin "serve over vsock"
serve -r --listen vsock:10809 /tmp/image.qcow2
grep '^nbd+vsock://1:10809/image$' /tmp/uri
rm /tmp/copy.raw
nbdcopy nbd+vsock://1:10809/image /tmp/copy.raw
cmp /tmp/copy.raw /other.raw
stop
grep 'left peer="vsock 1:' /tmp/log
begin "serve an image on a block device, which was full of something else"
dd if=/image.qcow2 of=/dev/vda bs=64k conv=notrunc,fsync 2>/dev/null
serve /dev/vda
uri="nbd+unix:///vda?socket=/tmp/sock"
nbdcopy "$uri" /tmp/copy.raw
sha256sum /tmp/copy.raw >/tmp/sum
grep "$(cat /image.sum)" /tmp/sum
nbdcopy --flush --connections=4 /other.raw "$uri"
stop
qnbd check /dev/vda
serve -r /dev/vda
nbdcopy "$uri" /tmp/copy.raw
cmp /tmp/copy.raw /other.raw
stop
begin "serve the block device with TLS, which the kernel encrypts"
serve -v -r --tls /pki/server --listen tcp:127.0.0.1:10909 /dev/vda
uri="nbds://127.0.0.1:10909/vda?tls-certificates=/pki/client"
nbdcopy --connections=4 "$uri" /tmp/copy.raw
cmp /tmp/copy.raw /other.raw
nbdcopy --request-size=4096 "$uri" /tmp/copy.raw
cmp /tmp/copy.raw /other.raw
[ "$(grep -c 'TLS is on .* encrypted-by="the kernel"$' /tmp/log)" -ge 2 ]
stop
begin "attach with TLS, which the server encrypts"
serve -v --tls /pki/server --listen tcp:127.0.0.1:10909 \
    one=/tmp/image.qcow2
/usr/bin/nbd-client -x -cacertfile /pki/client/ca-cert.pem \
    -certfile /pki/client/client-cert.pem \
    -keyfile /pki/client/client-key.pem -tlshostname localhost \
    -N one 127.0.0.1 10909 /dev/nbd0
cmp /dev/nbd0 /other.raw
dd if=/image.qcow2 of=/dev/nbd0 bs=64k conv=fsync 2>/dev/null
dd if=/other.raw of=/dev/nbd0 bs=64k conv=fsync 2>/dev/null
detach
nbdcopy "nbds://127.0.0.1:10909/one?tls-certificates=/pki/client" \
    /tmp/copy.raw
cmp /tmp/copy.raw /other.raw
stop
begin "hand the image over to the host"
nbdcopy /tmp/image.qcow2 "nbd://10.0.2.2:$result_port/result"
begin "end"
