#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Debian 12's dh_installsystemd overlooks units in /usr/lib/systemd/system, and says nothing.
#
# systemd reads units in /lib/systemd/system and /usr/lib/systemd/system, which are one folder on
# every Debian 12, and `meson install`, CMake and autotools put them where systemd.pc or the prefix
# says. A package whose units lie in /usr/lib is built without a word by debhelper 13.11.4: but its
# postinst neither enables nor starts them, nor does its prerm stop them. So the service is there
# after installing and after no reboot does it run, and at removal it goes on. Debian 13's debhelper
# looks into both.
#
# Seen with debhelper 13.11.4, a unit with an [Install] section, compat level 13:
#
#   usr/lib/systemd/system/x.service   no maintainer scripts
#   lib/systemd/system/x.service       pieces of postinst, prerm and postrm
#
# Needs apt-get, dpkg-dev and Debian 12's package lists; downloads two packages into a temporary
# folder and installs nothing. Exit status 0: as described, 1: it behaves otherwise.
set -eu

version=13.11.4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get -q -o APT::Sandbox::User=root download "debhelper=$version" "libdebhelper-perl=$version" \
    >/dev/null
for package in *.deb; do
    dpkg -x "$package" tool
done
export PERL5LIB=$folder/tool/usr/share/perl5 DH_AUTOSCRIPTDIR=$folder/tool/usr/share/debhelper/autoscripts

# scripts_of FOLDER: the pieces of maintainer scripts that are made for a unit in it.
scripts_of() {
    rm -rf source
    mkdir -p "source/debian/xy/$1/systemd/system"
    cd source
    printf 'Source: xy\nBuild-Depends: debhelper-compat (= 13)\n\nPackage: xy\nArchitecture: all\n' \
        >debian/control
    printf 'xy (1) unstable; urgency=low\n\n  * x\n\n -- x <x@example.org>  %s\n' \
        'Mon, 30 Nov 2026 12:00:00 +0000' >debian/changelog
    printf '[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n' \
        >"debian/xy/$1/systemd/system/x.service"
    perl "$folder/tool/usr/bin/dh_installsystemd" -pxy >&2
    find debian -path '*/generated/xy/*' -name '*.service' -printf '%f\n' -o \
        -name 'xy.*.debhelper' -printf '%f\n' | sort | xargs
    cd ..
}

usr=$(scripts_of usr/lib)
lib=$(scripts_of lib)
echo "debhelper $version: of a unit in usr/lib: '$usr', in lib: '$lib'"
[ "$usr" = "" ] && [ "$lib" = "postinst.service prerm.service xy.postrm.debhelper" ]
