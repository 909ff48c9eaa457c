#!/bin/bash
# SPDX-License-Identifier: MIT
#
# DKMS 3.0.10 (Debian 12) does not know BUILD_EXCLUSIVE_KERNEL_MIN, and does not say so.
#
# Current manuals of DKMS have BUILD_EXCLUSIVE_KERNEL_MIN and _MAX: the versions of kernels that a
# module is for. A dkms.conf with one of them is accepted by Debian 12's DKMS without a word, and
# the module is built for kernels that it is not for: where it does not compile, each installation
# of such a kernel ends with an error instead of leaving the module out. (Exit status 77 is what
# package managers' hooks take for "not for this kernel".)
#
# Seen with dkms 3.0.10-8+deb12u1, for a kernel 5.10.0-1-amd64 that need not be there:
#
#   BUILD_EXCLUSIVE_KERNEL_MIN="6.1"   built, exit status 0
#   BUILD_EXCLUSIVE_KERNEL="^6"        left out, exit status 77
#
# What works everywhere is the pattern: for 6.1 and later
#
#   BUILD_EXCLUSIVE_KERNEL="^(6\.[1-9][0-9]*|[7-9]|[1-9][0-9]+)([.-]|$)"
#
# Needs apt-get and Debian 12's package lists; downloads one package into a temporary folder and
# installs nothing. Exit status 0: as described, 1: it behaves otherwise.
set -eu

version=3.0.10-8+deb12u1
kernel=5.10.0-1-amd64
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get -q -o APT::Sandbox::User=root download "dkms=$version" >/dev/null
dpkg -x dkms_*.deb package
mkdir -p tree kernel/include

# try NAME DIRECTIVE: builds a module with this line in its dkms.conf; its exit status in $status.
try() {
    mkdir -p "source/$1-1"
    touch "source/$1-1/$1.c"
    cat >"source/$1-1/dkms.conf" <<END
PACKAGE_NAME=$1
PACKAGE_VERSION=1
BUILT_MODULE_NAME[0]=$1
DEST_MODULE_LOCATION[0]=/updates
MAKE[0]="cp $1.c $1.ko"
CLEAN=true
$2
END
    status=0
    bash package/usr/sbin/dkms build --dkmstree "$folder/tree" --sourcetree "$folder/source" \
        --installtree "$folder/modules" --kernelsourcedir "$folder/kernel" \
        -m "$1" -v 1 -k "$kernel" -a x86_64 >"$1.log" 2>&1 || status=$?
    echo "$2: exit status $status"
}

try minimum 'BUILD_EXCLUSIVE_KERNEL_MIN="6.1"'
minimum=$status
try pattern 'BUILD_EXCLUSIVE_KERNEL="^6"'
pattern=$status
try both 'BUILD_EXCLUSIVE_KERNEL="^(6\.[1-9][0-9]*|[7-9]|[1-9][0-9]+)([.-]|$)"'
if [ "$minimum" = 0 ] && [ "$pattern" = 77 ] && [ "$status" = 77 ] &&
    [ -f "tree/minimum/1/$kernel/x86_64/module/minimum.ko" ]; then
    echo "dkms $version: as described"
else
    echo "dkms $version: not as described" >&2
    cat ./*.log >&2
    exit 1
fi
