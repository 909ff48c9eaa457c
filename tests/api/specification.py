# SPDX-License-Identifier: MIT
"""Where the specification is and how it is read; for the tests of the generator."""
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
API = os.path.join(TOP, "api")
GENERATE = os.path.join(API, "generate.py")
GOLDEN_API = os.path.join(HERE, "golden.api")


def api_files():
    """Those of the API, in the order that the build has."""
    with open(os.path.join(API, "meson.build"), encoding="utf-8") as file:
        listed = re.search(r"api_specification = files\((.*?)\)", file.read(), re.S)[1]
    return [os.path.join(API, name) for name in re.findall(r"'(.*?)'", listed)]


def generate(what, output, files):
    return subprocess.run([sys.executable, "-B", GENERATE, what, output, *files],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
