# SPDX-License-Identifier: MIT
"""The host half: what decodes calls, and what hands them to NVIDIA's driver."""
from emit import (NOTICE, count_of, fixed_back, fixed_in, host_parameter, host_type, join,
                  optional, parameter, parts)

def host_parameters(call, first):
    return ", ".join([first] + [host_parameter(a) for a in call.arguments])


def members(spec):
    """Calls that a backend serves."""
    return [c for c in spec.wired() if c.host != "hand"]


def by_driver(spec):
    return [c for c in spec.wired() if c.host == "driver"]


def header(spec):
    served = "".join(
        f"    enum vgpu_gpu_error (*{c.name})({host_parameters(c, 'struct gpu *gpu')});\n"
        for c in members(spec))
    hand = "".join(
        f"enum vgpu_gpu_error host_{c.name}({host_parameters(c, 'struct api_serve *serve')});\n"
        for c in spec.wired() if c.host == "hand")
    backend = "".join(
        f"enum vgpu_gpu_error cuda_{c.name}({host_parameters(c, 'struct gpu *gpu')});\n"
        for c in spec.wired() if c.host == "backend")
    revision = max((c.since for c in spec.wired()), default=1)
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            "#ifndef VGPU_WORKER_API_CALLS_H\n#define VGPU_WORKER_API_CALLS_H\n\n#include \"api/cuda-types.h\"\n"
            "#include \"worker/api.h\"\n#include \"worker/gpu.h\"\n\n"
            f"#define API_REVISION {revision}u\n\n"
            f"/* What a backend serves; NULL: NOT_SUPPORTED. */\nstruct gpu_calls {{\n{served}}};\n\n"
            f"/* Written by hand. */\n{hand}\n/* On the cuda backend. */\n"
            "extern const struct gpu_calls cuda_calls;\n"
            f"{backend}\n#endif\n")


def take(a):
    """Declares and decodes an argument of the fixed part."""
    if a.direction == "string":
        return f"const uint64_t {a.name}_bytes = api_u64(serve);"
    if a.type.kind == "plain":
        return f"const {a.type.name} *{a.name} = api_plain(serve, sizeof(*{a.name}));"
    if a.type.kind == "handle" and a.type.handle == "stream":
        return f"struct gpu_stream *{a.name} = api_stream(serve);"
    if a.type.kind == "handle":
        return f"{host_type(a)}{a.name} = api_object(serve, HANDLE_{a.type.handle.upper()});"
    return f"const {a.type.name} {a.name} = ({a.type.name})api_{a.type.wire}(serve);"


def serve_function(call):
    ins, _ = fixed_in(call)
    outs, out_words = fixed_back(call)
    lines = []
    if optional(call):
        lines.append("const uint64_t wanted = api_u64(serve);")
    lines += [take(a) for _, a in ins if not (a.array and a.direction == "in")]
    for a in parts(call, False):
        if a.direction == "string":
            lines.append(f"const char *{a.name} = api_string(serve, {a.name}_bytes);")
        else:
            lines.append(f"const {a.type.name} *{a.name} = "
                         f"api_array(serve, {count_of(a)}, sizeof(*{a.name}));")
    if out_words:
        lines.append(f"uint64_t *out = api_back(serve, {out_words}, sizeof(*out));")
    for a in parts(call, True):
        lines.append(f"{a.type.name} *{a.name} = "
                     f"api_back(serve, {count_of(a)}, sizeof(*{a.name}));")
    for _, a in outs:
        if a.direction == "new":
            lines.append(f"uint64_t {a.name} = 0;")
        elif not a.array:
            zero = "{0}" if a.type.kind == "plain" else "0"
            lines.append(f"{a.type.name} {a.name} = {zero};")
    lines += ["enum vgpu_gpu_error error;", "", "if (!api_complete(serve)) {",
              "    return serve->error;", "}"]
    if optional(call):
        limit = 1 << len(optional(call))
        lines += [f"if (wanted >= {limit}) {{", "    return VGPU_GPU_INVALID_VALUE;", "}"]
    bits = {a.name: bit for bit, a in enumerate(optional(call))}
    given = []
    for a in call.arguments:
        if a.comes_back and not a.array:
            given.append(f"wanted & {1 << bits[a.name]} ? &{a.name} : NULL" if a.optional
                         else f"&{a.name}")
        else:
            given.append(a.name)
    if call.host == "hand":
        lines.append(f"error = host_{call.name}({', '.join(['serve'] + given)});")
    else:
        lines += [f"if (!serve->calls->{call.name}) {{", "    return VGPU_GPU_NOT_SUPPORTED;", "}",
                  f"error = serve->calls->{call.name}({', '.join(['serve->gpu'] + given)});"]
    for at, a in outs:
        if a.array:
            continue
        if a.type.kind == "plain" or a.type.wire == "f32":
            lines.append(f"memcpy(&out[{at}], &{a.name}, sizeof({a.name}));")
        else:
            lines.append(f"out[{at}] = (uint64_t){a.name};")
    lines.append("return error;")
    body = "".join(f"    {line}\n" if line else "\n" for line in lines)
    return f"static enum vgpu_gpu_error serve_{call.name}(struct api_serve *serve)\n{{\n{body}}}\n"


def flags(call):
    # Whatever waits for the call's stream comes behind it; without one it counts as the default's.
    return [flag for flag, true in (
        ("SLOT", not call.post), ("TURN", call.family in ("copy", "launch")), ("SLOW", call.slow),
        ("FREE", call.free), ("GATE", call.gate), ("CHANGES_STREAM", True)) if true]


def rule(call):
    places = {a.name: at for at, a in fixed_in(call)[0]}
    weigh = sum(1 << at for at, a in fixed_in(call)[0] if a.weight)
    members = [f'"{call.name}"', f"serve_{call.name}",
               " | ".join(f"COMMAND_{flag}" for flag in flags(call))]
    if call.stream:
        members.append(f".stream = {places[call.stream] + 1}")
    if weigh:
        members.append(f".weigh = 0x{weigh:x}")
    return f"    [{call.id}] = {{{', '.join(members)}}},\n"


def source(spec):
    functions = "\n".join(serve_function(c) for c in spec.wired())
    rules = "".join(rule(c) for c in spec.wired())
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            '#include "worker/api-calls.h"\n\n#include <string.h>\n\n#include "worker/command.h"\n#include "worker/handles.h"\n\n'
            f"{functions}\nstatic const struct api_rule rules[] = {{\n{rules}}};\n\n"
            "const struct api_rule *api_find(uint32_t id)\n{\n"
            "    return id < sizeof(rules) / sizeof(rules[0]) && rules[id].serve ? &rules[id] : "
            "NULL;\n}\n\n"
            "const uint32_t api_ids = sizeof(rules) / sizeof(rules[0]);\n")


def driver_argument(call, a):
    if a.type.kind != "handle":
        return a.name
    if a.type.handle == "stream" and call.family in ("copy", "launch") and a.name == call.stream:
        return f"cuda_submit(gpu, {a.name})"
    return f"cuda_raw_{a.type.handle}(gpu, {a.name})"


def cuda_function(call):
    given = ", ".join(driver_argument(call, a) for a in call.arguments)
    unused = "" if "(gpu, " in given else "    (void)gpu;\n"
    return (f"static enum vgpu_gpu_error cuda_{call.name}({host_parameters(call, 'struct gpu *gpu')})"
            f"\n{{\n{unused}    return cu.{call.name} ? cu.{call.name}"
            f"({given}) : VGPU_GPU_NOT_SUPPORTED;\n}}\n")


def cuda_header(spec):
    """What is looked up in the driver for them: a group of worker/backend-cuda/cuda-api.h."""
    rows = "".join(f' \\\n    X({c.name}, "{c.name}", ({join(", ", map(parameter, c.arguments))}))'
                   for c in by_driver(spec))
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            "#ifndef VGPU_WORKER_CUDA_FORWARDED_H\n#define VGPU_WORKER_CUDA_FORWARDED_H\n\n"
            '#include "api/cuda-types.h"\n\n'
            "/* member, symbol, parameters */\n"
            f"#define CUDA_FORWARDED_CALLS(X){rows}\n\n#endif\n")


def cuda_source(spec):
    functions = "\n".join(cuda_function(c) for c in by_driver(spec))
    table = "".join(f"    .{c.name} = cuda_{c.name},\n" for c in members(spec))
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            '#include "worker/api-calls.h"\n#include "worker/backend-cuda/cuda-driver.h"\n'
            '#include "worker/backend-cuda/raw.h"\n\n'
            f"{functions}\nconst struct gpu_calls cuda_calls = {{\n{table}}};\n")


