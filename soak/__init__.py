"""Faults, load and hostile input: long runs that show with counts that the toolchain keeps its promises."""
