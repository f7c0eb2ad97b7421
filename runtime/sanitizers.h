/* SPDX-License-Identifier: MIT */
/* Which sanitizers this is built with; gcc and clang say it differently. */
#ifndef RUNTIME_SANITIZERS_H
#define RUNTIME_SANITIZERS_H

#ifdef __SANITIZE_ADDRESS__
#define WITH_ASAN 1
#endif
#ifdef __SANITIZE_THREAD__
#define WITH_TSAN 1
#endif
#ifdef __clang__
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#endif

#endif
