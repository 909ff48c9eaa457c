/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The protocol's headers are written for C libraries; in the kernel this stands in. */
#include <linux/stddef.h>
