// Batch normalisation, and the ReLU behind it. Maps are (rows, width, channels), the rows of all images; sums are computed
// row by row and then added up, so that no long float32 sum is needed.

// dy, where the clipping to low ... high let y = x * factor + offset through, which costs less to compute again than to read.
// clipped: whether there was one.
LANES_DEVICE lanes passed(lanes dy, lanes x, lanes factor, lanes offset, T low, T high, int clipped) {
    if (!clipped) return dy;
    lanes y = x * factor + offset;
    dy = y > low ? dy : lanes();
    if (is_bounded(high)) dy = y < high ? dy : lanes();
    return dy;
}

// x -> for each row and channel its mean, and the sum of the squares of the distances from it.
KERNEL void moments_of_rows(RANGE, ARRAY(const T) x, ARRAY(T) means, ARRAY(T) squares, int width, int channels) {
    EACH_LANES(row, column, channel, 1, channels, 1) {
        long long first = (long long)row * width * channels + channel, at = (long long)row * channels + channel;
        lanes sum = lanes(), spread = lanes();
        for (int w = 0; w < width; w++) sum += AT(x, first + (long long)w * channels);
        lanes mean = sum / T(width);
        for (int w = 0; w < width; w++) {
            lanes distance = AT(x, first + (long long)w * channels) - mean;
            spread += distance * distance;
        }
        AT(means, at) = mean;
        AT(squares, at) = spread;
    }
}

// y = x * factor + offset, by channel, clipped to low ... high, which is ReLU.
KERNEL void scale_and_shift(RANGE, ARRAY(const T) x, ARRAY(T) y, ARRAY(const T) factor, ARRAY(const T) offset, T low, T high,
                            int channels) {
    EACH_LANES(pixel, column, channel, 1, channels, 1) {
        long long i = (long long)pixel * channels + channel;
        AT(y, i) = clipped(AT(x, i) * AT(factor, channel) + AT(offset, channel), low, high);
    }
}

// For each row and channel the sum of what y lets through of dy, and that of it times (x - mean). Where the statistics are
// constant, dx is scale times what came through.
KERNEL void gradients_of_rows(RANGE, ARRAY(const T) x, ARRAY(const T) dy, ARRAY(T) dx, ARRAY(const T) mean,
                              ARRAY(const T) scale, ARRAY(const T) offset, ARRAY(T) sums, ARRAY(T) products, T low, T high, int clipped,
                              int constant, int width, int channels) {
    EACH_LANES(row, column, channel, 1, channels, 1) {
        long long first = (long long)row * width * channels + channel, at = (long long)row * channels + channel;
        lanes sum = lanes(), product = lanes(), centre = AT(mean, channel), factor = AT(scale, channel);
        lanes shift = AT(offset, channel);
        for (int w = 0; w < width; w++) {
            long long i = first + (long long)w * channels;
            lanes value = AT(x, i), upstream = passed(lanes(AT(dy, i)), value, factor, shift, low, high, clipped);
            sum += upstream;
            product += upstream * (value - centre);
            if (constant) AT(dx, i) = factor * upstream;
        }
        AT(sums, at) = sum;
        AT(products, at) = product;
    }
}

// dx = scale * (what y lets through of dy - shift - slope * (x - mean)), by channel.
KERNEL void normalized_gradient(RANGE, ARRAY(const T) x, ARRAY(const T) dy, ARRAY(T) dx, ARRAY(const T) mean,
                                ARRAY(const T) scale, ARRAY(const T) offset, ARRAY(const T) shift, ARRAY(const T) slope, T low, T high, int clipped,
                                int channels) {
    EACH_LANES(pixel, column, channel, 1, channels, 1) {
        long long i = (long long)pixel * channels + channel;
        lanes value = AT(x, i), factor = AT(scale, channel);
        lanes upstream = passed(lanes(AT(dy, i)), value, factor, lanes(AT(offset, channel)), low, high, clipped);
        lanes change = AT(shift, channel) + AT(slope, channel) * (value - AT(mean, channel));
        AT(dx, i) = factor * (upstream - change);
    }
}
