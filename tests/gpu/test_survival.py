#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Sessions on a GPU while the mediator is killed, VGPU_KILLS times (default 40), as the test in
tests/wire does it on the cpu backend.

Tests: worker/backend-cuda/, mediator/adopt.c"""
import os
import sys

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path[:0] = [os.path.join(TESTS, "lib"), os.path.join(TESTS, "wire")]
import test_survival as wire  # noqa: E402
import vgputest as v  # noqa: E402


class Survival(wire.Survival):
    backend = "cuda"

    def setUp(self):
        if not v.probe().startswith("cuda "):
            self.skipTest("no GPU: " + v.probe().strip())


if __name__ == "__main__":
    v.main()
