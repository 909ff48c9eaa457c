# SPDX-License-Identifier: MIT
"""Bodies of ring mode's commands for fuzz-command, see command-bodies.h."""
from emit import NOTICE


def fill(command):
    counts = {f.count for f in command.follow}
    lines = []
    for kind, name, count, _ in command.fields:
        if name.startswith("reserved") or name in counts:
            continue
        call = "fuzz_argument(in)" if kind.size == 8 else "fuzz_number(in)"
        cast = "" if kind.size == 8 else "(int32_t)" if kind.wire[0] == "i" else ""
        if count > 1:
            lines += [f"for (int i = 0; i < {count}; i++) {{", f"    fields.{name}[i] = {cast}{call};",
                      "}"]
        else:
            lines.append(f"fields.{name} = {cast}{call};")
    for f in command.follow:
        lines += [f"fields.{f.count} = fuzz_follow(in, body + bytes, {f.size * f.unit}, "
                  f"{f.most // f.unit}, room - bytes) * {f.unit};",
                  f"bytes += (uint32_t)(fields.{f.count} * {f.size});"]
    return lines


def body_function(command):
    lines = fill(command)
    inner = "".join(f"    {line}\n" for line in lines)
    return (f"static uint32_t {command.name.lower()}_body(struct input *in, uint8_t *body, "
            f"uint32_t room)\n{{\n    struct {command.body} fields = {{0}};\n"
            "    uint32_t bytes = sizeof(fields);\n\n    (void)room;\n"
            f"{inner}    memcpy(body, &fields, sizeof(fields));\n    return bytes;\n}}\n\n")


def listed(name, commands):
    cases = "".join(f"    case VGPU_CMD_{c.name}:\n" for c in commands)
    return (f"bool {name}(uint32_t opcode)\n{{\n    switch (opcode) {{\n{cases}        return true;\n"
            "    default:\n        return false;\n    }\n}\n\n")


def source(spec):
    commands = sorted(spec.commands, key=lambda c: c.id)
    bodies = [c for c in commands if c.body]
    cases = "".join(f"    case VGPU_CMD_{c.name}:\n        return {c.name.lower()}_body(in, body, "
                    "room);\n" for c in bodies)
    gives = [c for c in commands if c.result in ("vgpu_result_value", "vgpu_result_function")]
    asks = [c for c in commands if c.asks or c.name == "EVENT_ELAPSED"]
    return (f"/* SPDX-License-Identifier: MIT */\n{NOTICE}"
            '#include "tests/fuzz/command-bodies.h"\n\n#include <string.h>\n\n'
            '#include "protocol/vgpu-queue.h"\n\n'
            f"{''.join(map(body_function, bodies))}"
            "uint32_t command_body(struct input *in, uint32_t opcode, uint8_t *body, uint32_t room)\n"
            f"{{\n    switch (opcode) {{\n{cases}    default: /* also what does not exist */\n"
            "        return 0;\n    }\n}\n\n"
            + listed("command_wants_slot", [c for c in commands if not c.post or c.name == "CALL"])
            + listed("command_gives_value", gives) + listed("command_asks", asks))
