# SPDX-License-Identifier: MIT
"""Reads the .api files into calls, types and errors; README.md has the language.

A mistake in them is a Mistake with file and line; nothing is generated then."""
import dataclasses
import re

WIRES = {"i32": 4, "u8": 1, "u16": 2, "u32": 4, "u64": 8, "f32": 4}
CLASSES = ("control", "alloc", "copy", "launch", "sync")
HOSTS = ("driver", "backend", "hand")
# What a hand-written call is told which stream is the default one by.
DEFAULT_STREAM = "default_stream"
# Its lines that are C, and where they are kept.
IN_C = {"is": "expression", "gets": "value", "captured": "captured", "checked": "checked"}
NEEDS = ("nothing", "init", "context")
KINDS = ("module", "function", "stream", "event", "graph", "allocation", "link", "array",
         "shared_event")
DIRECTIONS = ("value", "in", "out", "out?", "string", "new")
# What one call may have of arrays and strings each way, as guest/libcuda/wire/call.h has room for.
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
    partly: str = ""  # a sentence: what of it is not served
    host: str = "driver"
    since: int = 1
    aliases: list = dataclasses.field(default_factory=list)
    also: list = dataclasses.field(default_factory=list)  # (plain name, version) that mean it
    arguments: list = dataclasses.field(default_factory=list)
    parameters: list = dataclasses.field(default_factory=list)  # of a hand-written one: (C, name)
    given: list = dataclasses.field(default_factory=list)  # parameters that may not be NULL
    expression: str = ""  # in C, in place of a hand-written half
    value: str = ""  # in C, what its one result becomes
    captured: str = ""  # in C, what is done where its stream is captured
    checked: str = ""  # in C, what is asked before a call goes over the wire
    stream_use: str = "work"  # or asks, or raw
    entries: bool = False  # its hand-written half gets the table for cuGetProcAddress()

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
    def half(self):
        """Whether a function of its own is written by hand for it."""
        return self.hand and not self.expression and not self.value

    @property
    def resolved(self):
        """The stream that is looked up before the call is made, or nothing."""
        if self.stream_use == "raw":
            return ""
        return self.stream or (DEFAULT_STREAM if self.takes_default_stream else "")

    @property
    def takes_default_stream(self):
        """Whether the hand-written function is told which stream is the default one."""
        return self.hand and self.variant != "" and not self.stream


@dataclasses.dataclass
class Follow:
    """An array behind a command's fields, whose count is one of them."""
    type: str
    size: int  # bytes of an element
    count: str
    most: int
    unit: int = 1  # the count is a multiple of this: it counts bytes where that is not 1


@dataclasses.dataclass
class Command:
    """A command of ring mode."""
    place: tuple
    id: int
    name: str
    doc: str = ""
    family: str = ""
    free: bool = False
    post: bool = False
    slow: bool = False
    gate: bool = False
    timed: bool = False  # its time is estimated, by a function of its own
    waits: str = ""  # stream or event
    asks: str = ""
    changes: list = dataclasses.field(default_factory=list)
    kind: str = ""  # the field that says the direction of a copy
    body: str = ""  # the structure
    result: str = ""
    results: int = 1
    fields: list = dataclasses.field(default_factory=list)  # (Type, name, elements, given)
    follow: list = dataclasses.field(default_factory=list)

    def places(self):
        """(offset in bytes, field), as C lays the structure out."""
        at, places = 0, []
        for field in self.fields:
            size = field[0].size
            at = (at + size - 1) // size * size
            places.append((at, field))
            at += size * field[2]
        return places

    @property
    def bytes(self):
        places = self.places()
        return (places[-1][0] + places[-1][1][0].size * places[-1][1][2] + 7) // 8 * 8 \
            if places else 0

    @property
    def work(self):
        return self.family in ("copy", "launch")

    def objects(self):
        """(offset, field) of those that are handles."""
        return [(at, field) for at, field in self.places() if field[0].kind == "handle"]


@dataclasses.dataclass
class Refusal:
    place: tuple
    name: str
    version: int
    variant: str = ""
    variant_version: int = 0
    reason: str = ""  # why it is not served; a sentence


def base_name(symbol):
    """The name that programs ask cuGetProcAddress() for."""
    return re.sub(r"_v\d+$", "", symbol)


class Specification:
    def __init__(self):
        self.types, self.calls, self.refusals = {}, [], []
        self.errors, self.layouts, self.kinds = [], {}, []
        self.commands = []

    def wired(self):
        return sorted((c for c in self.calls if c.wired), key=lambda c: c.id)

    def exported(self):
        return sorted((c for c in self.calls if c.exported), key=lambda c: c.id)


class Reader:
    def __init__(self):
        self.spec = Specification()
        self.place = ("", 0)
        self.item = None  # what indented lines belong to
        self.reason = ""  # why what follows is refused
        self.ids, self.names, self.commands = {}, {}, {}

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
                elif text.startswith("because "):
                    self.item, self.reason = None, self.sentence(text)
                else:
                    self.item = None
                    self.top(text.split())

    def top(self, words):
        reader = {"type": self.read_type, "plain": self.read_plain, "handle": self.read_handle,
                  "layout": self.read_layout, "error": self.read_error,
                  "sticky": self.read_sticky, "call": self.read_call,
                  "private": self.read_private, "refuse": self.read_refuse,
                  "command": self.read_command}.get(words[0])
        if not reader:
            self.fail(f"'{words[0]}' is none of type, plain, handle, layout, error, sticky, call, "
                      "private, refuse, command")
        reader(words[1:])

    def sentence(self, text):
        """What stands in quotes behind the first word."""
        word = text.split()[0]
        if not re.fullmatch(word + r' "[^"]+"', text):
            self.fail(f'wanted: {word} "SENTENCE"')
        return text[len(word) + 2:-1]

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
        refusal = Refusal(self.place, words[0] if words else "", 0, reason=self.reason)
        self.read_symbol(words, refusal)
        self.spec.refusals.append(refusal)

    def read_command(self, words):
        number, name = self.exactly(words, "OPCODE", "NAME")
        command = Command(self.place, self.number(number), name)
        if any(command.id == other.id for other in self.spec.commands):
            self.fail(f"opcode {command.id} is there already")
        self.once(self.commands, name, "command")
        self.spec.commands.append(command)
        self.item = command

    # Lines of a command.

    def command_line(self, text):
        command, words = self.item, text.split()
        if words[0] == "doc":
            command.doc = self.sentence(text)
        elif words[0] == "body":
            command.body, = self.exactly(words[1:], "STRUCTURE")
        elif words[0] == "result":
            if len(words) < 2:
                self.fail("wanted: STRUCTURE [COUNT]")
            command.result = words[1]
            command.results = self.number(words[2]) if len(words) > 2 else 1
        elif words[0] == "value":
            self.read_field(words[1:])
        elif words[0] == "follow":
            self.read_follow(words[1:])
        else:
            self.command_properties(words)

    def read_field(self, words):
        given = len(words) == 3 and words[2] == "given"
        kind, name = self.exactly(words[:2] if given else words, "TYPE", "NAME")
        match = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", name)
        if kind not in self.spec.types or self.spec.types[kind].kind == "plain":
            self.fail(f"there is no number or handle '{kind}'")
        if not match:
            self.fail(f"'{name}' is neither a name nor NAME[COUNT]")
        self.item.fields.append((self.spec.types[kind], match[1], int(match[2] or 1), given))

    def read_follow(self, words):
        in_bytes = len(words) == 4 and words[3] == "bytes"
        kind, count, most = self.exactly(words[:3] if in_bytes else words, "TYPE", "COUNT", "MOST")
        field = next((f for f in self.item.fields if f[1] == count), None)
        if not field or field[0].kind != "number" or field[0].wire[0] != "u":
            self.fail(f"'{count}' is no unsigned number among the fields")
        size = self.spec.types[kind].size if kind in self.spec.types else 0
        if not size:
            self.fail(f"there is no type '{kind}'")
        self.item.follow.append(Follow(kind, 1 if in_bytes else size, count, self.number(most),
                                       size if in_bytes else 1))

    def command_properties(self, words):
        command, words = self.item, list(words)
        while words:
            word = words.pop(0)
            if word in CLASSES:
                command.family = word
            elif word in ("free", "post", "slow", "gate", "timed"):
                setattr(command, word, True)
            elif word in ("waits", "asks", "changes", "kind"):
                what = words.pop(0) if words else ""
                if word != "kind" and what not in ("stream", "event"):
                    self.fail(f"'{word}' wants stream or event")
                if word == "changes":
                    command.changes.append(what)
                else:
                    setattr(command, word, what)
            else:
                self.fail(f"'{word}' says nothing about a command")

    def check_command(self, command):
        place = command.place
        if not command.family:
            self.fail(f"{command.name} has no class: {', '.join(CLASSES)}", place)
        if not command.doc:
            self.fail(f"{command.name} has no doc", place)
        if bool(command.body) != bool(command.fields):
            self.fail(f"{command.name} has fields and a body, or neither", place)
        if command.kind and command.kind not in [f[1] for f in command.fields]:
            self.fail(f"{command.name} has no field '{command.kind}'", place)
        streams = [f for _, f in command.objects() if f[0].handle == "stream"]
        if command.work and command.name != "CALL" and not streams:
            self.fail(f"{command.name} is work for the GPU and so has a stream", place)
        if command.waits and command.bytes > 16:
            self.fail(f"{command.name} waits and so has one value: it is kept while it does", place)
        if command.post and (command.waits or command.asks):
            self.fail(f"{command.name} waits and so has a slot: it is not posted", place)
        if command.post and command.result:
            self.fail(f"{command.name} is posted and so has no result", place)
        if len(command.objects()) > 2 or len(command.follow) > 2:
            self.fail(f"{command.name} has more than 2 objects, or arrays behind it", place)

    # Lines of a call.

    def indented(self, text):
        if isinstance(self.item, list):
            self.item += text.split()
        elif isinstance(self.item, Command):
            self.command_line(text)
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
            elif words[0] == "partly":
                self.item.partly = self.sentence(text)
            elif words[0] in IN_C:
                self.read_in_c(words[0], text[len(words[0]):].strip())
            elif words[0] == "given":
                self.item.given += words[1:]
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
            elif word == "stream":
                call.stream_use = words.pop(0) if words else ""
                if call.stream_use not in ("asks", "raw"):
                    self.fail("'stream' wants one of asks, raw")
            elif word in ("free", "post", "slow", "gate", "unmapped", "refused", "entries"):
                setattr(call, word, True)
            elif word == "host":
                call.host = words.pop(0) if words else ""
                if call.host not in HOSTS:
                    self.fail(f"'host' wants one of {', '.join(HOSTS)}")
            elif word == "since":
                call.since = self.number(words.pop(0) if words else "")
            else:
                self.fail(f"'{word}' says nothing about a call")

    def read_in_c(self, word, text):
        if not self.item.hand and word != "checked":
            self.fail(f"'{word}' is for calls that are written by hand")
        if not text:
            self.fail(f"'{word}' wants an expression in C")
        setattr(self.item, IN_C[word], text)

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

    def check_hand(self, call):
        names = [name for _, name in call.parameters]
        for name in call.given:
            if name not in names:
                self.fail(f"{call.name} has no parameter '{name}'", call.place)
        if call.checked:
            self.fail(f"{call.name} is written by hand and checks by itself", call.place)
        if call.expression and call.value:
            self.fail(f"{call.name} is said by 'is' and by 'gets'", call.place)
        if call.captured and not call.resolved:
            self.fail(f"{call.name} has no stream that could be captured", call.place)
        if call.value and not any(c.endswith("*") for c, _ in call.parameters):
            self.fail(f"{call.name} has no result to get", call.place)

    def check_call(self, call):
        place = call.place
        if call.hand:
            if call.family or call.post or call.free:
                self.fail(f"{call.name} is written by hand and has no class", place)
            self.check_hand(call)
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
        for command in self.spec.commands:
            self.check_command(command)
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
