#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A program for CUDA's driver API in a real guest, linked with -lcuda as for a machine with a card:
it finds our libcuda.so.1, by sysfs and by the guest driver.

Tests: guest/libcuda/calls/library.c, guest/libvgpu/pci*.c, guest/libvgpu/driver*.c"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

# Tests of cuda-check that measure no time: for guests that get little of it.
CHECKS = ("memory_before_init name attributes_of_blocks push_and_pop kernel_reads_pinned_memory "
          "copies_there_and_back copies_on_device large_pageable_copy rows_there_and_back boxes "
          "fill_of_each_width fill_of_rows work_in_order stream_waits_for_event vadd reduce_sum "
          "launch_with_config many_launches_over_two_streams host_functions_in_order "
          "threads_with_streams_of_their_own fork_after_init versioned_name")
RUN = "LD_LIBRARY_PATH=/lib cuda-check "


class Cuda(v.TestCase):
    def setUp(self):
        self.m = self.mediator()

    def boot(self, **keywords):
        guest = self.guest(self.m, 1, **keywords)
        guest.wait_boot()
        return guest

    def check(self, guest):
        code, output = guest.run(RUN + CHECKS)
        self.assertEqual(code, 0, output)
        self.assertRegex(output, rf"\n{len(CHECKS.split())} passed, 0 failed, 0 skipped\n$")
        v.wait_until("all sessions are gone", lambda: not self.m.vms()[1]["sessions"])

    def test_by_sysfs(self):
        self.check(self.boot())

    def test_by_the_driver(self):
        guest = self.boot()
        self.assertEqual(guest.run("insmod /vgpu.ko")[0], 0)
        self.check(guest)

    def test_no_mediator(self):
        """It finds no card, and says so."""
        guest = self.boot()
        self.m.stop()
        code, output = guest.run("VGPU_VERBOSE=1 " + RUN + "vadd")
        self.assertEqual(code, 1, output)
        self.assertIn("CUDA_ERROR_NO_DEVICE", output)


if __name__ == "__main__":
    v.main()
