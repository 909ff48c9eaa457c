#!/bin/bash
# SPDX-License-Identifier: MIT
#
# How many descriptors a process can send over Unix sockets (SCM_RIGHTS) depends on what other
# processes of its user have on their way, and on two capabilities.
#
# Linux counts descriptors that have been sent and not received for each user, over all processes,
# and compares that with the RLIMIT_NOFILE of whoever sends next; those that were sent to a socket
# whose other end is closed count as long as the receiver keeps it. Senders with CAP_SYS_RESOURCE or
# CAP_SYS_ADMIN are exempt. So a daemon of root's that gives up its capabilities, as daemons should,
# can from then on be kept from sending any by a client that reads none, though the daemon has few
# open itself; sendmsg() says ETOOMANYREFS, "Too many references: cannot splice".
#
# Seen with Linux 6.18, util-linux 2.38.1's prlimit and setpriv, 64 descriptors at most; each sender
# tries to have 80 on their way, of the only descriptor that it sends:
#
#   sender, as root                             sent
#   with all capabilities                       80
#   without any                                 fewer than 80, then ETOOMANYREFS
#   without any, another root process has some  fewer still: 0
#
# What helps: to keep CAP_SYS_RESOURCE alone, or to have somebody send who has it; and to count what
# each client has not received.
#
# Needs root with CAP_SYS_ADMIN or CAP_SYS_RESOURCE, python3 and apt-get with Debian 12's package
# lists; downloads one package into a temporary folder and installs nothing. Exit status 0: as
# described, 1: it behaves otherwise.
set -eu

version=2.38.1-5+deb12u3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get -q -o APT::Sandbox::User=root download "util-linux=$version" >/dev/null
dpkg -x util-linux_*.deb package

# Sends one descriptor again and again to an end that nobody reads; waits, where it is told to.
cat >send.py <<'END'
import errno, os, socket, sys
sent, why, pairs = 0, "", []
try:
    while sent < 80:
        if sent % 10 == 0:
            pairs.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
        socket.send_fds(pairs[-1][0], [b"x"], [0])
        sent += 1
except OSError as error:
    why = errno.errorcode[error.errno]
print(sent, why, flush=True)
if len(sys.argv) > 1:
    sys.stdin.readline()
END
limited() { package/usr/bin/prlimit --nofile=64:64 "$@"; }
bare() { limited package/usr/bin/setpriv --inh-caps=-all --bounding-set=-all "$@"; }

with=$(limited python3 send.py </dev/null)
without=$(bare python3 send.py </dev/null)
mkfifo hold
bare python3 send.py wait <hold >held &
exec 9>hold
while [ ! -s held ]; do sleep 0.05; done
beside=$(bare python3 send.py </dev/null)
exec 9>&-
wait
echo "with all capabilities: $with"
echo "without: $without"
echo "without, another process of root's has some on their way: $beside"
[ "$with" = "80 " ] || exit 1
case $without in *" ETOOMANYREFS") ;; *) exit 1 ;; esac
[ "${without%% *}" -lt 80 ] && [ "${without%% *}" -gt 0 ] && [ "$beside" = "0 ETOOMANYREFS" ]
