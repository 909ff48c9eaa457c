# SPDX-License-Identifier: MIT
"""Every exported call with what its parameters are, for sweep.c."""
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "../../api"))
from emit import NOTICE, parameters  # noqa: E402

# Objects that sweep.c makes. Those of a whole number can be unknown without being read from.
OBJECTS = {"CUcontext": "CONTEXT", "CUmodule": "MODULE", "CUfunction": "FUNCTION",
           "CUstream": "STREAM", "CUevent": "EVENT", "CUgraph": "GRAPH", "CUgraphNode": "NODE",
           "CUgraphExec": "EXEC", "CUmemoryPool": "POOL", "CUlibrary": "LIBRARY",
           "CUkernel": "KERNEL", "CUarray": "ARRAY", "CUmipmappedArray": "MIPMAP",
           "CUlinkState": "LINK", "CUuserObject": "USER", "CUdeviceptr": "MEMORY",
           "CUmemGenericAllocationHandle": "ALLOCATION", "CUdevice": "DEVICE",
           "CUhostFn": "HOST_FUNCTION", "CUstreamCallback": "CALLBACK",
           "CUoccupancyB2DSize": "BLOCK_FUNCTION"}
SIZES = ("size_t", "cuuint64_t", "unsigned long long")


def kind(c_type, name):
    c_type = c_type.replace("const ", "")
    if c_type in OBJECTS:
        return OBJECTS[c_type]
    if c_type == "char *":
        return "STRING"
    if c_type.endswith("**"):
        return "POINTERS"
    if c_type.endswith("*"):
        return {"CUgraphNode *": "NODES"}.get(c_type, "POINTER")
    if "flags" in name.lower():
        return "FLAGS"
    return "SIZE" if c_type in SIZES else "NUMBER"


def split(call):
    text = parameters(call)
    if text == "void":
        return []
    return [(m[1].strip(), m[2]) for m in
            (re.fullmatch(r"(.*?)(\w+)", part) for part in text.split(", "))]


def argument(c_type, value):
    # What is passed by value: a place's type, with id 0; a handle that is none, by its first byte.
    if c_type == "CUmemLocation":
        return f"({c_type}){{(CUmemLocationType){value}, 0}}"
    if c_type.startswith("CUipc") and "*" not in c_type:
        return f"({c_type}){{{{(char){value}}}}}"
    through = "(uintptr_t)" if "*" in c_type or c_type.startswith("CU") else ""
    return f"({c_type}){through}{value}"


def entry(call):
    wanted = split(call)
    passed = ", ".join(argument(c, f"value[{i}]") for i, (c, _) in enumerate(wanted))
    kinds = ", ".join(f'{{"{name}", SWEEP_{kind(c, name)}}}' for c, name in wanted)
    thunk = (f"static CUresult call_{call.name}(void *function, const uint64_t *value)\n{{\n"
             f"    CUresult (*call)({parameters(call)}) = "
             f"(CUresult (*)({parameters(call)}))function;\n\n"
             f"    (void)value;\n    return call({passed});\n}}\n\n")
    return thunk, f'    {{"{call.name}", call_{call.name}, {len(wanted)}, {{{kinds}}}}},\n'


def source(spec):
    made = [entry(call) for call in spec.exported()]
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            '#include "tests/cuda/sweep.h"\n\n' + "".join(thunk for thunk, _ in made) +
            "const struct sweep_call sweep_calls[] = {\n" + "".join(row for _, row in made) +
            "    {0},\n};\n")
