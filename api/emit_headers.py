# SPDX-License-Identifier: MIT
"""The headers that both halves and programs share: errors, kinds of handles, the calls."""
from emit import NOTICE, parameters
from spec import base_name


def error_name(number, name):
    return "CUDA_SUCCESS" if number == 0 else f"CUDA_ERROR_{name}"


def errors_header(spec):
    lines = "".join(f"    {error_name(number, name)} = {number},\n"
                    for number, name, _ in sorted(spec.errors))
    rows = "".join(f'    X({error_name(number, name)}, "{text}") \\\n'
                   for number, name, text in sorted(spec.errors))
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            "#ifndef VGPU_API_CUDA_ERRORS_H\n#define VGPU_API_CUDA_ERRORS_H\n\n"
            f"typedef enum cudaError_enum {{\n{lines}}} CUresult;\n\n"
            "/* Enumerator, text. */\n"
            f"#define CUDA_ERRORS(X) \\\n{rows}\n#endif\n")


def handle_types(spec):
    lines = "".join(f"    HANDLE_{kind.upper()} = {number},\n" for kind, number in spec.kinds)
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            "#ifndef VGPU_API_HANDLE_TYPES_H\n#define VGPU_API_HANDLE_TYPES_H\n\n"
            f"enum handle_type {{\n    HANDLE_FREE = 0,\n{lines}}};\n\n#endif\n")


def prototype(call):
    return f"CUresult {call.name}({parameters(call)})"


def mapped(spec):
    """What cuda.h maps plain names to: the newest version of each."""
    newest = {}
    for call in spec.exported():
        base = base_name(call.name)
        if not call.unmapped and call.version >= newest.get(base, (0, ""))[0]:
            newest[base] = (call.version, call.name)
    for call in spec.exported():
        for base, version in call.also:
            newest[base] = (version, call.name)
    return {base: name for base, (_, name) in newest.items() if base != name}


def cuda_header(spec):
    maps = "".join(f"#define {base} {name}\n" for base, name in sorted(mapped(spec).items()))
    calls = "".join(prototype(call) + ";\n" for call in spec.exported())
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            "/*\n * The calls of the CUDA driver API that libcuda.so.1 serves, for programs that are"
            " built where\n * there is no cuda.h of NVIDIA's.\n */\n"
            "#ifndef VGPU_API_CUDA_H\n#define VGPU_API_CUDA_H\n\n#include \"cuda-types.h\"\n\n"
            "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n"
            f"{calls}\n/* Plain names are those of the newest version. */\n{maps}\n#ifdef __cplusplus\n}}\n#endif\n\n#endif\n")
