// The kernels of a 3x3 convolution on their way to Winograd's 36 points, and their gradient on the way back: (36, outer, inner),
// of which point p is at p * apart. For a GPU: the nine taps of a kernel lie together, not those of neighbouring channels.

// A line of 3 taps at the 6 points: G w.
DEVICE void taps_to_points(const T w[3], T p[6]) {
    T even = -(w[0] + w[2]) / 6, odd = w[1] / 6;
    p[1] = even - odd;
    p[2] = even + odd;
    even = w[0] / 24 + w[2] / 6;
    odd = w[1] / 12;
    p[3] = even + odd;
    p[4] = even - odd;
    p[0] = w[0] / 4;
    p[5] = w[2];
}

// From the 6 points to a line of 3 taps' gradients: G^T s.
DEVICE void taps_from_points(const T s[6], T w[3]) {
    T sum = s[1] + s[2], difference = s[2] - s[1], far_sum = s[3] + s[4], far_difference = s[3] - s[4];
    w[0] = s[0] / 4 - sum / 6 + far_sum / 24;
    w[1] = difference / 6 + far_difference / 12;
    w[2] = (far_sum - sum) / 6 + s[5];
}

// w, 9 taps for each of (outer, inner) -> at_points (36, outer, inner): G w G^T. The strides say where in w they are;
// mirrored: turned by half a turn, as on the way back.
KERNEL void kernels_at_points(RANGE, ARRAY(const T) w, ARRAY(T) at_points, int apart, int inner, int outer_stride,
                              int inner_stride, int mirrored) {
    EACH(i) {
        long long first = (long long)(i / inner) * outer_stride + (long long)(i % inner) * inner_stride;
        T half[3][6];
        UNROLL for (int v = 0; v < 3; v++) {
            T line[3];
            UNROLL for (int u = 0; u < 3; u++) line[u] = w[first + (mirrored ? 8 - (3 * u + v) : 3 * u + v)];
            taps_to_points(line, half[v]);
        }
        UNROLL for (int p = 0; p < 6; p++) {
            T line[3], points[6];
            UNROLL for (int v = 0; v < 3; v++) line[v] = half[v][p];
            taps_to_points(line, points);
            UNROLL for (int q = 0; q < 6; q++) at_points[(long long)(6 * p + q) * apart + i] = points[q];
        }
    }
}

// sums (36, K, C) -> dw (K, C, 3, 3): G^T s G.
KERNEL void gradient_of_kernels(RANGE, ARRAY(const T) sums, ARRAY(T) dw, int apart) {
    EACH(i) {
        T half[6][3];
        UNROLL for (int q = 0; q < 6; q++) {
            T line[6];
            UNROLL for (int p = 0; p < 6; p++) line[p] = sums[(long long)(6 * p + q) * apart + i];
            taps_from_points(line, half[q]);
        }
        UNROLL for (int u = 0; u < 3; u++) {
            T line[6], taps[3];
            UNROLL for (int q = 0; q < 6; q++) line[q] = half[q][u];
            taps_from_points(line, taps);
            UNROLL for (int v = 0; v < 3; v++) dw[(long long)i * 9 + 3 * u + v] = taps[v];
        }
    }
}
