#!/bin/bash
# SPDX-License-Identifier: MIT
#
# ThreadSanitizer (GCC 12's) calls a handler of __cxa_atexit() without its argument, where the
# handler was registered for no object.
#
# __cxa_atexit(handler, argument, object) with object NULL is what the LSB has for handlers that
# exit() alone calls, and no unloading of a library: the one way in which a library can learn of
# exit() by a function that is not its own. libc calls handler(argument). ThreadSanitizer puts its
# own __cxa_atexit() before libc's in every program that is built with it, takes such a handler for
# one of atexit(), and calls handler() alone, so that it finds whatever the register has. A library
# without any sanitizer meets this as soon as a program that has one loads it.
#
# Seen with libtsan2 12.2.0-14+deb12u1 (and with clang 14's runtime); a handler prints whether it
# was given its argument:
#
#   object       without a sanitizer   with ThreadSanitizer
#   given        its argument          its argument
#   NULL         its argument          another
#
# What helps: libc's own function, by dlsym() on a handle of libc.so.6, which is not intercepted.
#
# Needs apt-get with Debian 12's package lists, gcc and setarch; downloads one package into a
# temporary folder and installs nothing. Exit status 0: as described, 1: it behaves otherwise.
set -eu

version=12.2.0-14+deb12u1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get -q -o APT::Sandbox::User=root download "libtsan2=$version" >/dev/null
dpkg -x libtsan2_*.deb package

cat >handlers.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

typedef int (*registers)(void (*)(void *), void *, void *);
extern int __cxa_atexit(void (*)(void *), void *, void *);
extern void *__dso_handle;
static int mark;

static void tell(const char *how, void *argument)
{
    printf("%s: %s\n", how, argument == &mark ? "its argument" : "another");
}

static void for_an_object(void *argument) { tell("for an object", argument); }
static void for_none(void *argument) { tell("for none", argument); }
static void by_libc(void *argument) { tell("for none, by libc's own", argument); }

int main(void)
{
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    registers own = NULL;

    *(void **)&own = dlsym(libc, "__cxa_atexit");
    setvbuf(stdout, NULL, _IONBF, 0);
    own(by_libc, &mark, NULL);
    __cxa_atexit(for_none, &mark, NULL);
    __cxa_atexit(for_an_object, &mark, &__dso_handle);
    return 0;
}
END
gcc -o plain handlers.c
gcc -fsanitize=thread -o checked handlers.c
plain=$(./plain)
# Some random layouts of the address space are none that this version knows.
checked=$(LD_LIBRARY_PATH=$(echo package/usr/lib/*/) setarch -R ./checked)
echo "without a sanitizer:"
echo "$plain"
echo "with ThreadSanitizer of libtsan2 $version:"
echo "$checked"
if [ "$plain" = "for an object: its argument
for none: its argument
for none, by libc's own: its argument" ] && [ "$checked" = "for an object: its argument
for none: another
for none, by libc's own: its argument" ]; then
    echo "libtsan2 $version: as described"
else
    echo "libtsan2 $version: not as described" >&2
    exit 1
fi
