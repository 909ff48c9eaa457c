#!/bin/bash
# SPDX-License-Identifier: MIT
#
# lspci asks udev's hardware database for a device's name, and prints it only where the vendor has
# a name too.
#
# Debian's libpci looks into hwdb for what pci.ids does not have, so a package can name its device
# with a file in hwdb.d, and `systemd-hwdb query` and `udevadm info` show that name. lspci looks for
# vendor and device by two separate keys, "pci:vVVVV*" and "pci:vVVVVdDDDD*", and where the first
# gives nothing it prints both numbers, though it has found the second. An ID_VENDOR_FROM_DATABASE
# beside the device's ID_MODEL_FROM_DATABASE does not help: it has to stand under a key of the
# vendor's alone.
#
# Seen with pciutils 3.9.0, for a device ffee:0001 of an unknown vendor:
#
#   under pci:v0000FFEEd00000001*: model            Device ffee:0001
#   there: vendor and model                         Device ffee:0001
#   vendor under pci:v0000FFEE*, model as before    Some vendor Some model
#
# Needs root (chroot), apt-get and Debian 12's package lists, and systemd-hwdb or the package
# systemd's; downloads packages into a temporary folder and installs nothing. Exit status 0: as
# described, 1: it behaves otherwise.
set -eu

version=1:3.9.0-4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get -q -o APT::Sandbox::User=root download "pciutils=$version" "libpci3=$version" libc6 \
    libudev1 zlib1g libkmod2 libzstd1 liblzma5 libssl3 libcap2 udev systemd libsystemd-shared >/dev/null
mkdir -p root/tmp root/etc/udev/hwdb.d tool
for package in *.deb; do
    case $package in
    systemd_* | libsystemd-shared_* | udev_*) dpkg -x "$package" tool ;;
    *) dpkg -x "$package" root ;;
    esac
done
hwdb=$(find tool -name systemd-hwdb -type f | head -n 1)
shared=$(dirname "$(find tool -name 'libsystemd-shared-*.so' | head -n 1)")
{
    echo '00:01.0 0300: x'
    echo '00: ee ff 01 00 00 00 00 00 00 00 00 03 00 00 00 00'
    for row in 10 20 30; do echo "$row: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"; done
} >root/tmp/dump
: >root/tmp/ids

# name_with HWDB: what lspci calls the device.
name_with() {
    printf "$1" >root/etc/udev/hwdb.d/60-x.hwdb
    LD_LIBRARY_PATH=$shared "$hwdb" update --root="$folder/root"
    chroot root /usr/bin/lspci -i /tmp/ids -F /tmp/dump | sed 's/^[^ ]* [^:]*: //'
}
key='pci:v0000FFEEd00000001*\n'
model=$(name_with "$key ID_MODEL_FROM_DATABASE=Some model\n")
both=$(name_with "$key ID_VENDOR_FROM_DATABASE=Some vendor\n ID_MODEL_FROM_DATABASE=Some model\n")
apart=$(name_with "pci:v0000FFEE*\n ID_VENDOR_FROM_DATABASE=Some vendor\n\n$key ID_MODEL_FROM_DATABASE=Some model\n")
echo "pciutils $version: model: '$model'; both there: '$both'; vendor apart: '$apart'"
[ "$model" = "Device ffee:0001" ] && [ "$both" = "Device ffee:0001" ] &&
    [ "$apart" = "Some vendor Some model" ]
