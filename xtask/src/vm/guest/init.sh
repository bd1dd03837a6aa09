#!/bin/busybox sh
# The guest's first process: mounts file systems, loads drivers, sets up the network, then runs the
# agent for ever.
/bin/busybox mkdir -p /sbin /usr/bin /usr/sbin /proc /sys /dev /tmp /run /state
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/ TERM=dumb

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run

modprobe -a virtio_pci virtio_console virtio_blk virtio_net
# The kernel's command line names the serial port, whose name depends on the machine.
ln -s "$cable" /dev/cable
# QEMU's ARM board has a GPIO chip of its own, for its power key. It is removed, so that the
# simulated one becomes gpiochip0.
own=/sys/bus/amba/drivers/pl061_gpio
for chip in "$own"/*.pl061; do
	[ ! -e "$chip" ] || echo "${chip##*/}" >"$own/unbind"
done
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up

if [ -b /dev/vda ]; then
	modprobe -a crc32c_generic ext4
	mount -t ext4 -o data=ordered,barrier=1 /dev/vda /state || echo "init: /state cannot be mounted"
fi

# If the agent ends, its channel closes; the next agent opens it again.
while :; do
	/lib/vm/agent
	sleep 1
done
