"""Runs a Python file as a program: `script.py FILE DIRECTORY`, with that directory in the path of modules.

Neither the file's own directory nor this one is in it: what lies there is none of the image's.
"""

from __future__ import annotations

import os
import runpy
import sys

here = os.path.dirname(os.path.abspath(__file__))
file, directory = sys.argv[1:]
sys.argv[:] = [file]
sys.path[:] = [directory] + [path for path in sys.path if os.path.abspath(path) != here and path != directory]
runpy.run_path(file, run_name="__main__")
