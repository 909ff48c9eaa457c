#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Generates, from the .api files, both halves of the CUDA forwarding and what goes with them.

usage: generate.py WHAT OUTPUT FILE.api...

WHAT is one of the names in OUTPUTS, below. The files are read in the order given."""
import os
import sys

import emit_docs
import emit_guest
import emit_host
import emit_test
import spec

OUTPUTS = {
    "cuda-errors.h": emit_guest.errors_header,
    "handle-types.h": emit_guest.handle_types,
    "cuda.h": emit_guest.cuda_header,
    "calls.h": emit_guest.header,
    "calls.c": emit_guest.source,
    "libcuda.map": emit_guest.version_script,
    "api-calls.h": emit_host.header,
    "api-calls.c": emit_host.source,
    "cuda-calls.c": emit_host.cuda_source,
    "api-roundtrip.c": emit_test.roundtrip,
    "cuda-h-check.c": emit_test.header_check,
    "layouts.c": emit_test.layouts,
    "wire.txt": emit_docs.wire,
    "coverage.md": emit_docs.coverage,
}


def main():
    if len(sys.argv) < 4 or sys.argv[1] not in OUTPUTS:
        print(__doc__.split("\n\n")[1] + "\n\n" + " ".join(OUTPUTS), file=sys.stderr)
        return 2
    try:
        text = OUTPUTS[sys.argv[1]](spec.read([(path, os.path.basename(path))
                                               for path in sys.argv[3:]]))
    except (spec.Mistake, OSError) as mistake:
        print(f"generate.py: {mistake}", file=sys.stderr)
        return 1
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(text)
    return 0


sys.exit(main())
