# SPDX-License-Identifier: MIT
"""The headers that both halves and programs share: errors, kinds of handles, the calls."""
from emit import NOTICE, parameters
from spec import base_name


def error_name(error):
    return "CUDA_SUCCESS" if error.number == 0 else f"CUDA_ERROR_{error.name}"


def gpu_errors(spec):
    """The list, for all; checked in, since programs outside include it."""
    rows = " \\\n".join(f'    X({e.number}, {e.name}, "{e.text}", {int(e.sticky)})'
                       for e in sorted(spec.errors))
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            "/*\n * Results of commands and calls: value, name, text, and whether the context is lost "
            "with it. The\n * values are those of CUDA's driver API (enum cudaError_enum in its "
            "reference); any other may come\n * from a newer driver.\n */\n"
            "#ifndef VGPU_PROTOCOL_VGPU_ERRORS_H\n#define VGPU_PROTOCOL_VGPU_ERRORS_H\n\n"
            f"/* clang-format off */\n#define VGPU_GPU_ERRORS(X) \\\n{rows}\n/* clang-format on */\n\n"
            "enum vgpu_gpu_error {\n"
            "#define VGPU_GPU_ERROR_ENUM(value, name, text, sticky) VGPU_GPU_##name = (value),\n"
            "    VGPU_GPU_ERRORS(VGPU_GPU_ERROR_ENUM)\n#undef VGPU_GPU_ERROR_ENUM\n};\n\n#endif\n")


def errors_header(spec):
    """CUDA's names for the same values, so that there is one type and no conversion."""
    lines = "".join(f"#define {error_name(e)} VGPU_GPU_{e.name}\n" for e in sorted(spec.errors))
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            "#ifndef VGPU_API_CUDA_ERRORS_H\n#define VGPU_API_CUDA_ERRORS_H\n\n"
            '#include "vgpu-errors.h"\n\n'
            "typedef enum vgpu_gpu_error CUresult;\n#define cudaError_enum vgpu_gpu_error\n\n"
            f"{lines}\n#endif\n")


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
