"""What serves speed alone: sizes at which work is cut up or shared out. Results do not depend on them, but for rounding.

Measured on two cores with AVX2 and 1 to 2 MB of cache each; other machines want about the same. Read them as
`tuning.NAME` when they are needed, so that a test that changes one changes it for everybody.
"""

# What is laid out or read at a time. On a CPU it should stay in a core's cache.
TILE_BYTES = 2 << 20  # a tile of a convolution (patches, values at Winograd's points) or of a normalisation
BLOCK_BYTES = 1 << 20  # a block of work done value by value, of a pooling's results, of a loss's logits
PIECE_BYTES = 4 << 20  # a piece of a matrix product: still warm when its bias is added
WORKSPACE = 512 << 20  # on a device with kernels: patches or values at the points, one launch at a time

# Less than this is done sooner than a second thread is awake.
BYTES_WORTH_A_THREAD = 1 << 19
BYTES_WORTH_A_HELPER = 1 << 16  # of what a kernel reads and writes, where threads are awake sooner (`helpers`)
WORTH_A_THREAD = 1 << 24  # operations of a matrix product

SHARES = 4  # parts of a sum, where compiled helpers share them

# In between, work and its overhead balance.
DEPTHWISE_PIECE = 1000  # values of a row: fewer take longer to begin than to compute, more fall out of the cache
# A part of the values and results at Winograd's points. With kernels, all threads share one part at a time, in the cache that
# cores share; with NumPy, each thread has its own. With fewer tiles, the products would spend their time fetching kernels.
WINOGRAD_BYTES, WINOGRAD_TILES = 16 << 20, 512
WINOGRAD_TILES_A_THREAD = 128
KEPT_KERNELS = 64 << 20  # bytes: a prepared network computes a layer's larger kernels at the points anew each time
# Where a vector of LANES float32 is one register, and there are no more channels than this, on either side, a kernel takes a few
# tiles to the points, multiplies and brings them back while they are in a core's own cache.
LANES, WINOGRAD_CHANNELS = 16, 128
WINOGRAD_SHARES = 8  # parts of a weight gradient there, each with sums of its own
