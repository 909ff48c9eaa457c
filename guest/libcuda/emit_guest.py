# SPDX-License-Identifier: MIT
"""The guest half, in its layers: the calls over the wire, what is written by hand of each call, and
the exported functions with the table of them."""
import re

from emit import (NOTICE, count_of, fixed_back, fixed_in, names, optional, parameters, parts)
from emit_headers import prototype
from spec import DEFAULT_STREAM, base_name

# How an object is found, what it is, and what CUDA says where there is none.
OBJECTS = {
    "CUfunction": ("function_find({0})", "struct function", "INVALID_HANDLE"),
    "CUkernel": ("function_find((CUfunction){0})", "struct function", "INVALID_HANDLE"),
    "CUarray": ("array_find({0})", "struct array", "INVALID_HANDLE"),
    "CUmodule": ("module_find({0})", "struct module", "INVALID_HANDLE"),
    "CUlibrary": ("module_find((CUmodule){0})", "struct module", "INVALID_HANDLE"),
    "CUgraph": ("graph_find({0})", "struct graph", "INVALID_VALUE"),
    "CUgraphNode": ("node_find({0})", "struct node", "INVALID_VALUE"),
    "CUgraphExec": ("exec_find({0})", "struct exec", "INVALID_VALUE"),
    "CUcontext": ("context_find({0})", "struct context", "INVALID_CONTEXT"),
    "CUdevice": ("device_valid({0})", "", "INVALID_DEVICE"),
}


def wire_parameters(call):
    """A stream is found before a call goes over the wire: there it is its handle."""
    return re.sub(r"\bCUstream (?=\w)", "uint64_t ", parameters(call))


def hand_parameters(call, default="CUstream "):
    """Of the hand-written half: it gets the stream that was found, and what else it needs."""
    given = parameters(call)
    if call.takes_default_stream:
        given = (given + ", " if given != "void" else "") + f"{default}{DEFAULT_STREAM}"
    if call.resolved:
        kind = "struct stream *" if call.stream_use == "asks" else "uint64_t "
        given = re.sub(rf"\bCUstream {call.resolved}\b", kind + call.resolved, given)
    return given + ", const struct entries *entries" if call.entries else given


def wire_header(spec):
    wired = "".join(f"CUresult call_{c.name}({wire_parameters(c)});\n" for c in spec.wired())
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            "#ifndef VGPU_GUEST_LIBCUDA_WIRE_WIRE_CALLS_H\n"
            "#define VGPU_GUEST_LIBCUDA_WIRE_WIRE_CALLS_H\n\n"
            '#include <stdint.h>\n\n#include "api/cuda-types.h"\n'
            '#include "protocol/vgpu-array.h"\n#include "protocol/vgpu-tensor.h"\n\n'
            f"#define API_REVISION {max((c.since for c in spec.wired()), default=1)}u\n\n"
            f"{wired}\n#endif\n")


def hand_header(spec):
    hand = "".join(f"CUresult guest_{c.name}({hand_parameters(c)});\n"
                   for c in spec.exported() if c.half)
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            "/* What is written by hand of each call. Pointers that its entry gives are not NULL. */\n"
            "#ifndef VGPU_GUEST_LIBCUDA_CALLS_GUEST_CALLS_H\n"
            "#define VGPU_GUEST_LIBCUDA_CALLS_GUEST_CALLS_H\n\n"
            '#include "api/cuda-types.h"\n\nstruct stream;\nstruct entries;\n\n'
            f"{hand}\n#endif\n")


def declarations(spec):
    """Of all functions that programs call."""
    exported = "".join(prototype(c) + ";\n" for c in spec.exported())
    variants = "".join(f"CUresult {variant_name(c)}({parameters(c)});\n"
                       for c in spec.exported() if c.variant)
    aliases = "".join(f"CUresult {name}({parameters(c)});\n"
                      for c in spec.exported() for name, _ in c.aliases)
    refused = "".join(f"CUresult {symbol}(void);\n" for symbol, _ in refused_symbols(spec))
    return exported + variants + aliases + refused


def put(call, at, a):
    """Stores an argument in in[at]."""
    if a.direction == "string":
        return [f"in[{at}] = strlen({a.name}) + 1;"]
    if a.array:
        return []
    if a.type.kind == "plain":
        return [f"memcpy(&in[{at}], {a.name}, sizeof(*{a.name}));"]
    if a.type.handle == "stream":
        return [f"in[{at}] = {a.name};"]
    if a.type.kind == "handle":
        return [f"r = call_handle(HANDLE_{a.type.handle.upper()}, {a.name}, &in[{at}]);",
                "if (r != CUDA_SUCCESS) {", "    return r;", "}"]
    if a.type.wire[0] == "i":
        return [f"in[{at}] = (uint64_t)(int64_t)(int32_t){a.name};"]
    return [f"in[{at}] = {a.name};"]


def take(at, a):
    """Reads a result from out[at]."""
    if a.type.kind == "plain" or a.type.wire == "f32":
        line = f"memcpy({a.name}, &out[{at}], sizeof(*{a.name}));"
    elif a.type.kind == "handle":
        line = f"*{a.name} = ({a.type.name})(uintptr_t)out[{at}];"
    else:
        line = f"*{a.name} = ({a.type.name})out[{at}];"
    return [f"if ({a.name}) {{", f"    {line}", "}"] if a.optional else [line]


def wire_function(call):
    ins, in_words = fixed_in(call)
    outs, out_words = fixed_back(call)
    body, initial = [], [f".id = {call.id}", f".since = {call.since}"]
    if in_words:
        body.append(f"uint64_t in[{in_words}] = {{0}};")
    if out_words:
        body.append(f"uint64_t out[{out_words}] = {{0}};")
    if call.post:
        initial.append(".post = true")
    body.append(f"struct call call = {{{', '.join(initial)}}};")
    body.append("CUresult r;")
    body.append("")
    pointers = needed(call)
    if pointers:
        missing = " || ".join("!" + p for p in pointers)
        body += [f"if ({missing}) {{", "    return CUDA_ERROR_INVALID_VALUE;", "}"]
    for bit, a in enumerate(optional(call)):
        body.append(f"in[0] |= {a.name} ? UINT64_C({1 << bit}) : 0;")
    for at, a in ins:
        body += put(call, at, a)
    if in_words:
        body.append("call_in(&call, in, sizeof(in));")
    for a in parts(call, False):
        size = f"in[{dict((b.name, at) for at, b in ins)[a.name]}]" if a.direction == "string" \
            else f"{count_of(a)} * sizeof(*{a.name})"
        body.append(f"call_in(&call, {a.name}, {size});")
    if out_words:
        body.append("call_back(&call, out, sizeof(out));")
    for a in parts(call, True):
        body.append(f"call_back(&call, {a.name}, {count_of(a)} * sizeof(*{a.name}));")
    body.append("r = call_run(&call);")
    taken = [line for at, a in outs if not a.array for line in take(at, a)]
    if taken:
        body += ["if (r == CUDA_SUCCESS) {", *("    " + line for line in taken), "}"]
    body.append("return r;")
    lines = "".join(f"    {line}\n" if line else "\n" for line in body)
    return f"CUresult call_{call.name}({wire_parameters(call)})\n{{\n{lines}}}\n"


def variant_name(call):
    return f"{call.name}_{call.variant}"


# What the handle of the call's stream is called. It is taken before anything waits: the object may
# be gone when that returns, if the program destroys the stream meanwhile.
HANDLE = "stream_handle"


def found(index):
    """The variable for the stream that is found as the call's first, second and so on."""
    return f"stream_{index}"


def wanted_stream(call, name, variant):
    """What is looked up: the default stream of a variant is the thread's own."""
    if name == DEFAULT_STREAM:
        return "CU_STREAM_PER_THREAD" if variant else "CU_STREAM_LEGACY"
    return f"own_stream({name})" if variant else name


def hand_arguments(call, variant):
    given = names(call)
    if call.takes_default_stream:
        given.append(DEFAULT_STREAM if call.resolved else
                     wanted_stream(call, DEFAULT_STREAM, variant))
    elif call.stream_use == "raw":
        given = [wanted_stream(call, n, variant) if n in call.streams else n for n in given]
    return ", ".join(given + (["&exported_entries"] if call.entries else []))


def substituted(expression, call, asks=False):
    """C in which the stream that was found stands for its name: the object, or its handle."""
    if not call.resolved:
        return expression
    return re.sub(rf"\b{call.resolved}\b", found(0) if asks else HANDLE, expression)


def fail_unless(condition, error):
    return [f"if (!{condition}) {{", f"    return CUDA_ERROR_{error};", "}"]


def fetch(call):
    """Checks and finds what a call asks about, and gives its one result."""
    result = next(name for c, name in call.parameters if c.endswith("*"))
    lines = []
    value = substituted(call.value, call, True)
    for c, name in call.parameters:
        if c not in OBJECTS:
            continue
        find, kind, error = OBJECTS[c]
        find = find.format(name)
        if re.search(r"\bit\b", value):
            lines += [f"const {kind} *it = {find};", "", *fail_unless("it", error)]
        else:
            lines += fail_unless(find, error)
    if call.resolved:
        value = re.sub(r"\bit\b", found(0), value)
    if result not in call.given:
        lines += fail_unless(result, "INVALID_VALUE")
    return lines + [f"*{result} = {value};", "return CUDA_SUCCESS;"]


def hand_body(call, variant):
    """What an exported function does behind what all begin with."""
    lines = []
    for name in call.given:
        lines += fail_unless(name, "INVALID_VALUE")
    asks = call.stream_use == "asks"
    if call.resolved:
        wanted = wanted_stream(call, call.resolved, variant)
        finds = "stream_find" if asks or call.captured or call.value else "stream_usable"
        lines += [f"struct stream *{found(0)};", f"r = {finds}({wanted}, &{found(0)});",
                  "if (r != CUDA_SUCCESS) {", "    return r;", "}"]
        if call.captured or not (asks or call.value):
            lines += [f"uint64_t {HANDLE};", f"{HANDLE} = {found(0)}->object.handle;"]
    if call.captured:
        lines += [f"if (stream_captured({found(0)})) {{",
                  f"    return {substituted(call.captured, call)};", "}"]
    if call.captured and not asks:
        lines += [f"r = stream_allows({found(0)});",
                  "if (r != CUDA_SUCCESS) {", "    return r;", "}"]
    if call.value:
        return lines + fetch(call)
    said = call.expression or f"guest_{call.name}({hand_arguments(call, variant)})"
    unused = [name for name in names(call) if call.expression and
              not re.search(rf"\b{name}\b", f"{said} {call.captured} {' '.join(call.given)} "
                                             f"{call.resolved}")]
    return ([f"(void){name};" for name in unused] + lines +
            [f"return {substituted(said, call, asks)};"])


def needed(call):
    """C for each pointer of a wired call that may not be NULL."""
    pointers = [a.name for a in call.arguments
                if a.direction != "value" and not a.optional and not a.count]
    pointers += [f"({a.name} || {a.count} == 0)" for a in call.arguments
                 if a.count and not a.count.isdigit()]
    return pointers + [a.name for a in call.arguments if a.count.isdigit()]


def wired_body(call, variant):
    """A stream is looked at behind the pointers, since a look can spoil a capture."""
    lines, given = [], names(call)
    if call.streams and needed(call):
        lines += [f"if ({' || '.join('!' + p for p in needed(call))}) {{",
                  "    return CUDA_ERROR_INVALID_VALUE;", "}"]
    for index, name in enumerate(call.streams):
        lines += [f"struct stream *{found(index)};",
                  f"r = stream_usable({wanted_stream(call, name, variant)}, &{found(index)});",
                  "if (r != CUDA_SUCCESS) {", "    return r;", "}"]
        given[given.index(name)] = f"{found(index)}->object.handle"
    if call.checked:
        lines += [f"r = {call.checked};", "if (r != CUDA_SUCCESS) {", "    return r;", "}"]
    return lines + [f"return call_{call.name}({', '.join(given)});"]


def exported_function(call, symbol, variant):
    body = hand_body(call, variant) if call.hand else wired_body(call, variant)
    declared = [line for line in body if line.startswith(("struct stream *", "uint64_t "))]
    body = [line for line in body if line not in declared]
    enters = call.needs != "nothing"
    if enters or declared:
        declared.append("CUresult r" + (f" = enter_{call.needs}();" if enters else ";"))
    begins = declared + [""] if declared else []
    if enters:
        begins += ["if (r != CUDA_SUCCESS) {", "    return r;", "}"]
    lines = "".join(f"    {line}\n" if line else "\n" for line in begins + body)
    return f"EXPORTED CUresult {symbol}({parameters(call)})\n{{\n{lines}}}\n"


def refusal_function(symbol):
    return (f"EXPORTED CUresult {symbol}(void)\n{{\n"
            f"    static int said;\n\n    return refuse(\"{symbol}\", &said);\n}}\n")


def refused_symbols(spec):
    for r in spec.refusals:
        yield r.name, r.version
        if r.variant:
            yield f"{r.name}_{r.variant}", r.variant_version


def table_rows(spec):
    """(base name, version, symbol, symbol of the variant) for cuGetProcAddress()."""
    rows = []
    for c in spec.exported():
        variant = (variant_name(c), c.variant_version) if c.variant else None
        rows.append((base_name(c.name), c.version, c.name, variant))
        rows += [(base_name(name), version, name, None) for name, version in c.aliases]
        rows += [(name, version, c.name, variant) for name, version in c.also]
    for r in spec.refusals:
        variant = (f"{r.name}_{r.variant}", r.variant_version) if r.variant else None
        rows.append((base_name(r.name), r.version, r.name, variant))
    return sorted(rows, key=lambda row: row[:2])


def wire_source(spec):
    wired = "\n".join(wire_function(c) for c in spec.wired())
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            '#include "guest/libcuda/wire/wire-calls.h"\n\n#include <string.h>\n\n'
            f'#include "guest/libcuda/wire/call.h"\n\n{wired}')


# What lines of entries in C may use.
USED = ("calls/families.h", "calls/guest-calls.h", "exports/proc.h", "model/context.h",
        "model/array.h", "model/box.h", "model/device.h", "model/exec.h", "model/graph.h",
        "model/image.h", "model/link.h", "model/mempool.h", "model/module.h", "model/stream.h",
        "model/texture.h", "model/user-object.h", "model/work.h", "state/state.h",
        "wire/wire-calls.h")


def source(spec):
    exported = "\n".join(
        exported_function(c, symbol, variant)
        for c in spec.exported()
        for symbol, variant in [(c.name, False)] + [(name, False) for name, _ in c.aliases] +
        ([(variant_name(c), True)] if c.variant else []))
    refused = "\n".join(refusal_function(symbol) for symbol, _ in refused_symbols(spec))
    rows = "".join(
        f'    {{"{base}", {version}, {variant[1] if variant else 0}, (void *){symbol}, '
        f'{"(void *)" + variant[0] if variant else "NULL"}}},\n'
        for base, version, symbol, variant in table_rows(spec))
    used = "".join(f'#include "guest/libcuda/{name}"\n' for name in USED)
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}{used}\n"
            '#define EXPORTED __attribute__((visibility("default")))\n\n'
            f"{declarations(spec)}\n"
            "/* For cuGetProcAddress() " + "-" * 60 + " */\n\n"
            f"static const struct entry all_entries[] = {{\n{rows}}};\n"
            "const struct entries exported_entries = {all_entries, sizeof(all_entries) / sizeof(all_entries[0])};\n\n"
            "/* What programs call " + "-" * 66 + " */\n\n"
            f"{exported}\n/* What is refused " + "-" * 68 + f" */\n\n{refused}")


def version_script(spec):
    symbols = sorted({row[2] for row in table_rows(spec)} |
                     {row[3][0] for row in table_rows(spec) if row[3]})
    # By the last one the host's side tells that it has found this library in place of NVIDIA's.
    return ("{\nglobal:\n" + "".join(f"    {s};\n" for s in [*symbols, "vgpu_cuda"]) +
            "local:\n    *;\n};\n")
