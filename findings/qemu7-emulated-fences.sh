#!/bin/bash
# SPDX-License-Identifier: MIT
#
# QEMU 7.2 (Debian 12) emulates a lone processor's memory fences by nothing at all.
#
# With TCG, fences of the guest (MFENCE, and those of locked instructions) become fences of the host
# where the guest has, or may get, a second processor. With one processor they are left out: nobody
# inside QEMU runs beside it. But somebody outside may: another process that shares memory with the
# guest (ivshmem, vhost-user, a device with memory of its own). "Store, fence, look" then is not
# what the guest's program says: the look may come before the store, and of two sides that tell each
# other in this way "I sleep" and "there is work", both may miss it.
#
# QEMU 8.1 emulates them always; Debian's 7.2.22 does not. With KVM there is no such thing.
#
# What helps: -smp 1,maxcpus=2; or, in the guest, to look again after a while.
#
# Seen with qemu-system-x86 1:7.2+dfsg-7+deb12u18+b3: operations "mb" in what an MFENCE is
# translated to:
#
#   -smp 1             0
#   -smp 1,maxcpus=2   1
#
# Needs apt-get and Debian 12's package lists; downloads into a temporary folder and installs
# nothing. Exit status 0: as described, 1: it behaves otherwise.
set -eu

version=1:7.2+dfsg-7+deb12u18+b3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
mkdir -p "$folder/archives/partial" "$folder/root"
apt-get -q -y -o APT::Sandbox::User=root -o Dir::Cache::archives="$folder/archives" \
    install --download-only --no-install-recommends --reinstall \
    "qemu-system-x86=$version" "qemu-system-common=$version" >/dev/null
for package in "$folder"/archives/*.deb; do
    dpkg -x "$package" "$folder/root"
done
cd "$folder"
libraries=$folder/root/usr/lib/x86_64-linux-gnu

# A ROM whose first instructions, at the reset vector, are MFENCE and OUT 0xf4, AL, which ends QEMU.
head -c 65536 /dev/zero >rom
printf '\x0f\xae\xf0\xe6\xf4\xf4' | dd of=rom bs=1 seek=65520 conv=notrunc status=none

# fences SMP: how many fences the translation has.
fences() {
    rm -f log
    QEMU_MODULE_DIR="$libraries/qemu" LD_LIBRARY_PATH="$libraries:root/lib/x86_64-linux-gnu" \
        timeout 60 root/usr/bin/qemu-system-x86_64 -L root/usr/share/qemu -accel tcg -M pc \
        -cpu qemu64 -smp "$1" -nodefaults -display none -bios rom \
        -device isa-debug-exit,iobase=0xf4,iosize=4 -d op -D log >/dev/null 2>&1 || true
    # Nothing, unless it did run: the OUT is there.
    ! grep -q 'call outb' log || grep -c '^ *mb ' log || true
}

alone=$(fences 1)
more=$(fences 1,maxcpus=2)
echo "fences: $alone with -smp 1, $more with -smp 1,maxcpus=2"
if [ "$alone" = 0 ] && [ "$more" = 1 ]; then
    echo "as described"
    exit 0
fi
echo "it behaves otherwise"
exit 1
