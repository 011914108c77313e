"""Speed, memory and exactness, measured side by side and never asserted in a test.

Processes wait and give memory back as those of the command line do.
"""

from lightning_icl.process_setup import prepare_process

prepare_process()
