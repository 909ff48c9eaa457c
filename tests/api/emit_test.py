# SPDX-License-Identifier: MIT
"""Tests for every call: there and back again, cut short, and against an installed cuda.h."""
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [os.path.join(HERE, "../../worker"), os.path.join(HERE, "../../guest/libcuda")]
from emit import NOTICE, fixed_in, names, optional, parameters, parts  # noqa: E402
from emit_guest import declarations, hand_parameters, variant_name  # noqa: E402
from emit_headers import prototype  # noqa: E402
from emit_host import host_parameters, members  # noqa: E402
from spec import base_name  # noqa: E402

TYPES = os.path.join(HERE, "../../api/cuda-types.h")
# Types that CUDA does not have.
OWN = ("CUallocation", "CUsharedEvent", "vgpu_copy_box", "vgpu_tensor", "vgpu_array_shape", "vgpu_array_copy",
       "vgpu_texture")


def header_check(spec):
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            "/* With NVIDIA's cuda.h: a call that is declared in another way does not compile. */\n"
            "#define __CUDA_API_VERSION_INTERNAL\n#include <cuda.h>\n\n" +
            "".join(prototype(call) + ";\n" for call in spec.exported() if call.version))


# Sizes, fields and values ----------------------------------------------------------------------


def constants():
    """Enumerators and macros with a value that cuda-types.h has; not the version it is of."""
    with open(TYPES, encoding="utf-8") as file:
        text = file.read()
    macros = re.findall(r"^#define (CU\w+)[ \t]+\S", text, re.M)
    return re.findall(r"^    (CU\w+) = ", text, re.M) + [m for m in macros if m != "CUDA_VERSION"]


def layouts(spec):
    """Compiled with a header of choice, by -include: what it prints is compared."""
    lines = []
    for name, fields in spec.layouts.items():
        lines.append(f'printf("sizeof {name} %zu\\n", sizeof({name}));')
        lines += [f'printf("field {name}.{field} %zu %zu\\n", offsetof({name}, {field}), '
                  f"sizeof((({name} *)0)->{field}));" for field in fields]
    for t in (t for t in spec.types.values() if t.name not in OWN):
        lines.append(f'printf("type {t.name} %zu\\n", sizeof({t.name}));')
        if t.kind == "number":
            lines.append(f'printf("signed {t.name} %d\\n", ({t.name})-1 < ({t.name})1);')
    lines += [f'printf("value {name} %lld\\n", (long long){name});'
              for name in constants()]
    lines += [f'printf("value CUDA_ERROR_{e.name} %lld\\n", (long long)CUDA_ERROR_{e.name});'
              for e in spec.errors if e.number]
    body = "".join(f"    {line}\n" for line in lines)
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            f"#include <stddef.h>\n#include <stdio.h>\n\nint main(void)\n{{\n{body}"
            "    return 0;\n}\n")


# There and back --------------------------------------------------------------------------------

FIELDS = {"i32": "FIELD_I32", "u8": "FIELD_U8", "u16": "FIELD_U16", "u32": "FIELD_U32",
          "u64": "FIELD_U64"}


def constant(a):
    return a.count.isdigit()


def member(a):
    """In the structure of what is passed and what is to come back."""
    if a.direction == "string":
        return f"char {a.name}[STRING_ROOM];"
    if a.array:
        return f"{a.type.name} {a.name}[{a.count if constant(a) else 'ELEMENTS'}];"
    return f"{a.type.name} {a.name};"


def array_bytes(a, owner):
    count = a.count if constant(a) else f"{owner}->{a.count}"
    return f"{count} * sizeof({owner}->{a.name}[0])"


def set_lines(call):
    counts = {a.count for a in call.arguments}
    for index, a in enumerate(call.arguments):
        if a.direction == "string":
            yield f"draw_string(a->{a.name}, round + {index});"
        elif a.array or a.type.kind == "plain" or a.direction == "out":
            yield f"draw_bytes(&a->{a.name}, sizeof(a->{a.name}));"
        elif a.direction == "new":
            yield f"a->{a.name} = ({a.type.name})(uintptr_t)draw_random();"
        elif a.type.kind == "handle":
            yield (f"a->{a.name} = ({a.type.name})(uintptr_t)draw_handle("
                   f"HANDLE_{a.type.handle.upper()}, round + {index});")
        elif a.name in counts:
            yield f"a->{a.name} = draw_count(round + {index});"
        else:
            yield f"a->{a.name} = ({a.type.name})draw_number({FIELDS[a.type.wire]}, round);"


def result_bytes(a):
    return array_bytes(a, "a") if a.array else f"sizeof(a->{a.name})"


def fake_lines(call):
    """Compares the arguments, then answers."""
    bits = {a.name: bit for bit, a in enumerate(optional(call))}
    for a in call.arguments:
        if a.comes_back:
            continue
        if a.direction == "string":
            yield f"assert_string_equal({a.name}, a->{a.name});"
        elif a.array:
            yield f"assert_memory_equal({a.name}, a->{a.name}, {array_bytes(a, 'a')});"
        elif a.direction == "in":
            yield f"assert_memory_equal({a.name}, &a->{a.name}, sizeof(*{a.name}));"
        elif a.type.kind == "handle":
            yield (f"assert_ptr_equal({a.name}, object_behind(HANDLE_{a.type.handle.upper()}, "
                   f"a->{a.name}));")
        else:
            yield f"assert_memory_equal(&{a.name}, &a->{a.name}, sizeof({a.name}));"
    for a in call.arguments:
        if not a.comes_back:
            continue
        if a.optional:
            yield f"assert_int_equal({a.name} != NULL, is_wanted({bits[a.name]}));"
            yield f"if ({a.name}) {{"
        if a.array:
            yield f"assert_zero({a.name}, {array_bytes(a, 'a')});"
        if a.direction == "new":
            yield f"*{a.name} = (uint64_t)(uintptr_t)a->{a.name};"
        else:
            yield f"memcpy({a.name}, {'' if a.array else '&'}a->{a.name}, {result_bytes(a)});"
        if a.optional:
            yield "}"


def fake(call):
    first = "struct api_serve *serve" if call.host == "hand" else "struct gpu *gpu"
    linkage = "" if call.host == "hand" else "static "
    name = f"host_{call.name}" if call.host == "hand" else f"fake_{call.name}"
    lines = "".join(f"    {line}\n" for line in fake_lines(call))
    uses = f"    const struct args_{call.name} *a = &args_{call.name};\n\n" \
        if call.arguments else ""
    return (f"{linkage}enum vgpu_gpu_error {name}({host_parameters(call, first)})\n{{\n{uses}"
            f"    fake_entered({call.id}, {'serve->gpu' if call.host == 'hand' else 'gpu'});\n"
            f"{lines}    return fake_result;\n}}\n")


def given(call, pointer):
    """The arguments of a call; pointer() has the last word on those that are pointers."""
    number, bits = 0, {a.name: bit for bit, a in enumerate(optional(call))}
    for a in call.arguments:
        if a.direction == "value":
            yield f"a->{a.name}"
            continue
        owner = "got." if a.comes_back else "a->"
        address = ("" if a.array else "&") + owner + a.name
        if a.optional:
            yield f"is_wanted({bits[a.name]}) ? {address} : NULL"
        else:
            yield pointer(number, address)
            number += 1


def needed_pointers(call):
    return [a for a in call.arguments if a.direction != "value" and not a.optional]


def direct(call):
    """What takes a call to the wire from its arguments as a program has them."""
    return f"direct_{call.name}" if call.streams else f"call_{call.name}"


def wire_entry(call):
    """On the wire a stream is its handle: somebody has to find it."""
    if not call.streams:
        return ""
    given = ", ".join(f"found_{n}->object.handle" if n in call.streams else n
                      for n in names(call))
    find = "".join(f"    struct stream *found_{n};\n" for n in call.streams)
    check = "".join(f"    if (stream_usable({n}, &found_{n}) != CUDA_SUCCESS) {{\n"
                    "        return CUDA_ERROR_INVALID_HANDLE;\n    }\n" for n in call.streams)
    return (f"static CUresult direct_{call.name}({parameters(call)})\n{{\n{find}\n{check}"
            f"    return call_{call.name}({given});\n}}\n\n")


def run_function(call):
    """By the name, or one of the names, that the call has."""
    entries = [direct(call)]
    if call.exported:
        entries += [call.name] + [name for name, _ in call.aliases]
        entries += [variant_name(call)] if call.variant else []
    bits = {a.name: bit for bit, a in enumerate(optional(call))}
    back = [a for a in call.arguments if a.comes_back]
    lines = [f"static CUresult (*const entries[])({parameters(call)}) = {{{', '.join(entries)}}};"]
    if call.arguments:
        lines.append(f"const struct args_{call.name} *a = &args_{call.name};")
    if back:
        lines.append(f"struct args_{call.name} got, expected;")
    lines += ["CUresult r;", ""]
    if back:
        lines += ["memset(&got, UNTOUCHED, sizeof(got));",
                  "memset(&expected, UNTOUCHED, sizeof(expected));"]
    arguments = ", ".join(given(call, lambda _, address: address))
    lines.append(f"r = entries[entry]({arguments});")
    if back:
        lines.append("if (r == CUDA_SUCCESS) {")
        for a in back:
            copy = f"memcpy(&expected.{a.name}, &a->{a.name}, {result_bytes(a)});"
            if a.optional:
                copy = f"if (is_wanted({bits[a.name]})) {{ {copy} }}"
            lines.append(f"    {copy}")
        lines += ["}", "assert_memory_equal(&got, &expected, sizeof(got));"]
    lines.append("return r;")
    body = "".join(f"    {line}\n" if line else "\n" for line in lines)
    return wire_entry(call) + f"static CUresult run_{call.name}(unsigned entry)\n{{\n{body}}}\n", len(entries)


def null_function(call):
    if not needed_pointers(call):
        return ""
    back = any(a.comes_back for a in call.arguments)
    arguments = ", ".join(given(call, lambda number, address:
                                f"missing == {number} ? NULL : {address}"))
    uses = ""
    if "a->" in arguments:
        uses += f"    const struct args_{call.name} *a = &args_{call.name};\n"
    uses += f"    static struct args_{call.name} got;\n" if back else ""
    return (f"static CUresult null_{call.name}(unsigned missing)\n{{\n{uses}\n"
            f"    return {direct(call)}({arguments});\n}}\n")


def field_rows(call):
    counts = {}
    for a in call.arguments:
        if a.count and not constant(a):
            counts[a.count] = True
    if optional(call):
        yield f"{{.word = 0, .kind = FIELD_MASK, .bits = {len(optional(call))}}}"
    for at, a in fixed_in(call)[0]:
        if a.direction == "string":
            yield f"{{.word = {at}, .kind = FIELD_LENGTH}}"
        elif a.array or a.type.kind == "plain":
            continue
        elif a.type.kind == "handle":
            flags = ", .stream = true" if a.name == call.stream else ""
            flags += ", .weight = true" if a.weight else ""
            yield (f"{{.word = {at}, .kind = FIELD_HANDLE, "
                   f".type = HANDLE_{a.type.handle.upper()}{flags}}}")
        else:
            flags = ", .count = true" if a.name in counts else ""
            flags += ", .weight = true" if a.weight else ""
            yield f"{{.word = {at}, .kind = {FIELDS[a.type.wire]}{flags}}}"


def part_rows(call):
    """Arrays and strings behind the fixed part: where their count is, and an element's size."""
    at = {a.name: place for place, a in fixed_in(call)[0]}
    for a in parts(call, False):
        if a.direction == "string":
            yield f"{{.word = {at[a.name]}, .size = 1, .string = true}}"
        elif constant(a):
            yield f"{{.fixed = {a.count}, .size = sizeof({a.type.name})}}"
        else:
            yield f"{{.word = {at[a.count]}, .size = sizeof({a.type.name})}}"


def table(name, kind, rows):
    return f"static const struct {kind} {name}[] = {{\n" + \
        "".join(f"    {row},\n" for row in rows) + "};\n" if rows else ""


def tested(call):
    """All that is there for one call, and its row among them."""
    run, entries = run_function(call)
    fields, pieces = list(field_rows(call)), list(part_rows(call))
    arguments = "".join(f"    {member(a)}\n" for a in call.arguments)
    sets = "".join(f"    {line}\n" for line in set_lines(call))
    text = ""
    row = (f'.id = {call.id}, .name = "{call.name}", .since = {call.since}, '
           f".post = {'true' if call.post else 'false'}, .words = {fixed_in(call)[1]}, "
           f".run = run_{call.name}, .entries = {entries}, "
           f".variant = {'true' if call.variant else 'false'}")
    if arguments:
        text += (f"static struct args_{call.name} {{\n{arguments}}} args_{call.name};\n\n"
                 f"static void set_{call.name}(unsigned round)\n{{\n"
                 f"    struct args_{call.name} *a = &args_{call.name};\n\n"
                 f"    (void)round;\n{sets}}}\n\n")
        row += f", .set = set_{call.name}"
    text += f"{fake(call)}\n{run}\n{null_function(call)}"
    if needed_pointers(call):
        row += f", .null = null_{call.name}, .pointers = {len(needed_pointers(call))}"
    if fields:
        text += "\n" + table(f"fields_{call.name}", "field", fields)
        row += f", .fields = fields_{call.name}, .field_count = {len(fields)}"
    if pieces:
        text += "\n" + table(f"parts_{call.name}", "part", pieces)
        row += f", .parts = parts_{call.name}, .part_count = {len(pieces)}"
    return text + "\n", f"    {{{row}}},\n"


def guest_stub(call):
    """In place of what is written by hand: notes what it was given."""
    passed = names(call) + (["default_stream"] if call.takes_default_stream else [])
    noted = ", ".join(f"{n}->id" if n == call.resolved and call.stream_use == "asks" else f"(uint64_t)(uintptr_t){n}"
                      for n in passed) or "0"
    entries = "    assert_true(entries->count > 0);\n" if call.entries else ""
    return (f"CUresult guest_{call.name}({hand_parameters(call)})\n{{\n"
            f"    const uint64_t passed[] = {{{noted}}};\n\n{entries}"
            f'    return guest_entered("{call.name}", passed, {len(passed)});\n}}\n')


def enter_function(call, symbol):
    passed = ", ".join(
        f"({c})(uintptr_t)(null_stream ? 0 : PASSED + {i})" if n == call.stream
        else f"({c})(uintptr_t)(PASSED + {i})"
        for i, (c, n) in enumerate(call.parameters))
    return (f"static CUresult enter_{symbol}(bool null_stream)\n{{\n    (void)null_stream;\n"
            f"    return {symbol}({passed});\n}}\n")


def hand_symbols(spec):
    for call in spec.exported():
        if call.half:
            yield call, call.name, False
            for name, _ in call.aliases:
                yield call, name, False
            if call.variant:
                yield call, variant_name(call), True


def hand_row(call, symbol, variant):
    stream = names(call).index(call.stream) + 1 if call.stream else 0
    return (f'    {{.symbol = "{symbol}", .guest = "{call.name}", .run = enter_{symbol}, '
            f".needs = NEEDS_{call.needs.upper()}, .count = {len(names(call))}, "
            f".stream = {stream}, .variant = {'true' if variant else 'false'}, "
            f".default_stream = {'true' if call.takes_default_stream else 'false'}}},\n")


def stand_ins(spec):
    """
    For functions that entries name in C: the linker wants them, and nothing here calls them but
    what asks first, which finds nothing wrong.
    """
    said = " ".join(f"{c.expression} {c.value} {c.captured}" for c in spec.exported())
    asked = set(re.findall(r"\b([a-z]\w*)\(", " ".join(c.checked for c in spec.exported())))
    wanted = set(re.findall(r"\b([a-z]\w*)\(", said))
    wanted |= {"graph_find", "node_find", "context_find"}
    wanted -= {f"guest_{c.name}" for c in spec.exported()} | {f"call_{c.name}" for c in spec.wired()}
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}#include <stdlib.h>\n\n" +
            "".join(f"void {name}(void);\nvoid {name}(void)\n{{\n    abort();\n}}\n\n"
                    for name in sorted(wanted - asked)) +
            "".join(f"int {name}(void);\nint {name}(void)\n{{\n    return 0;\n}}\n\n"
                    for name in sorted(asked)))


def refusal_rows(spec):
    """With the name and version under which cuGetProcAddress() has it."""
    for r in spec.refusals:
        variant = f"{r.name}_{r.variant}" if r.variant else ""
        yield (f'    {{.name = "{base_name(r.name)}", .version = {r.version}, '
               f'.symbol = "{r.name}", .own = "{variant}"}},\n')


def roundtrip(spec):
    calls = [tested(call) for call in spec.wired()]
    hand = [c for c in spec.exported() if c.half]
    symbols = list(hand_symbols(spec))
    kinds = "".join(f"    HANDLE_{kind.upper()},\n" for kind, _ in spec.kinds)
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            '#include "tests/api/roundtrip.h"\n\n#include <string.h>\n\n#include "guest/libcuda/calls/guest-calls.h"\n'
            '#include "guest/libcuda/exports/proc.h"\n#include "guest/libcuda/model/stream.h"\n'
            '#include "guest/libcuda/wire/wire-calls.h"\n\n'
            f"{declarations(spec)}\n"
            "/* For each call: what is passed and comes back, a fake that compares and answers,\n"
            " * the caller that compares, and what lies where on the wire. */\n\n" +
            "".join(text for text, _ in calls) +
            "const struct gpu_calls fake_calls = {\n" +
            "".join(f"    .{c.name} = fake_{c.name},\n" for c in members(spec)) + "};\n\n"
            "const struct roundtrip roundtrips[] = {\n" + "".join(row for _, row in calls) + "};\n"
            "const unsigned roundtrip_count = sizeof(roundtrips) / sizeof(roundtrips[0]);\n\n"
            f"const enum handle_type handle_kinds[] = {{\n{kinds}}};\n"
            "const unsigned handle_kind_count = sizeof(handle_kinds) / sizeof(handle_kinds[0]);\n"
            "\n"
            "/* What programs call, in front of what is written by hand. */\n\n" +
            "\n".join(guest_stub(c) for c in hand) + "\n" +
            "\n".join(enter_function(call, symbol) for call, symbol, _ in symbols) +
            "\nconst struct hand_entry hand_entries[] = {\n" +
            "".join(hand_row(*row) for row in symbols) + "};\n"
            "const unsigned hand_entry_count = sizeof(hand_entries) / sizeof(hand_entries[0]);\n\n"
            "const struct refusal refusals[] = {\n" + "".join(refusal_rows(spec)) + "};\n"
            "const unsigned refusal_count = sizeof(refusals) / sizeof(refusals[0]);\n")
