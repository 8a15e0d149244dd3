// Winograd's F(4x4, 3x3), as derived in winograd.py: a tile's way to the 36 points and back.
//
// What lies at the points is (36, T, C): with i = tile * C + channel, a thread's value at point p is at p * count + i.

// A line of 6 values at the 6 points: B^T d.
DEVICE void to_points(const T d[6], T p[6]) {
    T even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1];
    p[1] = even + odd;
    p[2] = even - odd;
    even = d[4] - d[2];
    odd = 2 * (d[3] - d[1]);
    p[3] = even + odd;
    p[4] = even - odd;
    p[0] = 4 * d[0] - 5 * d[2] + d[4];
    p[5] = 4 * d[1] - 5 * d[3] + d[5];
}

// From the 6 points to a line of 4 results: A^T m.
DEVICE void from_points(const T m[6], T y[4]) {
    T sum = m[1] + m[2], difference = m[1] - m[2], far_sum = m[3] + m[4], far_difference = m[3] - m[4];
    y[0] = m[0] + sum + far_sum;
    y[1] = difference + 2 * far_difference;
    y[2] = sum + 4 * far_sum;
    y[3] = difference + 8 * far_difference + m[5];
}

// A line of 4 upstream gradients at the 6 points: A dy.
DEVICE void gradient_to_points(const T dy[4], T p[6]) {
    T even = dy[0] + dy[2], odd = dy[1] + dy[3];
    p[1] = even + odd;
    p[2] = even - odd;
    even = dy[0] + 4 * dy[2];
    odd = 2 * dy[1] + 8 * dy[3];
    p[3] = even + odd;
    p[4] = even - odd;
    p[0] = dy[0];
    p[5] = dy[3];
}

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

// x (n, height, width, channels) -> at_points (36, tiles, channels): B^T d B of each tile.
// Tiles lie 4 apart, `across` to a row and `down` to an image, the first `top` rows and `left` columns before it.
KERNEL void values_at_points(unsigned count, ARRAY(const T) x, ARRAY(T) at_points, int channels, int height, int width,
                             int down, int across, int top, int left) {
    EACH(i, count) {
        unsigned channel = i % channels, tile = i / channels;
        int column = 4 * int(tile % across) - left;
        int row = 4 * int(tile / across % down) - top;
        long long image = (long long)(tile / across / down) * height;
        T half[6][6];  // the transform from the left, a column each
#pragma unroll
        for (int v = 0; v < 6; v++) {
            T d[6];
#pragma unroll
            for (int u = 0; u < 6; u++) {
                bool inside = row + u >= 0 && row + u < height && column + v >= 0 && column + v < width;
                d[u] = inside ? x[((image + row + u) * width + column + v) * channels + channel] : T(0);
            }
            to_points(d, half[v]);
        }
#pragma unroll
        for (int p = 0; p < 6; p++) {
            T line[6], points[6];
#pragma unroll
            for (int v = 0; v < 6; v++) line[v] = half[v][p];
            to_points(line, points);
#pragma unroll
            for (int q = 0; q < 6; q++) at_points[(long long)(6 * p + q) * count + i] = points[q];
        }
    }
}

// dy (n, height, width, channels) -> at_points (36, tiles, channels): A dy A^T of each tile of 4 x 4, which lie as above.
KERNEL void gradient_at_points(unsigned count, ARRAY(const T) dy, ARRAY(T) at_points, int channels, int height, int width,
                               int down, int across, int top, int left) {
    EACH(i, count) {
        unsigned channel = i % channels, tile = i / channels;
        int column = 4 * int(tile % across) - left;
        int row = 4 * int(tile / across % down) - top;
        long long image = (long long)(tile / across / down) * height;
        T half[4][6];
#pragma unroll
        for (int v = 0; v < 4; v++) {
            T d[4];
#pragma unroll
            for (int u = 0; u < 4; u++) {
                bool inside = row + u < height && column + v < width;
                d[u] = inside ? dy[((image + row + u) * width + column + v) * channels + channel] : T(0);
            }
            gradient_to_points(d, half[v]);
        }
#pragma unroll
        for (int p = 0; p < 6; p++) {
            T line[4], points[6];
#pragma unroll
            for (int v = 0; v < 4; v++) line[v] = half[v][p];
            gradient_to_points(line, points);
#pragma unroll
            for (int q = 0; q < 6; q++) at_points[(long long)(6 * p + q) * count + i] = points[q];
        }
    }
}

// at_points (36, tiles, channels) -> y (n, height, width, channels): A^T m A of each tile, its bias, and its clipping
// to low ... high, which is ReLU. What lies beyond the end of y is left out.
KERNEL void results_from_points(unsigned count, ARRAY(const T) at_points, ARRAY(T) y, ARRAY(const T) bias, T low, T high,
                                int channels, int height, int width, int down, int across, int top) {
    EACH(i, count) {
        unsigned channel = i % channels, tile = i / channels;
        int column = 4 * int(tile % across);
        int row = 4 * int(tile / across % down) + top;
        long long image = (long long)(tile / across / down) * height;
        T half[6][4];
#pragma unroll
        for (int q = 0; q < 6; q++) {
            T m[6];
#pragma unroll
            for (int p = 0; p < 6; p++) m[p] = at_points[(long long)(6 * p + q) * count + i];
            from_points(m, half[q]);
        }
#pragma unroll
        for (int u = 0; u < 4; u++) {
            T line[6], results[4];
#pragma unroll
            for (int q = 0; q < 6; q++) line[q] = half[q][u];
            from_points(line, results);
#pragma unroll
            for (int v = 0; v < 4; v++) {
                T value = results[v] + bias[channel];
                value = value < low ? low : value > high ? high : value;
                if (row + u < height && column + v < width)
                    y[((image + row + u) * width + column + v) * channels + channel] = value;
            }
        }
    }
}

// w, 9 taps for each of (outer, inner) -> at_points (36, outer, inner): G w G^T. The strides say where in w they are;
// mirrored: turned by half a turn, as on the way back.
KERNEL void kernels_at_points(unsigned count, ARRAY(const T) w, ARRAY(T) at_points, int inner, int outer_stride,
                              int inner_stride, int mirrored) {
    EACH(i, count) {
        long long first = (long long)(i / inner) * outer_stride + (long long)(i % inner) * inner_stride;
        T half[3][6];
#pragma unroll
        for (int v = 0; v < 3; v++) {
            T line[3];
#pragma unroll
            for (int u = 0; u < 3; u++) line[u] = w[first + (mirrored ? 8 - (3 * u + v) : 3 * u + v)];
            taps_to_points(line, half[v]);
        }
#pragma unroll
        for (int p = 0; p < 6; p++) {
            T line[3], points[6];
#pragma unroll
            for (int v = 0; v < 3; v++) line[v] = half[v][p];
            taps_to_points(line, points);
#pragma unroll
            for (int q = 0; q < 6; q++) at_points[(long long)(6 * p + q) * count + i] = points[q];
        }
    }
}

// sums (36, K, C) -> dw (K, C, 3, 3): G^T s G.
KERNEL void gradient_of_kernels(unsigned count, ARRAY(const T) sums, ARRAY(T) dw) {
    EACH(i, count) {
        T half[6][3];
#pragma unroll
        for (int q = 0; q < 6; q++) {
            T line[6];
#pragma unroll
            for (int p = 0; p < 6; p++) line[p] = sums[(long long)(6 * p + q) * count + i];
            taps_from_points(line, half[q]);
        }
#pragma unroll
        for (int u = 0; u < 3; u++) {
            T line[6], taps[3];
#pragma unroll
            for (int q = 0; q < 6; q++) line[q] = half[q][u];
            taps_from_points(line, taps);
#pragma unroll
            for (int v = 0; v < 3; v++) dw[(long long)i * 9 + 3 * u + v] = taps[v];
        }
    }
}
