# SPDX-License-Identifier: MIT
"""The coverage page, and the wire as text: a test compares that with what is checked in."""
from emit import fixed_back, fixed_in, optional, parts
from spec import base_name


def place(at, a):
    if a.direction == "string":
        return f"{at} length of {a.name}"
    return f"{at} {a.type.name} {a.name}"


def wire_lines(call):
    yield f"{call.id} {call.name}" + (f", since {call.since}" if call.since > 1 else "")
    for title, back, (places, total) in (("in", False, fixed_in(call)),
                                         ("back", True, fixed_back(call))):
        lines = ["0 which results are wanted"] if optional(call) and not back else []
        lines += [place(at, a) for at, a in places if a.direction == "string" or not a.array]
        lines += [f"{total}... {a.type.name} {a.name}[{a.count}]".replace("[]", ", with a NUL")
                  for a in parts(call, back)]
        for line in lines:
            yield f"    {title} {line}"


def wire(spec):
    return ("Calls on the wire: id, name, and where in words of 8 bytes arguments and results lie.\n"
            "What is here does not change: a call that has to gets a new id.\n\n" +
            "".join(line + "\n" for call in spec.wired() for line in wire_lines(call)))


def how(call):
    if call.hand:
        return "by hand"
    return f"forwarded ({call.family})"


def coverage(spec):
    served = [call for call in spec.exported() if not call.refused]
    refused = {base_name(call.name): [call.version] for call in spec.exported() if call.refused}
    for r in spec.refusals:
        refused.setdefault(base_name(r.name), []).append(r.version)
    names = {base_name(call.name) for call in served}
    old = {name: versions for name, versions in refused.items() if name in names}
    refused = {name: versions for name, versions in refused.items() if name not in names}
    text = ("<!-- Generated from api/ by generate.py; see api/README.md. -->\n# Coverage of the CUDA "
            "driver API\n\n"
            f"{len(served)} calls are served, {len(refused)} are refused: they answer "
            "CUDA_ERROR_NOT_SUPPORTED and say\nso once on stderr. `cuda.h` maps plain names to "
            "these symbols (`cuMemAlloc` is `cuMemAlloc_v2`).\nThe version is that of CUDA from which "
            "`cuGetProcAddress` hands out the symbol, 2000 is\nCUDA 2.0.\n\n"
            "| id | call | version | guest half |\n|---|---|---|---|\n")
    for call in served:
        variant = f", `_{call.variant}` {call.variant_version}" if call.variant else ""
        text += f"| {call.id} | `{call.name}` | {call.version}{variant} | {how(call)} |\n"
    for title, which in (("Refused", refused),
                         ("Versions from before CUDA 4 and others that programs built since do "
                          "not use, refused", old)):
        text += f"\n## {title}\n\n"
        text += "".join(f"- `{name}` ({', '.join(map(str, sorted(versions)))})\n"
                        for name, versions in sorted(which.items()))
    return text


def field_text(command, field):
    kind, name, count, given = field
    size = f"{kind.wire or 'u64'}" + (f"[{count}]" if count > 1 else "")
    what = f", a {kind.handle}" if kind.kind == "handle" else ""
    if kind.kind == "handle" and kind.handle == "stream" and not given:
        what += " or 0"
    return f"{name} {size}{what}"


def command_row(command):
    body = ", ".join(field_text(command, f) for f in command.fields
                     if not f[1].startswith("reserved"))
    body += "".join(f"; {f.count} bytes of {f.type}, at most {f.most}" if f.unit != 1 else
                    f"; {f.type}[{f.count}], at most {f.most}" for f in command.follow)
    is_so = [("S", not command.post), ("T", command.work), ("F", command.free), ("L", command.slow)]
    result = f"`{command.result}`" + (f" x {command.results}" if command.results > 1 else "")
    return (f"| {command.id} | {command.name} | {''.join(c for c, true in is_so if true)} | {body} | "
            f"{result if command.result else ''} | {command.doc} |\n")


def commands(spec):
    rows = "".join(command_row(c) for c in sorted(spec.commands, key=lambda c: c.id))
    return ("<!-- Generated from api/ by generate.py; see api/README.md. -->\n# Commands of ring "
            "mode\n\n"
            "What lies in a session's ring: a header (`struct vgpu_command`), the body, what follows "
            "it by\ncount, and padding to 16 bytes. `protocol/vgpu-queue.h` says how ring and slots "
            "work, and has the\nstructures. A length that is not exactly what the opcode and the "
            "counts ask for ends the session;\n`refused` in the queue's header then tells which "
            "command it was and why. Reserved fields are 0.\n\n"
            "S: must have a slot. T: is work for the GPU and waits for a turn. F: does not depend on "
            "what was\nposted before. L: may take long without the GPU.\n\n"
            "| opcode | name | is | body | answer | what it does |\n|---|---|---|---|---|---|\n"
            f"{rows}")
