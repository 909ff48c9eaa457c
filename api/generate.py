#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Generates, from the .api files, both halves of the CUDA forwarding and what goes with them.

usage: generate.py WHAT OUTPUT FILE.api...

WHAT is one of the names in OUTPUTS, below. The files are read in the order given."""
import importlib
import os
import sys

import spec

HERE = os.path.dirname(os.path.abspath(__file__))

# What is made by which function of which emitter. An emitter that knows the inside of a program
# lies with that program, and is loaded for its own outputs alone.
OUTPUTS = {
    "vgpu-errors.h": (".", "emit_headers", "gpu_errors"),
    "cuda-errors.h": (".", "emit_headers", "errors_header"),
    "handle-types.h": (".", "emit_headers", "handle_types"),
    "cuda.h": (".", "emit_headers", "cuda_header"),
    "wire-calls.h": ("../guest/libcuda", "emit_guest", "wire_header"),
    "wire-calls.c": ("../guest/libcuda", "emit_guest", "wire_source"),
    "guest-calls.h": ("../guest/libcuda", "emit_guest", "hand_header"),
    "exports.c": ("../guest/libcuda", "emit_guest", "source"),
    "libcuda.map": ("../guest/libcuda", "emit_guest", "version_script"),
    "api-calls.h": ("../worker", "emit_host", "header"),
    "api-calls.c": ("../worker", "emit_host", "source"),
    "cuda-forwarded.h": ("../worker", "emit_host", "cuda_header"),
    "cuda-calls.c": ("../worker", "emit_host", "cuda_source"),
    "command-rules.h": ("../worker", "emit_commands", "header"),
    "command-rules.c": ("../worker", "emit_commands", "source"),
    "ring-calls.h": ("../guest/libvgpu", "emit_ring", "header"),
    "command-bodies.c": ("../tests/fuzz", "emit_bodies", "source"),
    "api-roundtrip.c": ("../tests/api", "emit_test", "roundtrip"),
    "stand-ins.c": ("../tests/api", "emit_test", "stand_ins"),
    "sweep-calls.c": ("../tests/cuda", "emit_sweep", "source"),
    "cuda-h-check.c": ("../tests/api", "emit_test", "header_check"),
    "layouts.c": ("../tests/api", "emit_test", "layouts"),
    "wire.txt": (".", "emit_docs", "wire"),
    "coverage.md": (".", "emit_docs", "coverage"),
    "commands.md": (".", "emit_docs", "commands"),
}


def emit(what, files):
    folder, module, function = OUTPUTS[what]
    sys.path.append(os.path.join(HERE, folder))
    return getattr(importlib.import_module(module), function)(spec.read(files))


def main():
    if len(sys.argv) < 4 or sys.argv[1] not in OUTPUTS:
        print(__doc__.split("\n\n")[1] + "\n\n" + " ".join(OUTPUTS), file=sys.stderr)
        return 2
    try:
        text = emit(sys.argv[1], [(path, os.path.basename(path)) for path in sys.argv[3:]])
    except (spec.Mistake, OSError) as mistake:
        print(f"generate.py: {mistake}", file=sys.stderr)
        return 1
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(text)
    return 0


sys.exit(main())
