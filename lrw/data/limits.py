"""What the readers take at most: compared with what a file claims, before anything is allocated for it."""

MOST_VOXELS = 2**28
"""Values of one volume or video frame: 512 x 512 x 1024."""

MOST_BYTES = 2**32
"""Unpacked bytes of the arrays read from one `.npz`: 4 GiB."""

MOST_CLASSES = 1024
"""Classes that labels may tell apart; where names are numbers, labels go from 0 to one less."""

MOST_TEXT = 2**20
"""Bytes of a description such as `dataset.json`."""

MOST_DEFLATED = 1032
"""Bytes that one byte of a gzip or zip file can unpack to: the format's own bound."""
