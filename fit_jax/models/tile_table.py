"""The largest tiles of the prefix-tree kernel on TPUs, by `python -m benchmarks.tiles --write`."""

# Tokens of a row, from each on.
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
# By head width, up to each, and length.
LARGEST = {
    64: (1024, 1024, 1024, 1024, 1024, 1024),
    128: (1024, 1024, 1024, 1024, 1024, 1024),
    256: (512, 512, 512, 512, 512, 512),
    512: (512, 512, 512, 512, 512, 512),
}
