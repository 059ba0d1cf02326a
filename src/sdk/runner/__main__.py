# The runner's door: what every Python that an image may have can read, so that an old one can say so. Everything else needs 3.8.
import sys

if sys.version_info < (3, 8):
    sys.stderr.write(
        "oci-node: Python 3.8 or newer is needed, the image has %d.%d (%s)\n"
        % (sys.version_info[0], sys.version_info[1], sys.executable)
    )
    sys.exit(1)

from oci_node_runner.start import main

main()
