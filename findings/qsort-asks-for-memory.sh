#!/bin/bash
# SPDX-License-Identifier: MIT
#
# glibc 2.36's qsort() makes a system call, sysinfo(2), the first time that a program sorts 1,024
# bytes or more; with less it makes none.
#
# qsort() is a merge sort there, which wants as much memory again, and does without it where that
# would be more than a quarter of the machine's. So it asks how much there is, once in a process.
# A daemon whose system call filter was made from what it was seen to do, in tests with short
# lists, so meets a call that the filter does not know when a list is long for the first time:
# where the list is what others send, it is they who choose that moment. scandir() sorts too.
#
# Seen with libc6 2.36-9+deb12u14, elements of 16 bytes; sysinfo() calls that strace counts:
#
#   elements   calls
#   63         0
#   64         1
#   64, twice  1
#
# What helps: to allow sysinfo(), or to have unknown calls fail rather than end the process; glibc
# 2.37 and later sort in another way.
#
# Needs apt-get with Debian 12's package lists, gcc and ptrace; downloads two packages into a
# temporary folder and installs nothing. Exit status 0: as described, 1: it behaves otherwise.
set -eu

libc=2.36-9+deb12u14
strace=6.1-0.1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get -q -o APT::Sandbox::User=root download "libc6=$libc" "strace=$strace" >/dev/null
for package in *.deb; do
    dpkg -x "$package" package
done

cat >sort.c <<'END'
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b) { return memcmp(a, b, 16); }

int main(int argc, char **argv)
{
    static char elements[4096][16];

    for (int i = 1; i < argc; i++) {
        qsort(elements, (size_t)atoi(argv[i]), 16, compare);
    }
    return 0;
}
END
gcc -O1 -o sort sort.c

# With the package's own loader and library.
calls() {
    package/usr/bin/strace -f -o trace -e trace=sysinfo \
        package/lib64/ld-linux-x86-64.so.2 --library-path package/lib/x86_64-linux-gnu ./sort "$@"
    grep -c '^[0-9 ]*sysinfo(' trace || true
}

good=yes
while read -r wanted elements; do
    # shellcheck disable=SC2086 # they are several
    seen=$(calls $elements)
    echo "sorting $elements elements of 16 bytes: $seen sysinfo() calls"
    [ "$seen" = "$wanted" ] || good=no
done <<END
0 63
1 64
1 64 64
END
[ "$good" = yes ]
