"""Stand-ins for a GPU: arrays as strict as CuPy's, and CUDA kernels compiled for the CPU with every access checked."""
