/* SPDX-License-Identifier: MIT */
/*
 * Ids of the tables that NVIDIA's driver hands out by cuGetExportTable() to libraries of NVIDIA's
 * own. No header has them; each is 16 bytes, as in a UUID's text from left to right. Those that the
 * worker asks the driver for are here; the guest's library knows more of them.
 */
#ifndef VGPU_COMMON_DRIVER_TABLES_H
#define VGPU_COMMON_DRIVER_TABLES_H

#define DRIVER_TABLE_ID_BYTES 16u

/* What the runtime library asks of the driver: 6bd5fb6c-5bf4-e74a-8987-d93912fd9df9. */
#define DRIVER_TABLE_RUNTIME "\x6b\xd5\xfb\x6c\x5b\xf4\xe7\x4a\x89\x87\xd9\x39\x12\xfd\x9d\xf9"

/* The driver's self-test: d4082055-bde6-704b-8d34-ba123c66e1f2. */
#define DRIVER_TABLE_TEST "\xd4\x08\x20\x55\xbd\xe6\x70\x4b\x8d\x34\xba\x12\x3c\x66\xe1\xf2"

/* Where multiprocessors lie, for cuBLAS: 1734dc26-800d-4745-8726-c0f1e7dd8bca. */
#define DRIVER_TABLE_PLACES "\x17\x34\xdc\x26\x80\x0d\x47\x45\x87\x26\xc0\xf1\xe7\xdd\x8b\xca"

#endif
