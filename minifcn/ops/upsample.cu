// Upsampling along one axis by a fixed kernel, and its adjoint. Maps are (outer, size, inner); element a of the axis
// stamps the kernel's taps onto a * stride - before ... of the upsampled axis.

// x (outer, size, inner) -> y (outer, upsampled, inner)
KERNEL void upsample(RANGE, ARRAY(const T) x, ARRAY(const T) kernel_1d, ARRAY(T) y, int size, int upsampled, int inner,
                    int taps, int stride, int before) {
    EACH(i) {
        int position = int(i / inner % upsampled) + before;
        int first = position < taps ? 0 : (position - taps) / stride + 1;
        int last = position / stride < size - 1 ? position / stride : size - 1;
        long long at = (long long)(i / inner / upsampled) * size;
        T sum = 0;
        for (int a = first; a <= last; a++) sum += kernel_1d[position - a * stride] * x[(at + a) * inner + i % inner];
        y[i] = sum;
    }
}

// dy (outer, upsampled, inner) -> dx (outer, size, inner)
KERNEL void upsample_gradient(RANGE, ARRAY(const T) dy, ARRAY(const T) kernel_1d, ARRAY(T) dx, int upsampled, int size,
                             int inner, int taps, int stride, int before) {
    EACH(i) {
        int begin = int(i / inner % size) * stride - before;
        long long at = (long long)(i / inner / size) * upsampled;
        T sum = 0;
        for (int tap = 0; tap < taps; tap++) {
            int place = begin + tap;
            if (place >= 0 && place < upsampled) sum += kernel_1d[tap] * dy[(at + place) * inner + i % inner];
        }
        dx[i] = sum;
    }
}
