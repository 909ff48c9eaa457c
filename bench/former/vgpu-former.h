/* SPDX-License-Identifier: MIT */
/* The stand-in for the former path: its device and its messages. For bench/ only. */
#ifndef VGPU_FORMER_H
#define VGPU_FORMER_H

#define VGPU_FORMER_VENDOR_ID 0x1234u
#define VGPU_FORMER_DEVICE_ID 0x0004u
#define VGPU_FORMER_DOORBELL 0x0u /* write a number: it is sent to the daemon */
#define VGPU_FORMER_REPLY 0x4u    /* the number that came back last */

#endif
