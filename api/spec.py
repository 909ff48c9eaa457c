# SPDX-License-Identifier: MIT
"""Reads the .api files into calls, types and errors; README.md has the language.

A mistake in them is a Mistake with file and line; nothing is generated then."""
import dataclasses
import re

WIRES = {"i32": 4, "u8": 1, "u16": 2, "u32": 4, "u64": 8, "f32": 4}
CLASSES = ("control", "alloc", "copy", "launch", "sync")
HOSTS = ("driver", "backend", "hand")
NEEDS = ("nothing", "init", "context")
KINDS = ("module", "function", "stream", "event", "graph", "allocation")
DIRECTIONS = ("value", "in", "out", "out?", "string", "new")
# What one call may have of arrays and strings each way, as guest/libcuda/call.h has room for.
PARTS_MAX = 5


class Mistake(Exception):
    def __init__(self, place, text):
        super().__init__(f"{place[0]}:{place[1]}: {text}")


@dataclasses.dataclass
class Type:
    name: str
    kind: str  # number, plain or handle
    wire: str = ""  # of a number
    size: int = 8  # bytes of one in an array
    handle: str = ""  # kind of a handle


@dataclasses.dataclass(order=True)
class Error:
    number: int
    name: str  # without CUDA_ERROR_
    text: str
    sticky: bool  # the context is lost with it


@dataclasses.dataclass
class Argument:
    direction: str
    type: Type
    name: str
    count: str = ""  # of an array: another argument, or a number
    optional: bool = False
    weight: bool = False  # how long the call takes depends on it

    @property
    def array(self):
        return self.count != "" or self.direction == "string"

    @property
    def goes_in(self):
        return self.direction in ("value", "in", "string")

    @property
    def comes_back(self):
        return self.direction in ("out", "new")


@dataclasses.dataclass
class Call:
    place: tuple
    id: int
    name: str
    version: int = 0
    variant: str = ""  # ptsz or ptds
    variant_version: int = 0
    private: bool = False
    hand: bool = False
    needs: str = "context"
    family: str = ""  # the scheduler's class
    free: bool = False
    post: bool = False
    slow: bool = False
    gate: bool = False  # its stream may wait for something that is not the GPU's
    unmapped: bool = False
    refused: bool = False  # by its hand-written guest half, for all arguments
    host: str = "driver"
    since: int = 1
    aliases: list = dataclasses.field(default_factory=list)
    also: list = dataclasses.field(default_factory=list)  # (plain name, version) that mean it
    arguments: list = dataclasses.field(default_factory=list)
    parameters: list = dataclasses.field(default_factory=list)  # of a hand-written one: (C, name)

    @property
    def exported(self):
        return not self.private

    @property
    def wired(self):
        return not self.hand

    @property
    def streams(self):
        """The names of the parameters that are streams."""
        if self.hand:
            return [name for c, name in self.parameters if c == "CUstream"]
        return [a.name for a in self.arguments
                if a.direction == "value" and a.type.handle == "stream"]

    @property
    def stream(self):
        """The name of the parameter that is the call's stream."""
        return next(iter(self.streams), "")

    @property
    def takes_default_stream(self):
        """Whether the hand-written function is told which stream is the default one."""
        return self.hand and self.variant != "" and not self.stream


@dataclasses.dataclass
class Refusal:
    place: tuple
    name: str
    version: int
    variant: str = ""
    variant_version: int = 0


def base_name(symbol):
    """The name that programs ask cuGetProcAddress() for."""
    return re.sub(r"_v\d+$", "", symbol)


class Specification:
    def __init__(self):
        self.types, self.calls, self.refusals = {}, [], []
        self.errors, self.layouts, self.kinds = [], {}, []

    def wired(self):
        return sorted((c for c in self.calls if c.wired), key=lambda c: c.id)

    def exported(self):
        return sorted((c for c in self.calls if c.exported), key=lambda c: c.id)


class Reader:
    def __init__(self):
        self.spec = Specification()
        self.place = ("", 0)
        self.item = None  # what indented lines belong to
        self.ids, self.names = {}, {}

    def fail(self, text, place=None):
        raise Mistake(place or self.place, text)

    def number(self, text):
        if not re.fullmatch(r"[0-9]+", text):
            self.fail(f"'{text}' is no number")
        return int(text)

    def once(self, table, key, what):
        if key in table:
            file, line = table[key]
            self.fail(f"{what} {key} is there already, in {file}:{line}")
        table[key] = self.place

    def read(self, path, name):
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                self.place = (name, number)
                text = line.split("#", 1)[0].rstrip()
                if not text:
                    continue
                if text[0] in " \t":
                    self.indented(text.strip())
                else:
                    self.item = None
                    self.top(text.split())

    def top(self, words):
        reader = {"type": self.read_type, "plain": self.read_plain, "handle": self.read_handle,
                  "layout": self.read_layout, "error": self.read_error,
                  "sticky": self.read_sticky, "call": self.read_call,
                  "private": self.read_private, "refuse": self.read_refuse}.get(words[0])
        if not reader:
            self.fail(f"'{words[0]}' is none of type, plain, handle, layout, error, sticky, call, "
                      "private, refuse")
        reader(words[1:])

    def exactly(self, words, *names):
        if len(words) != len(names):
            self.fail("wanted: " + " ".join(names))
        return words

    # What stands on a line of its own.

    def add_type(self, declared):
        if declared.name in self.spec.types:
            self.fail(f"type {declared.name} is there already")
        self.spec.types[declared.name] = declared

    def read_type(self, words):
        name, wire = self.exactly(words, "NAME", "WIRE")
        if wire not in WIRES:
            self.fail(f"'{wire}' is none of {', '.join(WIRES)}")
        self.add_type(Type(name, "number", wire, WIRES[wire]))

    def read_plain(self, words):
        name, size = self.exactly(words, "NAME", "BYTES")
        self.add_type(Type(name, "plain", size=self.number(size)))

    def read_handle(self, words):
        name, kind, number = self.exactly(words, "NAME", "KIND", "NUMBER")
        if kind not in KINDS:
            self.fail(f"'{kind}' is none of {', '.join(KINDS)}")
        if not 0 < self.number(number) < 256:
            self.fail("kinds of handles have the numbers 1 to 255")
        if any(kind == other[0] or int(number) == other[1] for other in self.spec.kinds):
            self.fail(f"another handle has kind {kind} or number {number}")
        self.spec.kinds.append((kind, int(number)))
        self.add_type(Type(name, "handle", handle=kind))

    def read_layout(self, words):
        if len(words) < 2:
            self.fail("wanted: NAME FIELD...")
        if words[0] in self.spec.layouts:
            self.fail(f"layout {words[0]} is there already")
        self.spec.layouts[words[0]] = words[1:]
        self.item = self.spec.layouts[words[0]]

    def read_error(self, words, sticky=False):
        if len(words) < 3:
            self.fail("wanted: NUMBER NAME TEXT")
        if any(self.number(words[0]) == error.number for error in self.spec.errors):
            self.fail(f"error {words[0]} is there already")
        self.spec.errors.append(Error(int(words[0]), words[1], " ".join(words[2:]), sticky))

    def read_sticky(self, words):
        self.read_error(words, sticky=True)

    def read_symbol(self, words, item):
        """NAME VERSION [ptsz VERSION]"""
        if len(words) not in (2, 4) or (len(words) == 4 and words[2] not in ("ptsz", "ptds")):
            self.fail("wanted: NAME VERSION [ptsz VERSION]")
        self.once(self.names, words[0], "call")
        item.version = self.number(words[1])
        if len(words) == 4:
            item.variant, item.variant_version = words[2], self.number(words[3])

    def read_call(self, words):
        if len(words) < 2:
            self.fail("wanted: ID NAME VERSION [ptsz VERSION]")
        call = Call(self.place, self.number(words[0]), words[1])
        self.once(self.ids, call.id, "id")
        self.read_symbol(words[1:], call)
        self.spec.calls.append(call)
        self.item = call

    def read_private(self, words):
        identity, name = self.exactly(words, "ID", "NAME")
        call = Call(self.place, self.number(identity), name, private=True)
        self.once(self.ids, call.id, "id")
        self.once(self.names, name, "call")
        self.spec.calls.append(call)
        self.item = call

    def read_refuse(self, words):
        refusal = Refusal(self.place, words[0] if words else "", 0)
        self.read_symbol(words, refusal)
        self.spec.refusals.append(refusal)

    # Lines of a call.

    def indented(self, text):
        if isinstance(self.item, list):
            self.item += text.split()
        elif not self.item:
            self.fail("this line belongs to no call")
        elif text[0] == "(":
            self.read_parameters(text)
        else:
            words = text.split()
            if words[0] in DIRECTIONS:
                self.read_argument(words)
            elif words[0] == "alias":
                name, version = self.exactly(words[1:], "NAME", "VERSION")
                self.once(self.names, name, "call")
                self.item.aliases.append((name, self.number(version)))
            elif words[0] == "also":
                name, version = self.exactly(words[1:], "NAME", "VERSION")
                self.once(self.names, f"{name} of {version}", "call")
                self.item.also.append((name, self.number(version)))
            else:
                self.read_properties(words)

    def read_properties(self, words):
        call, words = self.item, list(words)
        while words:
            word = words.pop(0)
            if word == "hand":
                call.hand = True
                call.needs = words.pop(0) if words else ""
                if call.needs not in NEEDS:
                    self.fail(f"'hand' wants one of {', '.join(NEEDS)}")
            elif word in CLASSES:
                call.family = word
            elif word in ("free", "post", "slow", "gate", "unmapped", "refused"):
                setattr(call, word, True)
            elif word == "host":
                call.host = words.pop(0) if words else ""
                if call.host not in HOSTS:
                    self.fail(f"'host' wants one of {', '.join(HOSTS)}")
            elif word == "since":
                call.since = self.number(words.pop(0) if words else "")
            else:
                self.fail(f"'{word}' says nothing about a call")

    def read_parameters(self, text):
        if not self.item.hand:
            self.fail("parameters in C are for calls that are written by hand")
        if text[-1] != ")":
            self.fail("the parameters end on the same line, with ')'")
        for parameter in text[1:-1].split(", "):
            match = re.fullmatch(r"(.*?)(\w+)", parameter)
            if parameter != "void" and not (match and match[1]):
                self.fail(f"'{parameter}' has no name")
            if parameter != "void":
                self.item.parameters.append((match[1].strip(), match[2]))

    def read_argument(self, words):
        call = self.item
        if call.hand:
            self.fail("a call that is written by hand has no arguments on the wire")
        if words[0] == "string":
            words = ["string", "char", *words[1:]]
        weight = len(words) == 4 and words[3] == "weight"
        direction, kind, name = self.exactly(words[:3] if weight else words, "DIRECTION", "TYPE",
                                             "NAME")
        match = re.fullmatch(r"(\w+)(?:\[(\w+)\])?", name)
        if not match:
            self.fail(f"'{name}' is neither a name nor NAME[COUNT]")
        if kind not in self.spec.types:
            self.fail(f"there is no type '{kind}'")
        if any(a.name == match[1] for a in call.arguments):
            self.fail(f"there is another '{match[1]}'")
        argument = Argument(direction.rstrip("?"), self.spec.types[kind], match[1], match[2] or "",
                            direction.endswith("?"), weight)
        self.check_argument(argument)
        call.arguments.append(argument)

    def check_argument(self, argument):
        kind, direction = argument.type.kind, argument.direction
        if direction == "new" and kind != "handle":
            self.fail(f"what is new is a handle; {argument.type.name} is none")
        if direction == "value" and kind == "plain":
            self.fail(f"{argument.type.name} is not passed by value: 'in'")
        if direction == "value" and argument.type.wire == "f32":
            self.fail(f"{argument.type.name} is not passed by value")
        if direction == "in" and kind == "number" and not argument.array:
            self.fail("a number is a value")
        if direction == "string" and argument.count:
            self.fail("a string has no count")
        if direction in ("in", "out") and kind == "handle":
            self.fail("handles are values, or new")
        if argument.array and direction in ("value", "new"):
            self.fail("an array is 'in' or 'out'")
        if argument.weight and direction != "value":
            self.fail("only a value has weight")
        if argument.optional and argument.array:
            self.fail("an array is not optional")

    # When all is read.

    def check_call(self, call):
        place = call.place
        if call.hand:
            if call.family or call.post or call.free:
                self.fail(f"{call.name} is written by hand and has no class", place)
            return
        if not call.family:
            self.fail(f"{call.name} has no class: {', '.join(CLASSES)}", place)
        if call.post and any(a.comes_back for a in call.arguments):
            self.fail(f"{call.name} is posted and so has no result", place)
        if call.host != "hand" and any(a.direction == "new" for a in call.arguments):
            self.fail(f"{call.name} makes something new: its host half is written by hand", place)
        if call.gate and call.family != "launch":
            self.fail(f"{call.name} is no launch and so no gate", place)
        if call.family in ("copy", "launch") and not call.stream:
            self.fail(f"{call.name} is work for the GPU and so has a stream", place)
        numbers = {a.name for a in call.arguments
                   if a.direction == "value" and a.type.kind == "number" and
                   a.type.wire in ("u32", "u64")}
        for a in call.arguments:
            if a.count and not a.count.isdigit() and a.count not in numbers:
                self.fail(f"'{a.count}', of which {a.name} of {call.name} has so many, is no "
                          "unsigned number among its values", place)
        for back in (False, True):
            parts = [a for a in call.arguments if a.array and a.comes_back == back]
            if len(parts) > PARTS_MAX:
                self.fail(f"{call.name} has more than {PARTS_MAX} arrays", place)

    def check(self):
        for call in self.spec.calls:
            self.check_call(call)
            if call.variant and call.wired and not call.stream:
                self.fail(f"{call.name} has no stream that could be a thread's own", call.place)


def read(files):
    """Reads (path, name) in turn; the types have to come first."""
    reader = Reader()
    for path, name in files:
        reader.read(path, name)
    reader.check()
    return reader.spec
