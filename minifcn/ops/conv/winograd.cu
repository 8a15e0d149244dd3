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

// The 6 x 6 values of a tile from (row, column) on, zero outside the map, at the 36 points: B^T d B.
LANES_DEVICE void values_of_tile(ARRAY(const T) x, long long image, int row, int column, int height, int width, int channels,
                                 lanes d[6][6]) {
    long long below = (long long)width * channels, first = image + row * below + (long long)column * channels;
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
        UNROLL for (int q = 0; q < 6; q++) d[p][q] = points[q];
    }
}

// The upstream gradient of a tile's 4 x 4 results from (row, column) on, zero beyond the end, at the 36 points: A dy A^T.
LANES_DEVICE void gradient_of_tile(ARRAY(const T) dy, long long image, int row, int column, int height, int width, int channels,
                                   lanes d[6][6]) {
    long long below = (long long)width * channels, first = image + row * below + (long long)column * channels;
    lanes half[4][6];
    bool inside = row + 4 <= height && column + 4 <= width;
    UNROLL for (int v = 0; v < 4; v++) {
        lanes gradient[4];
        UNROLL for (int u = 0; u < 4; u++) {
            bool seen = inside || (row + u < height && column + v < width);
            gradient[u] = seen ? AT(dy, first + u * below + v * channels) : lanes();
        }
        gradient_to_points(gradient, half[v]);
    }
    UNROLL for (int p = 0; p < 6; p++) {
        lanes across_of[4];
        UNROLL for (int v = 0; v < 4; v++) across_of[v] = half[v][p];
        gradient_to_points(across_of, d[p]);
    }
}

// What lies at the 36 points from i on -> the tile's 4 x 4 results, A^T m A, with bias and clipping, to y from (row, column) on.
// What lies beyond the end of y is left out.
LANES_DEVICE void write_tile(ARRAY(const T) at_points, long long i, int apart, lanes shift, T low, T high, ARRAY(T) y,
                             long long image, int row, int column, int height, int width, int channels) {
    lanes half[6][4];
    UNROLL for (int q = 0; q < 6; q++) {
        lanes m[6];
        UNROLL for (int p = 0; p < 6; p++) m[p] = AT(at_points, (long long)(6 * p + q) * apart + i);
        from_points(m, half[q]);
    }
    long long below = (long long)width * channels, first = image + row * below + (long long)column * channels;
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

// x (n, height, width, channels) -> at_points (36, tiles, channels): B^T d B of each tile.
// Tiles lie 4 apart, `across` to a row and `down` to an image, the first `top` rows and `left` columns before it.
KERNEL void values_at_points(RANGE, ARRAY(const T) x, ARRAY(T) at_points, int apart, int channels, int height, int width,
                             int down, int across, int top, int left) {
    EACH_LANES(line, tile, channel, across, channels, 1) {
        long long image = (long long)(line / down) * height * width * channels + channel;
        long long i = ((long long)line * across + tile) * channels + channel;
        lanes d[6][6];
        values_of_tile(x, image, 4 * (line % down) - top, 4 * tile - left, height, width, channels, d);
        UNROLL for (int p = 0; p < 6; p++)
            UNROLL for (int q = 0; q < 6; q++) AT(at_points, (long long)(6 * p + q) * apart + i) = d[p][q];
    }
}

// dy (n, height, width, channels) -> at_points (36, tiles, channels): A dy A^T of each tile of 4 x 4, which lie as above.
KERNEL void gradient_at_points(RANGE, ARRAY(const T) dy, ARRAY(T) at_points, int apart, int channels, int height, int width,
                               int down, int across, int top, int left) {
    EACH_LANES(line, tile, channel, across, channels, 1) {
        long long image = (long long)(line / down) * height * width * channels + channel;
        long long i = ((long long)line * across + tile) * channels + channel;
        lanes d[6][6];
        gradient_of_tile(dy, image, 4 * (line % down) - top, 4 * tile - left, height, width, channels, d);
        UNROLL for (int p = 0; p < 6; p++)
            UNROLL for (int q = 0; q < 6; q++) AT(at_points, (long long)(6 * p + q) * apart + i) = d[p][q];
    }
}

// at_points (36, tiles, channels) -> y (n, height, width, channels): A^T m A of each tile, its bias, and its clipping
// to low ... high, which is ReLU.
KERNEL void results_from_points(RANGE, ARRAY(const T) at_points, ARRAY(T) y, ARRAY(const T) bias, T low, T high, int apart,
                                int channels, int height, int width, int down, int across, int top) {
    EACH_LANES(line, tile, channel, across, channels, 1) {
        long long image = (long long)(line / down) * height * width * channels + channel;
        long long i = ((long long)line * across + tile) * channels + channel;
        write_tile(at_points, i, apart, lanes(AT(bias, channel)), low, high, y, image, 4 * (line % down) + top, 4 * tile, height, width,
                   channels);
    }
}

// What follows does the three steps at once, for TILES of a row at a time, whose values stay in a core's cache. A line is `band`
// rows of tiles, counted over all n images, and has room of its own to work in, (lines, 36, ..._apart).

const int TILES = 24, TILES_AT_ONCE = 12, CHANNELS_AT_ONCE = 8, VECTORS = 2;  // the last three: of a product kept in registers
#define ASKED_FOR (LANES == WIDEST && sizeof(T) == sizeof(float))  // else there is nothing to compile

// Some tiles' values at a point, times the kernels there.
LANES_DEVICE void multiply(ARRAY(const T) values, long long first, int inputs, ARRAY(const T) kernels, long long from, int channels,
                           ARRAY(T) products, long long to, lanes zero) {
    lanes sum[TILES_AT_ONCE][VECTORS];
    UNROLL for (int t = 0; t < TILES_AT_ONCE; t++)
        UNROLL for (int k = 0; k < VECTORS; k++) sum[t][k] = zero;
    for (int c = 0; c < inputs; c++) {
        lanes w[VECTORS];
        UNROLL for (int k = 0; k < VECTORS; k++) w[k] = AT(kernels, from + (long long)c * channels + k * LANES);
        UNROLL for (int t = 0; t < TILES_AT_ONCE; t++) {
            T value = values[first + t * inputs + c];
            UNROLL for (int k = 0; k < VECTORS; k++) sum[t][k] += value * w[k];
        }
    }
    UNROLL for (int t = 0; t < TILES_AT_ONCE; t++)
        UNROLL for (int k = 0; k < VECTORS; k++) AT(products, to + t * channels + k * LANES) = sum[t][k];
}

// x (n, height, width, inputs) and kernels (36, inputs, channels) -> y (n, rows, columns, channels).
KERNEL void convolve(RANGE, ARRAY(const T) x, ARRAY(const T) kernels, ARRAY(const T) bias, ARRAY(T) values, ARRAY(T) products,
                     ARRAY(T) y, T low, T high, int values_apart, int products_apart, int inputs, int channels, int height, int width,
                     int rows, int columns, int all_rows, int band, int top, int left) {
    EACH_LANES(line, column, channel, 1, LANES, 1) {
        long long own = 36LL * line * values_apart, results = 36LL * line * products_apart;
        int down = (rows + 3) / 4, across = ASKED_FOR ? (columns + 3) / 4 : 0;
        for (int tiles = line * band; tiles < (line + 1) * band && tiles < all_rows; tiles++)
            for (int begin = 0; begin < across; begin += TILES) {
                long long image = tiles / down;
                int row = 4 * (tiles % down), count = across - begin < TILES ? across - begin : TILES;
                for (int t = 0; t < count; t++)
                    for (int c = 0; c < inputs; c += LANES) {
                        lanes d[6][6];
                        values_of_tile(x, image * height * width * inputs + c, row - top, 4 * (begin + t) - left, height, width, inputs, d);
                        UNROLL for (int p = 0; p < 6; p++)
                            UNROLL for (int q = 0; q < 6; q++)
                                AT(values, own + (6 * p + q) * values_apart + t * inputs + c) = d[p][q];
                    }
                for (int p = 0; p < 36; p++)
                    for (int k = 0; k < channels; k += VECTORS * LANES)
                        for (int t = 0; t < count; t += TILES_AT_ONCE)
                            multiply(values, own + p * values_apart + t * inputs, inputs, kernels,
                                     (long long)p * inputs * channels + k, channels, products,
                                     results + p * products_apart + t * channels + k, lanes());
                for (int t = 0; t < count; t++)
                    for (int k = 0; k < channels; k += LANES)
                        write_tile(products, results + t * channels + k, products_apart, lanes(AT(bias, k)), low, high, y,
                                   image * rows * columns * channels + k, row, 4 * (begin + t), rows, columns, channels);
            }
    }
}

// Add to sums, at a point, the products of some tiles' gradients and values.
LANES_DEVICE void add_products(ARRAY(const T) gradients, long long first, int channels, ARRAY(const T) values, long long from,
                               int inputs, int count, ARRAY(T) sums, long long to, lanes zero) {
    lanes sum[CHANNELS_AT_ONCE][VECTORS];
    UNROLL for (int k = 0; k < CHANNELS_AT_ONCE; k++)
        UNROLL for (int c = 0; c < VECTORS; c++) sum[k][c] = zero;  // a short sum for the long one: less rounding
    for (int t = 0; t < count; t++) {
        lanes value[VECTORS];
        UNROLL for (int c = 0; c < VECTORS; c++) value[c] = AT(values, from + t * inputs + c * LANES);
        UNROLL for (int k = 0; k < CHANNELS_AT_ONCE; k++) {
            T gradient = gradients[first + t * channels + k];
            UNROLL for (int c = 0; c < VECTORS; c++) sum[k][c] += gradient * value[c];
        }
    }
    UNROLL for (int k = 0; k < CHANNELS_AT_ONCE; k++)
        UNROLL for (int c = 0; c < VECTORS; c++) AT(sums, to + k * inputs + c * LANES) += sum[k][c];
}

// x (n, height, width, inputs) and dy (n, rows, columns, channels) -> added to sums (lines, 36, channels, inputs), a part for each line.
KERNEL void add_kernel_gradients(RANGE, ARRAY(const T) x, ARRAY(const T) dy, ARRAY(T) values, ARRAY(T) gradients, ARRAY(T) sums,
                                 int values_apart, int gradients_apart, int inputs, int channels, int height, int width, int rows,
                                 int columns, int all_rows, int band, int top, int left) {
    EACH_LANES(line, column, channel, 1, LANES, 1) {
        long long own = 36LL * line * values_apart, upstream = 36LL * line * gradients_apart;
        int down = (rows + 3) / 4, across = ASKED_FOR ? (columns + 3) / 4 : 0;
        for (int tiles = line * band; tiles < (line + 1) * band && tiles < all_rows; tiles++)
            for (int begin = 0; begin < across; begin += TILES) {
                long long image = tiles / down;
                int row = 4 * (tiles % down), count = across - begin < TILES ? across - begin : TILES;
                for (int t = 0; t < count; t++) {
                    lanes d[6][6];
                    for (int c = 0; c < inputs; c += LANES) {
                        values_of_tile(x, image * height * width * inputs + c, row - top, 4 * (begin + t) - left, height, width, inputs, d);
                        UNROLL for (int p = 0; p < 6; p++)
                            UNROLL for (int q = 0; q < 6; q++)
                                AT(values, own + (6 * p + q) * values_apart + t * inputs + c) = d[p][q];
                    }
                    for (int k = 0; k < channels; k += LANES) {
                        gradient_of_tile(dy, image * rows * columns * channels + k, row, 4 * (begin + t), rows, columns, channels, d);
                        UNROLL for (int p = 0; p < 6; p++)
                            UNROLL for (int q = 0; q < 6; q++)
                                AT(gradients, upstream + (6 * p + q) * gradients_apart + t * channels + k) = d[p][q];
                    }
                }
                for (int p = 0; p < 36; p++)
                    for (int k = 0; k < channels; k += CHANNELS_AT_ONCE)
                        for (int c = 0; c < inputs; c += VECTORS * LANES)
                            add_products(gradients, upstream + p * gradients_apart + k, channels, values, own + p * values_apart + c, inputs,
                                         count, sums, ((36LL * line + p) * channels + k) * inputs + c, lanes());
            }
    }
}
