"""The end of the program."""

import os
import sys


def end_process(code):
    """`sys.exit()` in a handler ends the program, as it does elsewhere; from any thread."""
    number = code if isinstance(code, int) else 0 if code is None else 1
    if code is not None and not isinstance(code, int):
        sys.stderr.write("%s\n" % (code,))
    sys.stderr.write("oci-node: the handler called sys.exit(): the program ends with %d\n" % number)
    end_now(number)


def end_now(number):
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    os._exit(number & 0xFF)
