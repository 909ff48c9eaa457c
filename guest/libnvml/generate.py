#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Makes of calls.list what libnvidia-ml exports.

usage: generate.py WHAT OUTPUT calls.list

WHAT is nvml-calls.h (declarations), exports.c (the functions that are not written by hand),
libnvidia-ml.map (the names for the linker) or nvml.md (the table of docs/nvml.md)."""
import sys

NOTICE = "/* Made by guest/libnvml/generate.py. */\n"
LICENCE = "/* SPDX-License-Identifier: MIT */\n"
SERVED = {"hand": "yes", "number": "yes", "text": "yes", "none": "yes: 0", "refused": "no"}


def read(path):
    calls = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            words = line.split(None, 2)
            if not words or words[0].startswith("#"):
                continue
            if words[0] not in SERVED or len(words) < 2:
                sys.exit(f"generate.py: {path}:{number}: '{line.strip()}' is no call")
            calls.append((words[0], words[1], words[2].strip() if len(words) > 2 else ""))
    names = [name for _, name, _ in calls]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        sys.exit(f"generate.py: {path}: twice: {', '.join(sorted(twice))}")
    return calls


def parameters(kind, rest):
    return {"hand": rest[1:-1], "number": "nvmlDevice_t device, unsigned int *value",
            "text": "nvmlDevice_t device, char *value, unsigned int length",
            "none": "unsigned int *count", "refused": "void"}[kind] or "void"


def header(calls):
    declared = "".join(f"nvmlReturn_t {name}({parameters(kind, rest)});\n"
                       for kind, name, rest in calls)
    return (LICENCE + NOTICE + "#ifndef VGPU_GUEST_LIBNVML_NVML_CALLS_H\n"
            "#define VGPU_GUEST_LIBNVML_NVML_CALLS_H\n\n"
            '#include "guest/libnvml/nvml-types.h"\n\n' + declared +
            "const char *nvmlErrorString(nvmlReturn_t result);\n\n#endif\n")


def value_of(text):
    """A part of the card, or what it says."""
    return "look.card." + text if text.startswith(("facts.", "sensors.")) else text


def known_of(text):
    return "0" if text == "0" else "VGPU_KNOWN_" + text


def body(kind, rest):
    if kind == "refused":
        return "    return refuse_call();\n"
    if kind == "none":
        return ("    unsigned devices;\n"
                "    const nvmlReturn_t r = devices_count(&devices);\n\n"
                "    if (r != NVML_SUCCESS || !count) {\n"
                "        return r != NVML_SUCCESS ? r : NVML_ERROR_INVALID_ARGUMENT;\n    }\n"
                "    *count = 0;\n    return NVML_SUCCESS;\n")
    value, known = rest.split()
    give = (f"give_number(&look, {known_of(known)}, {value_of(value)}, value)"
            if kind == "number" else
            f"give_string(&look, {known_of(known)}, {value_of(value)}, value, length)")
    return ("    struct look look;\n    const nvmlReturn_t r = devices_look(device, &look);\n\n"
            "    if (r != NVML_SUCCESS || !value) {\n"
            "        return r != NVML_SUCCESS ? r : NVML_ERROR_INVALID_ARGUMENT;\n    }\n"
            f"    return {give};\n")


def source(calls):
    functions = "\n".join(f"nvmlReturn_t {name}({parameters(kind, rest)})\n{{\n"
                          f"{body(kind, rest)}}}\n"
                          for kind, name, rest in calls if kind != "hand")
    return (LICENCE + NOTICE + '#include "guest/libnvml/nvml-calls.h"\n'
            '#include "guest/libnvml/devices.h"\n\n' + functions)


def version_script(calls):
    names = "".join(f"    {name};\n" for name in
                    sorted(name for _, name, _ in calls) + ["nvmlErrorString", "vgpu_nvml"])
    return "{\n  global:\n" + names + "  local: *;\n};\n"


def table(calls):
    rows = "".join(f"| `{name}` | {SERVED[kind]} |\n"
                   for kind, name, _ in sorted(calls, key=lambda call: call[1]))
    return "| function | served |\n|---|---|\n" + rows


OUTPUTS = {"nvml-calls.h": header, "exports.c": source, "libnvidia-ml.map": version_script,
           "nvml.md": table}


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in OUTPUTS:
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        return 2
    text = OUTPUTS[sys.argv[1]](read(sys.argv[3]))
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(text)
    return 0


sys.exit(main())
