# SPDX-License-Identifier: MIT
"""The guest half: the calls over the wire, the exported functions and their table."""
from emit import (NOTICE, count_of, fixed_back, fixed_in, names, optional, parameters, parts)
from emit_headers import prototype
from spec import base_name

# What follows the parameters of a hand-written call that uses the default stream.
DEFAULT_STREAM = "CUstream default_stream"


def hand_parameters(call):
    given = parameters(call)
    if call.takes_default_stream:
        return DEFAULT_STREAM if given == "void" else f"{given}, {DEFAULT_STREAM}"
    return given


def header(spec):
    wired = "".join(f"CUresult call_{c.name}({parameters(c)});\n" for c in spec.wired())
    hand = "".join(f"CUresult guest_{c.name}({hand_parameters(c)});\n"
                   for c in spec.exported() if c.hand)
    exported = "".join(prototype(c) + ";\n" for c in spec.exported())
    variants = "".join(f"CUresult {variant_name(c)}({parameters(c)});\n"
                       for c in spec.exported() if c.variant)
    aliases = "".join(f"CUresult {name}({parameters(c)});\n"
                      for c in spec.exported() for name, _ in c.aliases)
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            "#ifndef VGPU_GUEST_LIBCUDA_CALLS_H\n#define VGPU_GUEST_LIBCUDA_CALLS_H\n\n#include \"api/cuda-types.h\"\n\n"
            f"#define API_REVISION {max((c.since for c in spec.wired()), default=1)}u\n\n"
            f"/* Over the wire. */\n{wired}\n"
            f"/* Written by hand. */\n{hand}\n"
            f"/* What programs call. */\n{exported}{variants}{aliases}\n#endif\n")


def put(call, at, a):
    """Stores an argument in in[at]."""
    if a.direction == "string":
        return [f"in[{at}] = strlen({a.name}) + 1;"]
    if a.array:
        return []
    if a.type.kind == "plain":
        return [f"memcpy(&in[{at}], {a.name}, sizeof(*{a.name}));"]
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
    pointers = [a.name for a in call.arguments
                if a.direction != "value" and not a.optional and not a.count]
    pointers += [f"({a.name} || {a.count} == 0)" for a in call.arguments
                 if a.count and not a.count.isdigit()]
    pointers += [a.name for a in call.arguments if a.count.isdigit()]
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
    return f"CUresult call_{call.name}({parameters(call)})\n{{\n{lines}}}\n"


def variant_name(call):
    return f"{call.name}_{call.variant}"


def arguments(call, variant):
    """What an exported function hands on; its variant's default stream is the thread's own."""
    given = [f"own_stream({n})" if variant and n in call.streams else n for n in names(call)]
    if call.takes_default_stream:
        given.append("CU_STREAM_PER_THREAD" if variant else "CU_STREAM_LEGACY")
    return ", ".join(given)


def exported_function(call, symbol, variant):
    inner = f"{'guest' if call.hand else 'call'}_{call.name}({arguments(call, variant)})"
    if call.needs == "nothing":
        body = f"    return {inner};\n"
    else:
        body = (f"    const CUresult r = enter_{call.needs}();\n\n"
                f"    return r == CUDA_SUCCESS ? {inner} : r;\n")
    return f"EXPORTED CUresult {symbol}({parameters(call)})\n{{\n{body}}}\n"


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


def source(spec):
    wired = "\n".join(wire_function(c) for c in spec.wired())
    exported = "\n".join(
        exported_function(c, symbol, variant)
        for c in spec.exported()
        for symbol, variant in [(c.name, False)] + [(name, False) for name, _ in c.aliases] +
        ([(variant_name(c), True)] if c.variant else []))
    refused = "\n".join(refusal_function(symbol) for symbol, _ in refused_symbols(spec))
    declared = "".join(f"CUresult {symbol}(void);\n" for symbol, _ in refused_symbols(spec))
    rows = "".join(
        f'    {{"{base}", {version}, {variant[1] if variant else 0}, (void *){symbol}, '
        f'{"(void *)" + variant[0] if variant else "NULL"}}},\n'
        for base, version, symbol, variant in table_rows(spec))
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            '#include "guest/libcuda/calls.h"\n\n#include <string.h>\n\n#include "guest/libcuda/call.h"\n#include "guest/libcuda/entry.h"\n\n'
            "/* Over the wire " + "-" * 70 + " */\n\n"
            f"{wired}\n/* What programs call " + "-" * 66 + " */\n\n"
            f"{exported}\n/* What is refused " + "-" * 68 + " */\n\n" +
            f"{declared}\n{refused}\n"
            "/* For cuGetProcAddress() " + "-" * 60 + " */\n\n"
            f"const struct entry entries[] = {{\n{rows}}};\n"
            "const unsigned entry_count = sizeof(entries) / sizeof(entries[0]);\n")


def version_script(spec):
    symbols = sorted({row[2] for row in table_rows(spec)} |
                     {row[3][0] for row in table_rows(spec) if row[3]})
    return "{\nglobal:\n" + "".join(f"    {s};\n" for s in symbols) + "local:\n    *;\n};\n"
