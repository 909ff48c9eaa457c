# SPDX-License-Identifier: MIT
"""libvgpu's half of ring mode: a function for each command, that fills in its body and posts it."""
from emit import NOTICE

C_TYPES = {"u8": "uint8_t", "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t",
           "i32": "int32_t"}


def c_type(kind):
    return "uint64_t" if kind.kind == "handle" else C_TYPES[kind.wire]


def fields(command):
    return [f for f in command.fields if not f[1].startswith("reserved")]


def result_type(command):
    return f"struct {command.result}"


def function(command):
    """ring_NAME(session, body, what follows, result): posts, or asks and waits."""
    name = command.name.lower()
    given = ["struct vgpu_session *session"]
    initial = []
    if command.body and command.follow:
        given.append(f"const struct {command.body} *body")
    else:
        for kind, field, _, _ in fields(command):
            given.append(f"{c_type(kind)} {field}")
            initial.append(f".{field} = {field}")
    if command.follow:
        given += ["const void *rest", "uint32_t rest_bytes"]
    if command.result:
        given.append(f"{result_type(command)} *result")
    if command.results > 1:
        given.append("uint32_t *count")
    lines = []
    if initial:
        lines.append(f"const struct {command.body} body = {{{', '.join(initial)}}};")
    elif command.body and not command.follow:
        lines.append(f"const struct {command.body} body = {{0}};")
    members = [f".opcode = VGPU_CMD_{command.name}"]
    if command.body:
        members += [f".body = {'body' if command.follow else '&body'}",
                    f".body_bytes = sizeof(struct {command.body})"]
    else:
        members.append('.body = ""')
    if command.follow:
        members += [".rest = rest", ".rest_bytes = rest_bytes"]
    lines.append(f"const struct command command = {{{', '.join(members)}}};")
    lines.append("")
    if command.post:
        lines.append("return session_post(session, &command);")
    elif command.results > 1:
        lines.append(f"return session_call_list(session, &command, result, sizeof(*result), "
                     f"{command.results}, count);")
    elif command.result:
        lines.append("return session_call(session, &command, result, sizeof(*result));")
    else:
        lines.append("return session_call(session, &command, NULL, 0);")
    body = "".join(f"    {line}\n" if line else "\n" for line in lines)
    return (f"/* {command.doc} */\nstatic inline int ring_{name}({', '.join(given)})\n{{\n{body}}}\n")


def names(spec):
    rows = "".join(f'        [{c.id}] = "{c.name}",\n'
                   for c in sorted(spec.commands, key=lambda c: c.id))
    return ("/* The name of an opcode, for messages; static. */\n"
            "static inline const char *ring_command_name(uint32_t opcode)\n{\n"
            f"    static const char *const names[] = {{\n        [0] = \"PAD\",\n{rows}    }};\n\n"
            '    return opcode < sizeof(names) / sizeof(names[0]) ? names[opcode] : "a command";\n'
            "}\n")


def header(spec):
    functions = "\n".join(function(c) for c in sorted(spec.commands, key=lambda c: c.id))
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            "/*\n * Each returns VGPU_OK, VGPU_ENDED, or the command's result. A result is not "
            "touched when there is none. Those\n * that are posted return before they are carried out.\n */\n"
            "#ifndef VGPU_GUEST_LIBVGPU_RING_CALLS_H\n#define VGPU_GUEST_LIBVGPU_RING_CALLS_H\n\n"
            '#include "guest/libvgpu/session.h"\n\n'
            f"{names(spec)}\n{functions}\n#endif\n")
