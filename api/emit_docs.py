# SPDX-License-Identifier: MIT
"""The coverage page, and the wire as text: a test compares that with what is checked in."""
from emit import fixed_back, fixed_in, optional, parts


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


def release(version):
    """12040 as people say it: 12.4."""
    return f"{version // 1000}.{version % 1000 // 10}"


def coverage(spec):
    rows = []
    for call in spec.exported():
        state = "refused" if call.refused else "partly" if call.partly else "done"
        variant = f", `_{call.variant}` {release(call.variant_version)}" if call.variant else ""
        rows.append((call.name, release(call.version) + variant, state, call.partly))
        rows += [(name, release(version), state, f"`{call.name}` by another name")
                 for name, version in call.aliases]
    for refusal in spec.refusals:
        variant = (f", `_{refusal.variant}` {release(refusal.variant_version)}" if refusal.variant
                   else "")
        rows.append((refusal.name, release(refusal.version) + variant, "refused", refusal.reason))
    counts = {state: sum(row[2] == state for row in rows) for state in ("done", "partly", "refused")}
    return ("<!-- Generated from api/ by generate.py; see api/README.md. -->\n# Coverage of the CUDA "
            "driver API\n\n"
            f"{counts['done']} calls are done, {counts['partly']} in part, and {counts['refused']} are "
            "refused: they answer\nCUDA_ERROR_NOT_SUPPORTED and say so once on stderr. `cuda.h` maps plain "
            "names to these symbols\n(`cuMemAlloc` is `cuMemAlloc_v2`). A call is there from a version of "
            "CUDA on: by\n`cuGetProcAddress` a program that was built for an older one does not get "
            "it.\n\n"
            "| call | CUDA | state | what is not served, and why |\n|---|---|---|---|\n" +
            "".join(f"| `{name}` | {version} | {state} | {note} |\n"
                    for name, version, state, note in sorted(rows)))


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
