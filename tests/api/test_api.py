#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The generator of the CUDA forwarding: what it makes, what it refuses, and whether the
specification is that of an installed cuda.h.

Tests: api/*.py, worker/emit_host.py, guest/libcuda/emit_guest.py"""
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../lib"), os.path.join(HERE, "../../api"), HERE]
import spec  # noqa: E402
import vgputest as v  # noqa: E402
from emit_headers import mapped  # noqa: E402
from specification import API, TOP, api_files, generate  # noqa: E402

GOLDENS = ("wire-calls.c", "wire-calls.h", "guest-calls.h", "exports.c", "api-calls.c",
           "api-calls.h", "cuda-forwarded.h", "cuda-calls.c", "libcuda.map", "wire.txt",
           "coverage.md", "handle-types.h", "cuda-errors.h", "cuda.h", "wire", "errors", "commands")

PROTOCOL = os.path.join(TOP, "protocol")

# What stands before each of the mistakes; they begin on the line behind it.
BEFORE = """type int i32
type unsigned u32
type size_t u64
type float f32
plain char 1
plain CUuuid 16
handle CUmodule module 1
handle CUstream stream 3
layout CUuuid bytes
error 1 INVALID_VALUE invalid argument
call 1 cuOne 2000
    control
private 2 two
    control
"""
FIRST = BEFORE.count("\n") + 1

# A command without mistakes, for those that begin behind it.
ONE = """command 1 ONE
    doc "One."
    control
"""

# What is wrong, the line of it that is named, what is said.
MISTAKES = (
    ("nonsense 1", 1, "'nonsense' is none of type, plain, handle, layout, error, sticky, call, "
     "private, refuse, command"),
    ("argument int a", 1, "'argument' is none of type, plain, handle, layout, error, sticky, "
     "call, private, refuse, command"),
    ("type CUdevice", 1, "wanted: NAME WIRE"),
    ("type CUdevice i32 4", 1, "wanted: NAME WIRE"),
    ("type CUdevice i64", 1, "'i64' is none of i32, u8, u16, u32, u64, f32"),
    ("type int i32", 1, "type int is there already"),
    ("plain int 4", 1, "type int is there already"),
    ("plain CUother", 1, "wanted: NAME BYTES"),
    ("plain CUother many", 1, "'many' is no number"),
    ("plain CUother -1", 1, "'-1' is no number"),
    ("plain CUother \N{SUPERSCRIPT TWO}", 1, "'\N{SUPERSCRIPT TWO}' is no number"),
    ("handle CUcake cake 5", 1, "'cake' is none of module, function, stream, event, "
     "graph, allocation, link, array, shared_event"),
    ("handle CUevent event", 1, "wanted: NAME KIND NUMBER"),
    ("handle CUevent event 0", 1, "kinds of handles have the numbers 1 to 255"),
    ("handle CUevent event 256", 1, "kinds of handles have the numbers 1 to 255"),
    ("handle CUevent event 3", 1, "another handle has kind event or number 3"),
    ("handle CUevent stream 4", 1, "another handle has kind stream or number 4"),
    ("handle CUuuid event 4", 1, "type CUuuid is there already"),
    ("layout CUdevprop", 1, "wanted: NAME FIELD..."),
    ("layout CUuuid bytes", 1, "layout CUuuid is there already"),
    ("error 2 OUT_OF_MEMORY", 1, "wanted: NUMBER NAME TEXT"),
    ("error two OUT_OF_MEMORY out of memory", 1, "'two' is no number"),
    ("error 1 OUT_OF_MEMORY out of memory", 1, "error 1 is there already"),
    ("call 3", 1, "wanted: ID NAME VERSION [ptsz VERSION]"),
    ("call 3 cuThree", 1, "wanted: NAME VERSION [ptsz VERSION]"),
    ("call 3 cuThree 2000 ptsz", 1, "wanted: NAME VERSION [ptsz VERSION]"),
    ("call 3 cuThree 2000 ptss 2000", 1, "wanted: NAME VERSION [ptsz VERSION]"),
    ("call three cuThree 2000", 1, "'three' is no number"),
    ("call 3 cuThree new", 1, "'new' is no number"),
    ("call 1 cuThree 2000", 1, f"id 1 is there already, in wrong.api:{FIRST - 4}"),
    ("call 3 cuOne 2000", 1, f"call cuOne is there already, in wrong.api:{FIRST - 4}"),
    ("private 3", 1, "wanted: ID NAME"),
    ("private 2 three", 1, f"id 2 is there already, in wrong.api:{FIRST - 2}"),
    ("private 3 two", 1, f"call two is there already, in wrong.api:{FIRST - 2}"),
    ("refuse", 1, "wanted: NAME VERSION [ptsz VERSION]"),
    ("refuse cuThree", 1, "wanted: NAME VERSION [ptsz VERSION]"),
    ("refuse cuOne 2000", 1, f"call cuOne is there already, in wrong.api:{FIRST - 4}"),
    ("error 2 TWO two\n    control", 2, "this line belongs to no call"),
    ("private 3 three\n    alias cuThree", 2, "wanted: NAME VERSION"),
    ("private 3 three\n    alias cuOne 2000", 2,
     f"call cuOne is there already, in wrong.api:{FIRST - 4}"),
    ("call 3 cuThree 2000\n    also cuOne", 2, "wanted: NAME VERSION"),
    ("call 3 cuThree 2000\n    also cuOne 3000 4000", 2, "wanted: NAME VERSION"),
    ("call 3 cuThree 2000\n    also cuOne new", 2, "'new' is no number"),
    ("call 3 cuThree 2000\n    hand never", 2, "'hand' wants one of nothing, init, context"),
    ("call 3 cuThree 2000\n    hand", 2, "'hand' wants one of nothing, init, context"),
    ("private 3 three\n    is CUDA_SUCCESS", 2, "'is' is for calls that are written by hand"),
    ("call 3 cuThree 2000\n    hand init\n    (void)\n    is", 4, "'is' wants an expression in C"),
    ("call 3 cuThree 2000\n    hand init\n    (int *a)\n    given b", 1,
     "cuThree has no parameter 'b'"),
    ("call 3 cuThree 2000\n    hand init\n    (int *a)\n    is 1\n    gets 1", 1,
     "cuThree is said by 'is' and by 'gets'"),
    ("call 3 cuThree 2000\n    hand init\n    (int a)\n    captured 1", 1,
     "cuThree has no stream that could be captured"),
    ("call 3 cuThree 2000\n    hand init\n    (int a)\n    checked 1", 1,
     "cuThree is written by hand and checks by itself"),
    ("call 3 cuThree 2000\n    hand init\n    (CUstream stream)\n    stream raw\n    captured 1", 1,
     "cuThree has no stream that could be captured"),
    ("call 3 cuThree 2000\n    hand init\n    (int a)\n    gets 1", 1,
     "cuThree has no result to get"),
    ("call 3 cuThree 2000\n    hand init\n    (CUstream stream)\n    stream cooked", 4,
     "'stream' wants one of asks, raw"),
    ("private 3 three\n    control host guest", 2, "'host' wants one of driver, backend, hand"),
    ("private 3 three\n    control since", 2, "'' is no number"),
    ("private 3 three\n    control fast", 2, "'fast' says nothing about a call"),
    ("private 3 three\n    control\n    in? int a", 3, "'in?' says nothing about a call"),
    ("private 3 three\n    control\n    (int a)", 3,
     "parameters in C are for calls that are written by hand"),
    ("call 3 cuThree 2000\n    hand init\n    (int a,", 3,
     "the parameters end on the same line, with ')'"),
    ("call 3 cuThree 2000\n    hand init\n    (int)", 3, "'int' has no name"),
    ("call 3 cuThree 2000\n    hand init\n    ()", 3, "'' has no name"),
    ("call 3 cuThree 2000\n    hand init\n    value int a", 3,
     "a call that is written by hand has no arguments on the wire"),
    ("private 3 three\n    control\n    value int", 3, "wanted: DIRECTION TYPE NAME"),
    ("private 3 three\n    control\n    value int a heavy", 3, "wanted: DIRECTION TYPE NAME"),
    ("private 3 three\n    control\n    in int a[", 3, "'a[' is neither a name nor NAME[COUNT]"),
    ("private 3 three\n    control\n    value CUnone a", 3, "there is no type 'CUnone'"),
    ("private 3 three\n    control\n    value int a\n    out int a", 4, "there is another 'a'"),
    ("private 3 three\n    control host hand\n    new int a", 3,
     "what is new is a handle; int is none"),
    ("private 3 three\n    control\n    value CUuuid a", 3,
     "CUuuid is not passed by value: 'in'"),
    ("private 3 three\n    control\n    in CUstream a", 3, "handles are values, or new"),
    ("private 3 three\n    control\n    out CUstream a", 3, "handles are values, or new"),
    ("private 3 three\n    control\n    in int a", 3, "a number is a value"),
    ("private 3 three\n    control\n    value float a", 3, "float is not passed by value"),
    ("private 3 three\n    control\n    string a[3]", 3, "a string has no count"),
    ("private 3 three\n    control\n    value int a[3]", 3, "an array is 'in' or 'out'"),
    ("private 3 three\n    control host hand\n    new CUstream a[3]", 3,
     "an array is 'in' or 'out'"),
    ("private 3 three\n    control\n    out int a weight", 3, "only a value has weight"),
    ("private 3 three\n    control\n    out? int a[3]", 3, "an array is not optional"),
    ("call 3 cuThree 2000\n    control hand init", 1,
     "cuThree is written by hand and has no class"),
    ("private 3 three\n    host hand", 1, "three has no class: control, alloc, copy, launch, sync"),
    ("private 3 three\n    launch post\n    value CUstream s\n    out int a", 1,
     "three is posted and so has no result"),
    ("private 3 three\n    control host backend\n    new CUstream a", 1,
     "three makes something new: its host half is written by hand"),
    ("private 3 three\n    control gate\n    value CUstream a", 1,
     "three is no launch and so no gate"),
    ("private 3 three\n    copy gate\n    value CUstream a", 1,
     "three is no launch and so no gate"),
    ("private 3 three\n    copy\n    value size_t a", 1,
     "three is work for the GPU and so has a stream"),
    ("private 3 three\n    launch\n    value CUmodule a", 1,
     "three is work for the GPU and so has a stream"),
    ("private 3 three\n    control\n    in int a[count]", 1,
     "'count', of which a of three has so many, is no unsigned number among its values"),
    ("private 3 three\n    control\n    in int a[count]\n    value int count", 1,
     "'count', of which a of three has so many, is no unsigned number among its values"),
    ("private 3 three\n    control\n    in int a[count]\n    out size_t count", 1,
     "'count', of which a of three has so many, is no unsigned number among its values"),
    ("private 3 three\n    control\n" + "".join(f"    in int a{i}[3]\n" for i in range(6)), 1,
     "three has more than 5 arrays"),
    ("private 3 three\n    control\n" + "".join(f"    out int a{i}[3]\n" for i in range(6)), 1,
     "three has more than 5 arrays"),
    ("call 3 cuThree 2000 ptsz 7000\n    control\n    value int a", 1,
     "cuThree has no stream that could be a thread's own"),
    ("command 1", 1, "wanted: OPCODE NAME"),
    ("command one ONE", 1, "'one' is no number"),
    (ONE + "command 1 TWO", 4, "opcode 1 is there already"),
    (ONE + "command 2 ONE", 4, "command ONE is there already, in wrong.api:15"),
    ("command 1 ONE\n    doc no quotes", 2, "wanted: doc \"SENTENCE\""),
    ("command 1 ONE\n    body", 2, "wanted: STRUCTURE"),
    ("command 1 ONE\n    result", 2, "wanted: STRUCTURE [COUNT]"),
    ("command 1 ONE\n    value int", 2, "wanted: TYPE NAME"),
    ("command 1 ONE\n    value CUuuid id", 2, "there is no number or handle 'CUuuid'"),
    ("command 1 ONE\n    value int a[]", 2, "'a[]' is neither a name nor NAME[COUNT]"),
    ("command 1 ONE\n    follow char a", 2, "wanted: TYPE COUNT MOST"),
    ("command 1 ONE\n    value int a\n    follow char a 4", 3,
     "'a' is no unsigned number among the fields"),
    ("command 1 ONE\n    value unsigned a\n    follow chars a 4", 3, "there is no type 'chars'"),
    ("command 1 ONE\n    waits module", 2, "'waits' wants stream or event"),
    ("command 1 ONE\n    sometimes", 2, "'sometimes' says nothing about a command"),
    ("command 1 ONE\n    doc \"One.\"", 1,
     "ONE has no class: control, alloc, copy, launch, sync"),
    ("command 1 ONE\n    control", 1, "ONE has no doc"),
    (ONE + "    body vgpu_one", 1, "ONE has fields and a body, or neither"),
    (ONE + "    kind direction", 1, "ONE has no field 'direction'"),
    (ONE.replace("control", "copy"), 1, "ONE is work for the GPU and so has a stream"),
    (ONE + "    waits stream\n    body vgpu_one\n    value CUstream a\n    value size_t b\n"
     "    value size_t c", 1, "ONE waits and so has one value: it is kept while it does"),
    (ONE + "    post waits stream\n    body vgpu_one\n    value CUstream a", 1,
     "ONE waits and so has a slot: it is not posted"),
    (ONE + "    post\n    result vgpu_one", 1, "ONE is posted and so has no result"),
    (ONE + "    body vgpu_one\n    value CUstream a\n    value CUstream b\n    value CUstream c", 1,
     "ONE has more than 2 objects, or arrays behind it"),
)


class GeneratorCase(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def generated(self, what, files=None):
        result = generate(what, self.path(what), files or api_files())
        self.assertEqual((result.returncode, result.stderr), (0, ""), what)
        return self.path(what)

    def output(self, *command):
        """What a program prints, which has to succeed and be silent on stderr."""
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                check=False)
        self.assertEqual((result.returncode, result.stderr), (0, ""), " ".join(command))
        return result.stdout


class GoldenTest(GeneratorCase):
    """What is generated is what is checked in; check-golden says how it is renewed."""


def golden_test(name):
    def test(self):
        result = subprocess.run([sys.executable, "-B", os.path.join(HERE, "check-golden"), name],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                check=False)
        if result.returncode != 0:
            self.fail("\n" + result.stdout)
    return test


for golden in GOLDENS:
    setattr(GoldenTest, "test_" + re.sub(r"\W", "_", golden), golden_test(golden))


class MistakeTest(GeneratorCase):
    def test_mistakes_are_named_with_their_place(self):
        wrong = []
        for number, (text, line, said) in enumerate(MISTAKES):
            output = self.path(f"{number}.txt")
            result = generate("wire.txt", output, [self.write("wrong.api", BEFORE + text + "\n")])
            expected = f"generate.py: wrong.api:{FIRST + line - 1}: {said}\n"
            if (result.returncode, result.stderr, os.path.exists(output)) != (1, expected, False):
                wrong.append(f"{text}\n  -> {result.returncode} {result.stderr[-200:]}")
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))

    def test_what_stands_before_the_mistakes_is_right(self):
        self.generated("wire.txt", [self.write("right.api", BEFORE)])

    def test_each_mistake_that_is_looked_for_is_found_here(self):
        with open(spec.__file__, encoding="utf-8") as file:
            tree = ast.parse(file.read())
        looked_for = {(node.lineno, node.end_lineno) for node in ast.walk(tree)
                      if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and
                      node.func.attr == "fail"}
        found = set()
        for text, _, _ in MISTAKES:
            wrong = self.write("wrong.api", BEFORE + text + "\n")
            try:
                spec.read([(wrong, "wrong.api")])
            except Exception as mistake:  # another than Mistake is told of above
                trace = traceback.extract_tb(mistake.__traceback__)[-2]
                found |= {place for place in looked_for if place[0] <= trace.lineno <= place[1]}
        self.assertEqual(sorted(looked_for - found), [], "lines of spec.py")

    def test_places_are_in_the_file_that_has_the_mistake(self):
        right = self.write("right.api", BEFORE)
        wrong = self.write("wrong.api", "\n# a comment\ncall 1 cuTwo 2000 # another\n")
        result = generate("wire.txt", self.path("wire.txt"), [right, wrong])
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr, "generate.py: wrong.api:3: id 1 is there already, in "
                                        f"right.api:{FIRST - 4}\n")

    def test_a_file_that_is_missing(self):
        result = generate("wire.txt", self.path("wire.txt"), [self.path("none.api")])
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"^generate\.py: .*none\.api'\n$")

    def test_an_output_that_there_is_not(self):
        result = generate("calls.d", self.path("calls.d"), api_files())
        self.assertEqual(result.returncode, 2)
        self.assertIn("usage: generate.py WHAT OUTPUT FILE.api...", result.stderr)
        self.assertIn("wire-calls.c", result.stderr)

    def test_the_same_output_every_time(self):
        for what in ("wire-calls.c", "exports.c", "api-calls.c", "api-roundtrip.c", "coverage.md"):
            first = self.read(self.generated(what))
            self.assertEqual(self.read(self.generated(what)), first)

    def read(self, path):
        with open(path, encoding="utf-8") as file:
            return file.read()


def cuda_include():
    """The directory of an installed cuda.h, or None."""
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda",
             nvcc and os.path.dirname(os.path.dirname(os.path.realpath(nvcc)))]
    for home in filter(None, homes):
        if os.path.exists(os.path.join(home, "include/cuda.h")):
            return os.path.join(home, "include")
    return None


INCLUDE = cuda_include()


def installed_version():
    with open(os.path.join(INCLUDE, "cuda.h"), encoding="utf-8") as file:
        return int(re.search(r"^#define CUDA_VERSION (\d+)", file.read(), re.M)[1])


def own_version():
    with open(os.path.join(API, "cuda-types.h"), encoding="utf-8") as file:
        return int(re.search(r"^#define CUDA_VERSION (\d+)", file.read(), re.M)[1])


@unittest.skipUnless(INCLUDE, "no cuda.h is installed")
class InstalledTest(GeneratorCase):
    """Against NVIDIA's headers, of the version that the specification is of or a newer one."""

    def setUp(self):
        super().setUp()
        if installed_version() < own_version():
            self.skipTest(f"the installed cuda.h is of {installed_version()}")
        self.spec = spec.read([(path, os.path.basename(path)) for path in api_files()])
        self.generated("cuda-errors.h")
        self.generated("cuda.h")
        # NVIDIA's cuda.h and this project's have one name; each is found where it alone is.
        self.own = [f"-I{API}", f"-I{PROTOCOL}", f"-I{self.directory}"]
        self.theirs = ["-isystem", INCLUDE]

    def test_prototypes(self):
        check = self.generated("cuda-h-check.c")
        os.remove(self.path("cuda.h"))
        self.output("gcc", "-std=c17", "-Wall", "-Werror", "-fsyntax-only", *self.theirs, check)

    def values(self, header, *flags):
        program = self.path(f"layouts-{header}")
        source = self.generated("layouts.c")
        self.output("gcc", "-std=c17", *flags, "-include", header, "-o", program, source)
        return self.output(program).splitlines()

    def test_layouts_and_values(self):
        own = self.values("cuda-types.h", *self.own)
        os.remove(self.path("cuda.h"))
        theirs = self.values("cuda.h", *self.theirs)
        if installed_version() != own_version():
            # These count what there is.
            own, theirs = ([line for line in lines
                            if not re.search(r"_NUM_OPTIONS|_ATTRIBUTE_MAX ", line)]
                           for lines in (own, theirs))
        self.assertGreater(len(own), 300)
        self.maxDiff = None
        self.assertEqual(own, theirs)

    def resolved(self, names, *flags):
        """What each plain name is after preprocessing, and all that is declared."""
        source = self.write("names.c", "#include <cuda.h>\n" +
                            "".join(f'NAME "{name}" {name};\n' for name in names))
        text = self.output("gcc", "-E", "-P", *flags, source)
        return dict(re.findall(r'^NAME "(\w+)" (\w+);', text, re.M)), set(re.findall(
            r"\b(cu[A-Z]\w*)\s*\(", text))

    def test_plain_names(self):
        names = sorted({spec.base_name(c.name) for c in self.spec.exported()} |
                       set(mapped(self.spec)))
        own, own_declared = self.resolved(names, *self.own)
        os.remove(self.path("cuda.h"))
        theirs, declared = self.resolved(names, *self.theirs)
        self.assertEqual(sorted(own), names)
        both = [n for n in names if own[n] in own_declared and theirs[n] in declared]
        self.assertGreater(len(both), 100)
        self.assertEqual({n: own[n] for n in both}, {n: theirs[n] for n in both})

    def typedefs(self):
        """{(plain name, variant): versions} of cudaTypedefs.h."""
        path = os.path.join(INCLUDE, "cudaTypedefs.h")
        if not os.path.exists(path):
            self.skipTest("no cudaTypedefs.h is installed")
        versions = {}
        with open(path, encoding="utf-8") as file:
            for name, version, variant in re.findall(
                    r"\*PFN_(cu[A-Z]\w*?)_v(\d+)(?:_(ptsz|ptds))?\)", file.read()):
                versions.setdefault((name, variant), set()).add(int(version))
        self.assertGreater(len(versions), 300)
        return versions

    def stated(self):
        """(symbol, plain name, variant, version) of all that is served or refused."""
        for item in self.spec.exported() + self.spec.refusals:
            yield item.name, spec.base_name(item.name), "", item.version
            if item.variant:
                yield item.name, spec.base_name(item.name), item.variant, item.variant_version
            for name, version in getattr(item, "aliases", ()):
                yield name, spec.base_name(name), "", version

    def test_versions(self):
        known = self.typedefs()
        wrong = [f"{symbol} {variant} {version}: {sorted(known[name, variant])}"
                 for symbol, name, variant, version in self.stated()
                 if version not in known.get((name, variant), {version})]
        self.assertEqual(wrong, [])

    def test_variants(self):
        known, stated = self.typedefs(), list(self.stated())
        names = {name for _, name, _, _ in stated}
        have = {(name, variant) for _, name, variant, _ in stated}
        self.assertEqual(sorted(key for key in known if key[0] in names and key not in have), [])
        # cuGetProcAddress_v2_ptsz() is cuda.h's own function.
        self.assertEqual(sorted(key for key in have if (key[0], "") in known and
                                key not in known), [("cuGetProcAddress", "ptsz")])


if __name__ == "__main__":
    v.main()
