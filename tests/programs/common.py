# SPDX-License-Identifier: MIT
"""What the programs in Python share."""
import importlib
import sys

MISSING = 77


def load(name):
    """The library under test; without it the program ends with the status for that."""
    try:
        library = importlib.import_module(name)
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(MISSING)
    print(library.__name__, library.__version__, flush=True)
    return library
