"""`python -m lightning_icl` is the command `lightning-icl`."""

from lightning_icl.cli import main

if __name__ == "__main__":
    main()
