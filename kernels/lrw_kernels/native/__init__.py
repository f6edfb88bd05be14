"""Native code of this machine: `settings` and `compile` make an object of a kernel's Python function, `store` keeps it,
`elf`, `macho` and `objects` look at it, `compiled` gives its address.

Importing this imports nothing; Numba is needed only where a kernel has never been compiled.
"""
