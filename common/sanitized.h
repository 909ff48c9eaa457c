/* SPDX-License-Identifier: MIT */
/* Whether this is a test build with a sanitizer, whose runtime makes system calls of its own. */
#ifndef VGPU_COMMON_SANITIZED_H
#define VGPU_COMMON_SANITIZED_H

/* gcc says by a macro that it builds with a sanitizer, clang by __has_feature(). */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

#endif
