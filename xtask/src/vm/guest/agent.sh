#!/bin/sh
# Runs commands for the host over a virtio port.
#
# A request is a line "SECONDS COMMAND_BYTES INPUT_BYTES", then the command and its standard input.
# An answer is a line "STATUS OUT_BYTES ERR_BYTES", then standard output and standard error. The
# command reads and writes files instead of the port, so that programs that it leaves running in the
# background neither delay nor disturb the answer.
number=0
for port in /sys/class/virtio-ports/*; do
	[ "$(cat "$port/name")" = control ] && device=/dev/${port##*/}
done
exec 3<>"$device" || exit 1
while read -r seconds command_bytes input_bytes <&3; do
	number=$((number + 1))
	at=/run/command.$number
	mkdir "$at"
	: >"$at/input"
	dd bs="$command_bytes" count=1 iflag=fullblock of="$at/command" <&3 2>/dev/null
	[ "$input_bytes" = 0 ] || dd bs="$input_bytes" count=1 iflag=fullblock of="$at/input" <&3 2>/dev/null
	timeout -s KILL "$seconds" sh "$at/command" <"$at/input" >"$at/out" 2>"$at/err" 3<&-
	status=$?
	out=$(stat -c %s "$at/out")
	err=$(stat -c %s "$at/err")
	echo "$status $out $err" >&3
	head -c "$out" "$at/out" >&3
	head -c "$err" "$at/err" >&3
	rm -r "$at"
done
