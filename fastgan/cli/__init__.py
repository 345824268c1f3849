"""The command line. A module here imports at its top only what is light: no torch, no pydantic; `--help` loads all."""
