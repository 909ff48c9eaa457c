/* SPDX-License-Identifier: MIT */
/*
 * Trace points in running programs, for bpftrace, perf and gdb: USDT, as SystemTap's <sys/sdt.h>
 * has them. One costs a no-operation while nobody looks. Without that header, which is
 * systemtap-sdt-dev in Debian, there are none.
 *
 * The provider is `vgpu`. Names and arguments are an interface: they are listed in docs/tracing.md.
 * Arguments may be evaluated or not, so they have no effects.
 */
#ifndef VGPU_COMMON_TRACE_H
#define VGPU_COMMON_TRACE_H

#ifdef VGPU_HAVE_SDT
#define SDT_USE_VARIADIC /* for STAP_PROBEV() */
#include <sys/sdt.h>
#define TRACE(name, ...) STAP_PROBEV(vgpu, name, __VA_ARGS__)
#else
#define TRACE(name, ...) ((void)0)
#endif

#endif
