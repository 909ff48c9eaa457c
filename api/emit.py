# SPDX-License-Identifier: MIT
"""What the emitters share: how arguments look in C, and where they lie on the wire.

A call's arguments travel as words of eight bytes, in their order: a number or a handle takes one,
a plain structure as many as it fills, a string one for its length. Arrays and strings follow,
each from a new word. Results come back in the same way. Where some results are optional, the
first word has a bit for each that is wanted."""

NOTICE = "/* Generated from api/ by generate.py; see api/README.md. */\n"


def words(argument):
    """How many words of the fixed part an argument takes."""
    if argument.array:
        return 1 if argument.direction == "string" else 0
    return (argument.type.size + 7) // 8 if argument.type.kind == "plain" else 1


def optional(call):
    return [a for a in call.arguments if a.optional]


def fixed_in(call):
    """(offset in words, argument) of what goes in, and how many words it is."""
    at = 1 if optional(call) else 0
    places = []
    for a in call.arguments:
        if a.goes_in:
            places.append((at, a))
            at += words(a)
    return places, at


def fixed_back(call):
    places, at = [], 0
    for a in call.arguments:
        if a.comes_back:
            places.append((at, a))
            at += words(a)
    return places, at


def parts(call, back):
    """Arrays and strings, in their order."""
    return [a for a in call.arguments if a.array and a.comes_back == back]


def parameter(argument):
    """As the C function of the API has it."""
    name = argument.type.name
    if argument.direction == "string":
        return f"const char *{argument.name}"
    if argument.direction == "in":
        return f"const {name} *{argument.name}"
    if argument.comes_back:
        return f"{name} *{argument.name}"
    return f"{name} {argument.name}"


def join(separator, pieces):
    """As C wants it: 'void' for nothing."""
    return separator.join(pieces) or "void"


def parameters(call):
    if call.hand:
        return join(", ", (c + ("" if c.endswith("*") else " ") + name
                           for c, name in call.parameters))
    return join(", ", map(parameter, call.arguments))


def names(call):
    if call.hand:
        return [name for _, name in call.parameters]
    return [a.name for a in call.arguments]


def count_of(argument):
    """The number of elements of an array, as a C expression of 64 bits."""
    return f"UINT64_C({argument.count})" if argument.count.isdigit() else f"(uint64_t){argument.count}"


OBJECTS = {"module": "struct gpu_module", "function": "struct gpu_function",
           "stream": "struct gpu_stream", "event": "struct gpu_event", "graph": "struct graph",
           "allocation": "struct allocation", "link": "struct link",
           "array": "struct array", "shared_event": "struct shared_event"}


def host_type(argument):
    """The type of a value on the host, where a handle has become an object."""
    if argument.type.kind == "handle":
        return OBJECTS[argument.type.handle] + " *"
    return argument.type.name + " "


def host_parameter(argument):
    if argument.direction == "new":
        return f"uint64_t *{argument.name}"
    if argument.type.kind == "handle":
        return f"{host_type(argument)}{argument.name}"
    return parameter(argument)
