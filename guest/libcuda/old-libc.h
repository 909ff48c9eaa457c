/* SPDX-License-Identifier: MIT */
/*
 * So that the library loads in guests whose libc is older than that of the machine it was built on:
 * glibc 2.17 and later, as with NVIDIA's. The compiler includes this in front of each source.
 *
 * glibc keeps a function's former versions for programs that were linked with them, and the linker
 * takes the newest unless it is told otherwise. Most of those below are newer by name alone: with
 * glibc 2.34 libpthread and libdl became part of libc, under which name their functions have a new
 * version. What has no old version at all is asked of the kernel.
 *
 * tests/install/check-install fails when the library wants anything newer. The libvgpu that
 * programs link with is not built so, since it is also linked statically.
 */
#ifndef VGPU_GUEST_LIBCUDA_OLD_LIBC_H
#define VGPU_GUEST_LIBCUDA_OLD_LIBC_H

#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST_VERSION(function, first) __asm__(".symver " #function "," #first "@GLIBC_2.2.5")

FIRST_VERSION(dladdr, dladdr);
FIRST_VERSION(dlclose, dlclose);
FIRST_VERSION(dlopen, dlopen);
FIRST_VERSION(dlsym, dlsym);
FIRST_VERSION(fcntl64, fcntl); /* glibc 2.28; they differ in programs of 32 bits alone */
__asm__(".symver dladdr1,dladdr1@GLIBC_2.3.3");
__asm__(".symver dlinfo,dlinfo@GLIBC_2.3.3");
FIRST_VERSION(pthread_create, pthread_create);
FIRST_VERSION(pthread_join, pthread_join);
FIRST_VERSION(pthread_key_create, pthread_key_create);
FIRST_VERSION(pthread_mutex_trylock, pthread_mutex_trylock);
FIRST_VERSION(pthread_once, pthread_once);
FIRST_VERSION(pthread_setspecific, pthread_setspecific);
FIRST_VERSION(pthread_sigmask, pthread_sigmask);
FIRST_VERSION(sem_getvalue, sem_getvalue);
FIRST_VERSION(sem_init, sem_init);

/* Of glibc 2.25. A kernel before 3.17 has none, and whoever calls it goes on without. */
#define getrandom(bytes, count, flags) ((ssize_t)syscall(SYS_getrandom, bytes, count, flags))

/* A function since glibc 2.33 alone. The kernel's structure is libc's on x86-64. */
#define fstat(file, status) ((int)syscall(SYS_fstat, file, status))

#endif
