#!/bin/bash
# SPDX-License-Identifier: MIT
#
# ccache caches what gcc compiles with -fcallgraph-info, but not the call graph: from the second
# time on the object is there and its .ci file is not.
#
# gcc's -fcallgraph-info=su writes the graph of calls, with each function's stack, into a .ci file
# beside the object. ccache knows -fstack-usage and keeps that option's .su file; it does not know
# this option as one that makes a file, nor refuses to cache for it. The compiler is not run where
# there is a hit, and exit status and messages are as ever. So a check of stack depths that reads
# these files finds some of them, or none, depending on what was compiled before on that machine, in
# any folder: a clean clone looks as if the compiler could not write them.
#
# Seen with ccache 4.7.5 of Debian 12 and gcc 12.2.0:
#
#   option             files beside the object, first time   second time
#   -fstack-usage      .su                                   .su
#   -fcallgraph-info   .ci                                   none
#
# What helps: CCACHE_DISABLE=1 for the build whose .ci files are wanted, and to fail, not to skip,
# where they are missing.
#
# Needs gcc and apt-get with Debian 12's package lists; downloads packages into a temporary folder
# and installs nothing. Exit status 0: as described, 1: it behaves otherwise.
set -eu

version=4.8+really4.7.5-1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get -q -o APT::Sandbox::User=root download "ccache=$version" libhiredis0.14 >/dev/null
for package in *.deb; do
    dpkg -x "$package" package
done
export CCACHE_DIR=$folder/cache
LD_LIBRARY_PATH=$(echo package/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH
unset CCACHE_DISABLE
echo 'int twice(int a) { return 2 * a; }' >a.c

# Compiles with an option, and says whether the file with this suffix is there then.
compile() {
    rm -f a.o a.ci a.su
    package/usr/bin/ccache gcc "$1" -c a.c -o a.o
    [ -f a.o ] || exit 1
    [ -f "a.$2" ] && echo ".$2" || echo none
}

result=$(for option in "-fstack-usage su" "-fcallgraph-info=su ci"; do
    # Two words: an option and a suffix.
    # shellcheck disable=SC2086
    echo "${option% *}: $(compile $option), then $(compile $option)"
done)
echo "$result"
[ "$result" = "-fstack-usage: .su, then .su
-fcallgraph-info=su: .ci, then none" ]
