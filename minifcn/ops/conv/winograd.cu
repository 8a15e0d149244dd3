// Winograd's F(4x4, 3x3), as derived in winograd.py: a tile's way to the 36 points and back.
//
// What lies at the points is (36, T, C): with i = tile * C + channel, the value at point p is at p * apart + i. On a CPU `apart`
// is a little more than T * C: 36 addresses a power of two apart would fall into the same few places of a cache.

// A line of 6 values at the 6 points: B^T d.
LANES_DEVICE void to_points(const lanes d[6], lanes p[6]) {
    lanes even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1];
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
LANES_DEVICE void from_points(const lanes m[6], lanes y[4]) {
    lanes sum = m[1] + m[2], difference = m[1] - m[2], far_sum = m[3] + m[4], far_difference = m[3] - m[4];
    y[0] = m[0] + sum + far_sum;
    y[1] = difference + 2 * far_difference;
    y[2] = sum + 4 * far_sum;
    y[3] = difference + 8 * far_difference + m[5];
}

// A line of 4 upstream gradients at the 6 points: A dy.
LANES_DEVICE void gradient_to_points(const lanes dy[4], lanes p[6]) {
    lanes even = dy[0] + dy[2], odd = dy[1] + dy[3];
    p[1] = even + odd;
    p[2] = even - odd;
    even = dy[0] + 4 * dy[2];
    odd = 2 * dy[1] + 8 * dy[3];
    p[3] = even + odd;
    p[4] = even - odd;
    p[0] = dy[0];
    p[5] = dy[3];
}

// x (n, height, width, channels) -> at_points (36, tiles, channels): B^T d B of each tile.
// Tiles lie 4 apart, `across` to a row and `down` to an image, the first `top` rows and `left` columns before it.
KERNEL void values_at_points(RANGE, ARRAY(const T) x, ARRAY(T) at_points, int apart, int channels, int height, int width,
                             int down, int across, int top, int left) {
    EACH_LANES(line, tile, channel, across, channels, 1) {
        int column = 4 * tile - left, row = 4 * (line % down) - top;
        long long first = (((long long)(line / down) * height + row) * width + column) * channels + channel;
        long long below = (long long)width * channels, i = ((long long)line * across + tile) * channels + channel;
        lanes d[6][6];
        if (row >= 0 && row + 6 <= height && column >= 0 && column + 6 <= width) {
            UNROLL for (int u = 0; u < 6; u++)
                UNROLL for (int v = 0; v < 6; v++) d[u][v] = AT(x, first + u * below + v * channels);
        } else {
            for (int u = 0; u < 6; u++)
                for (int v = 0; v < 6; v++) {
                    bool seen = row + u >= 0 && row + u < height && column + v >= 0 && column + v < width;
                    d[u][v] = seen ? AT(x, first + u * below + v * channels) : lanes();
                }
        }
        UNROLL for (int v = 0; v < 6; v++) {  // the transform from the left, column by column
            lanes values[6], points[6];
            UNROLL for (int u = 0; u < 6; u++) values[u] = d[u][v];
            to_points(values, points);
            UNROLL for (int p = 0; p < 6; p++) d[p][v] = points[p];
        }
        UNROLL for (int p = 0; p < 6; p++) {
            lanes points[6];
            to_points(d[p], points);
            UNROLL for (int q = 0; q < 6; q++) AT(at_points, (long long)(6 * p + q) * apart + i) = points[q];
        }
    }
}

// dy (n, height, width, channels) -> at_points (36, tiles, channels): A dy A^T of each tile of 4 x 4, which lie as above.
KERNEL void gradient_at_points(RANGE, ARRAY(const T) dy, ARRAY(T) at_points, int apart, int channels, int height, int width,
                               int down, int across, int top, int left) {
    EACH_LANES(line, tile, channel, across, channels, 1) {
        int column = 4 * tile - left, row = 4 * (line % down) - top;
        long long first = (((long long)(line / down) * height + row) * width + column) * channels + channel;
        long long below = (long long)width * channels, i = ((long long)line * across + tile) * channels + channel;
        lanes half[4][6];
        bool inside = row + 4 <= height && column + 4 <= width;
        UNROLL for (int v = 0; v < 4; v++) {
            lanes d[4];
            UNROLL for (int u = 0; u < 4; u++) {
                bool seen = inside || (row + u < height && column + v < width);
                d[u] = seen ? AT(dy, first + u * below + v * channels) : lanes();
            }
            gradient_to_points(d, half[v]);
        }
        UNROLL for (int p = 0; p < 6; p++) {
            lanes across_of[4], points[6];
            UNROLL for (int v = 0; v < 4; v++) across_of[v] = half[v][p];
            gradient_to_points(across_of, points);
            UNROLL for (int q = 0; q < 6; q++) AT(at_points, (long long)(6 * p + q) * apart + i) = points[q];
        }
    }
}

// at_points (36, tiles, channels) -> y (n, height, width, channels): A^T m A of each tile, its bias, and its clipping
// to low ... high, which is ReLU. What lies beyond the end of y is left out.
KERNEL void results_from_points(RANGE, ARRAY(const T) at_points, ARRAY(T) y, ARRAY(const T) bias, T low, T high, int apart,
                                int channels, int height, int width, int down, int across, int top) {
    EACH_LANES(line, tile, channel, across, channels, 1) {
        int column = 4 * tile, row = 4 * (line % down) + top;
        long long first = (((long long)(line / down) * height + row) * width + column) * channels + channel;
        long long below = (long long)width * channels, i = ((long long)line * across + tile) * channels + channel;
        lanes half[6][4], shift = AT(bias, channel);
        UNROLL for (int q = 0; q < 6; q++) {
            lanes m[6];
            UNROLL for (int p = 0; p < 6; p++) m[p] = AT(at_points, (long long)(6 * p + q) * apart + i);
            from_points(m, half[q]);
        }
        bool inside = row + 4 <= height && column + 4 <= width;
        UNROLL for (int u = 0; u < 4; u++) {
            lanes across_of[6], results[4];
            UNROLL for (int q = 0; q < 6; q++) across_of[q] = half[q][u];
            from_points(across_of, results);
            UNROLL for (int v = 0; v < 4; v++)
                if (inside || (row + u < height && column + v < width))
                    AT(y, first + u * below + v * channels) = clipped(results[v] + shift, low, high);
        }
    }
}
