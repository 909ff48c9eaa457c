# SPDX-License-Identifier: MIT
"""Decoding ring mode's commands: for each, what checks its form and notes the facts about it, what
finds its objects, and a row of the table."""
from emit import NOTICE


def flags(command):
    by_event = command.waits == "event" or command.asks == "event"
    return [flag for flag, true in (
        ("SLOT", not command.post), ("TURN", command.work), ("SLOW", command.slow),
        ("FREE", command.free), ("GATE", command.gate), ("WAITS", command.waits),
        ("ASKS", command.asks), ("BY_EVENT", by_event),
        ("CHANGES_STREAM", command.work or "stream" in command.changes),
        ("CHANGES_EVENT", "event" in command.changes)) if true]


def reserved(command):
    return [name for _, name, _, _ in command.fields if name.startswith("reserved")]


def field_of(command, kind):
    """The field that is the command's stream or event, the first of several."""
    return next((name for _, (type_, name, _, _) in command.objects() if type_.handle == kind), None)


def following(command):
    """The bytes behind the fields, as a C expression."""
    return "".join(f" + body->{f.count} * UINT64_C({f.size})" if f.size != 1 else
                   f" + body->{f.count}" for f in command.follow)


def decode_function(command):
    size = f"sizeof(struct {command.body})" if command.body else "0"
    lines = []
    if command.follow:
        # The fields have to be there before one of them is looked at, and a count is checked before
        # it is multiplied.
        wrong = [f"body->{f.count} > {f.most}" for f in command.follow]
        wrong += [f"body->{f.count} % {f.unit} != 0" for f in command.follow if f.unit != 1]
        lines += [f"if (!command_reaches(header, {size})) {{", "    return VGPU_REFUSED_LENGTH;",
                  "}", f"if ({' || '.join(wrong)}) {{", "    return VGPU_REFUSED_COUNT;", "}"]
    lines += [f"if (!command_is_long(header, {size}{following(command)})) {{",
              "    return VGPU_REFUSED_LENGTH;", "}"]
    if not command.post:
        lines += ["if (header->slot == 0) {", "    return VGPU_REFUSED_SLOT_WANTED;", "}"]
    given = [f"COMMAND_{flag}" for flag in flags(command)]
    if given:
        lines.append(f"facts->flags = {' | '.join(given)};")
    if reserved(command):
        used = " || ".join(f"body->{name} != 0" for name in reserved(command))
        lines.append(f"facts->reserved_used = {used};")
    for kind in ("stream", "event"):
        if field_of(command, kind):
            lines.append(f"facts->key.{kind} = body->{field_of(command, kind)};")
    if command.kind:
        lines.append(f"facts->engine = command_engine(body->{command.kind});")
    lines.append("return VGPU_REFUSED_NONE;")
    looks = any("body->" in line for line in lines)
    head = [f"const struct {command.body} *body = fields;", ""] if looks else ["(void)fields;"]
    if not any("facts->" in line for line in lines):
        head = ["(void)facts;"] + head
    body = "".join(f"    {line}\n" if line else "\n" for line in head + lines)
    return (f"static enum vgpu_refusal {command.name.lower()}_decode(const struct vgpu_command "
            "*header,\n    const void *fields, struct command_facts *facts)\n{\n"
            f"{body}}}\n\n")


def objects_function(command):
    lines = []
    for number, (_, (kind, name, _, given)) in enumerate(command.objects()):
        found = f"handles_get(handles, HANDLE_{kind.handle.upper()}, body->{name})"
        lines.append(f"objects[{number}] = {found};")
        none = f"!objects[{number}]"
        if kind.handle == "stream" and not given:
            none += f" && body->{name} != 0"
        lines += [f"if ({none}) {{", "    return false;", "}"]
    body = "".join(f"    {line}\n" for line in lines)
    return (f"static bool {command.name.lower()}_objects(const struct handles *handles, const void "
            f"*fields,\n    void **objects)\n{{\n    const struct {command.body} *body = fields;\n\n"
            f"{body}    return true;\n}}\n\n")


def rule(command):
    name = command.name.lower()
    lines = [f'.name = "{command.name}"', f".handler = do_{name}", f".decode = {name}_decode"]
    if command.objects():
        lines.append(f".objects = {name}_objects")
    if command.timed:
        lines.append(f".estimate = estimate_{name}")
    streams = [number for number, (_, field) in enumerate(command.objects())
               if field[0].handle == "stream"]
    if streams and streams[0] > 0:
        lines.append(f".stream = {streams[0]}")
    body = "".join(f"            {line},\n" for line in lines)
    return f"    [VGPU_CMD_{command.name}] =\n        {{\n{body}        }},\n"


def checks(command):
    """That the structure in the protocol's header is the one that is described."""
    lines = [f'static_assert(VGPU_CMD_{command.name} == {command.id}, "an opcode");\n']
    if command.body:
        lines.append(f"static_assert(sizeof(struct {command.body}) == {command.bytes}, "
                     '"its size");\n')
        lines += [f"static_assert(offsetof(struct {command.body}, {name}) == {at}, \"a field\");\n"
                  for at, (_, name, _, _) in command.places()]
    if command.result:
        lines.append(f"static_assert({command.results} * sizeof(struct {command.result}) <= "
                     'VGPU_PAYLOAD_MAX, "a result");\n')
    for f in command.follow:
        name = f"struct {f.type}" if f.type.startswith("vgpu_") else f.type
        lines.append(f'static_assert(sizeof({name}) == {f.size * f.unit}, "what follows");\n')
    return "".join(lines)


def ordered(spec):
    return sorted(spec.commands, key=lambda command: command.id)


def header(spec):
    handlers = "".join(f"enum vgpu_gpu_error do_{c.name.lower()}(struct execution *x);\n"
                       for c in ordered(spec))
    estimates = "".join(f"void estimate_{c.name.lower()}(const struct execution *x,\n"
                        "    struct flight_piece *piece);\n" for c in ordered(spec) if c.timed)
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            "#ifndef VGPU_WORKER_COMMAND_RULES_H\n#define VGPU_WORKER_COMMAND_RULES_H\n\n"
            '#include "worker/execution.h"\n#include "worker/flight.h"\n\n'
            f"/* What carries out each command, by hand; and what estimates those that are timed. */\n"
            f"{handlers}\n{estimates}\n#endif\n")


def source(spec):
    functions = "".join(decode_function(c) + (objects_function(c) if c.objects() else "")
                        for c in ordered(spec))
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            '#include "worker/command-rules.h"\n\n#include <assert.h>\n#include <stddef.h>\n\n'
            '#include "api/cuda-types.h"\n#include "protocol/vgpu-request.h"\n'
            '#include "worker/handles.h"\n\n'
            f"{''.join(map(checks, ordered(spec)))}"
            f'static_assert(VGPU_COMMAND_COUNT == {max(c.id for c in spec.commands) + 1}, '
            '"a rule for each opcode");\n\n'
            f"{functions}"
            "const struct command_rule command_rules[VGPU_COMMAND_COUNT] = {\n"
            f"{''.join(map(rule, ordered(spec)))}}};\n")
