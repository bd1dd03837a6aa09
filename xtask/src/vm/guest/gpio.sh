#!/bin/sh
# Simulated GPIO lines (gpio-sim), through configfs and sysfs.
#   gpio make LINES         makes a chip with LINES lines and prints its name, such as gpiochip0
#   gpio level LINE         prints 0 or 1: what an output drives, or what an input is pulled to
#   gpio pull LINE up|down  pulls an input; a program that waits for edges sees one
#   gpio watch LINE         prints the level, and again whenever it changes
#   gpio file LINE          prints the folder of the line, for scripts that must be fast
#   gpio unplug             removes the chip, whoever uses its lines
#   gpio plug               brings it back
# The variable CHIP names one of several chips (default: rig). /dev/gpio-CHIP leads to it: a chip that
# comes back may have another number.
set -e
config=/sys/kernel/config
rig=$config/gpio-sim/${CHIP:-rig}
link() {
	ln -snf "$(cat $rig/bank/chip_name)" "/dev/gpio-${CHIP:-rig}"
}
lines() {
	echo "/sys/devices/platform/$(cat $rig/dev_name)/$(cat $rig/bank/chip_name)/sim_gpio$1"
}
case $1 in
make)
	modprobe -a configfs gpio_sim
	[ -d $config/gpio-sim ] || mount -t configfs config $config
	mkdir $rig $rig/bank
	echo "$2" >$rig/bank/num_lines
	echo 1 >$rig/live
	link
	cat $rig/bank/chip_name
	;;
level) cat "$(lines "$2")/value" ;;
watch)
	file=$(lines "$2")/value
	last=
	while read -r level <"$file"; do
		[ "$level" = "$last" ] || echo "$level"
		last=$level
		usleep 10000
	done
	;;
file) lines "$2" ;;
unplug) echo 0 >$rig/live ;;
plug)
	echo 1 >$rig/live
	link
	;;
pull) echo "pull-$3" >"$(lines "$2")/pull" ;;
*) echo "gpio: make LINES | level LINE | watch LINE | pull LINE up|down | file LINE | unplug | plug" >&2 && exit 2 ;;
esac
