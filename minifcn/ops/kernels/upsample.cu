// Enlarging along one axis by a fixed line of taps, and its adjoint. Maps are (outer, size, inner); element a of the axis
// stamps its taps onto a * stride - before ... of the enlarged axis.

// x (outer, size, inner) -> y (outer, enlarged, inner)
KERNEL void enlarge(unsigned count, ARRAY(const T) x, ARRAY(const T) line, ARRAY(T) y, int size, int enlarged, int inner,
                    int taps, int stride, int before) {
    EACH(i, count) {
        int position = int(i / inner % enlarged) + before;
        int first = position < taps ? 0 : (position - taps) / stride + 1;
        int last = position / stride < size - 1 ? position / stride : size - 1;
        long long at = (long long)(i / inner / enlarged) * size;
        T sum = 0;
        for (int a = first; a <= last; a++) sum += line[position - a * stride] * x[(at + a) * inner + i % inner];
        y[i] = sum;
    }
}

// dy (outer, enlarged, inner) -> dx (outer, size, inner)
KERNEL void enlarge_gradient(unsigned count, ARRAY(const T) dy, ARRAY(const T) line, ARRAY(T) dx, int enlarged, int size,
                             int inner, int taps, int stride, int before) {
    EACH(i, count) {
        int begin = int(i / inner % size) * stride - before;
        long long at = (long long)(i / inner / size) * enlarged;
        T sum = 0;
        for (int tap = 0; tap < taps; tap++) {
            int place = begin + tap;
            if (place >= 0 && place < enlarged) sum += line[tap] * dy[(at + place) * inner + i % inner];
        }
        dx[i] = sum;
    }
}
