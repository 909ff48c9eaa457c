#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Programs for CUDA's driver API on a real GPU: the same program by NVIDIA's libcuda.so.1 and by
ours, and in guests. Skipped without a GPU.

Tests: worker/backend-cuda/"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

CHECK = os.path.join(v.OUT, "tests/cuda/cuda-check")
SWEEP = os.path.join(v.OUT, "tests/cuda/cuda-sweep")
OURS = os.path.join(v.OUT, "guest/libcuda")
# Of cuda-check, what a guest without a processor of its own does in reasonable time.
IN_GUEST = ("name attributes_of_blocks copies_there_and_back large_pageable_copy boxes fill_of_rows "
            "work_in_order stream_waits_for_event vadd reduce_sum launch_with_config "
            "many_launches_over_two_streams host_functions_in_order broken_ptx variable_of_a_module "
            "illegal_address captured_kernels_run_at_launch capture_across_streams graph_of_a_diamond "
            "exec_kernel_parameters host_node_parameters async_memory_is_reused mapped_memory "
            "two_mappings_are_one_buffer")
# Those that look at how much memory the GPU has free, or at the time.
ALONE = ("info_follows_allocations", "unmapped_memory_comes_back", "pool_gives_memory_back",
         "waiting_thread_holds_up_no_other")
AT_A_TIME = 8 if (os.cpu_count() or 1) >= 16 else 4


class Cuda(v.TestCase):
    def setUp(self):
        if not v.probe().startswith("cuda "):
            self.skipTest("no GPU: " + v.probe().strip())

    def check(self, directory, **environment):
        """Some at a time, then those that want to have the GPU's memory to themselves."""
        environment = {**os.environ, **environment, "LD_LIBRARY_PATH": directory}
        names = subprocess.run([CHECK, "--list"], env=environment, capture_output=True, text=True,
                               check=True).stdout.split()
        together = [name for name in names if name not in ALONE]
        for parts in ([together[i::AT_A_TIME] for i in range(AT_A_TIME)], [list(ALONE)]):
            running = [subprocess.Popen([CHECK, *part], env=environment, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True) for part in parts]
            for process in running:
                output = process.communicate(timeout=30 * v.PATIENCE)[0]
                print(output.splitlines()[-1], file=sys.stderr)
                self.assertEqual(process.returncode, 0, output)

    def sweep(self, directory, *options, **environment):
        environment = {**os.environ, **environment, "LD_LIBRARY_PATH": directory}
        result = subprocess.run([SWEEP, "--jobs", str(AT_A_TIME), *options], env=environment,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                timeout=60 * v.PATIENCE, check=False)
        print(result.stdout.splitlines()[-1], file=sys.stderr)
        self.assertEqual(result.returncode, 0, result.stdout)

    def test_sweep_native(self):
        """Another driver may differ: then the golden file says of which it is."""
        directory = v.native_directory()
        if not directory:
            self.skipTest("ldconfig knows no libcuda.so.1")
        self.sweep(directory, *v.SWEPT[:2])

    def test_sweep_ours(self):
        self.sweep(OURS, *v.SWEPT, VGPU_HOST=self.mediator(mediator="backend = cuda").socket)

    def test_native(self):
        """What the tests say is what NVIDIA's library does."""
        directory = v.native_directory()
        if not directory:
            self.skipTest("ldconfig knows no libcuda.so.1")
        self.check(directory)

    def test_ours(self):
        self.check(OURS, VGPU_HOST=self.mediator(mediator="backend = cuda").socket)

    def test_programs(self):
        """What runs by NVIDIA's library runs by ours; those that are not installed are left out."""
        ran = subprocess.run([os.path.join(v.TOP, "tests/programs/run")], capture_output=True,
                             text=True, timeout=1200, check=False)
        print(ran.stdout, file=sys.stderr)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)

    def in_guest(self, guest):
        code, output = guest.run("export LD_LIBRARY_PATH=/lib; cuda-check " + IN_GUEST,
                                 20 * v.PATIENCE)
        self.assertEqual(code, 0, output)
        self.assertRegex(output, rf"\n{len(IN_GUEST.split())} passed, 0 failed, 0 skipped\n$")
        code, output = guest.run("LD_LIBRARY_PATH=/lib matmul-cuda 512 3", 10 * v.PATIENCE)
        print(output.strip(), file=sys.stderr)
        self.assertEqual(code, 0, output)
        self.assertRegex(output, "3 products of 512 x 512 right, .* on NVIDIA")
        if guest.run("test -x /bin/vadd-nvcc")[0] == 0:
            code, output = guest.run("LD_LIBRARY_PATH=/lib vadd-nvcc", 10 * v.PATIENCE)
            self.assertEqual(code, 0, output)

    def test_in_a_guest(self):
        """Without the guest driver, then with it."""
        guest = self.guest(self.mediator(mediator="backend = cuda"), 1)
        guest.wait_boot()
        self.in_guest(guest)
        self.assertEqual(guest.run("insmod /vgpu.ko")[0], 0)
        self.in_guest(guest)


if __name__ == "__main__":
    v.main()
