// Batch normalisation. Maps are (rows, width, channels), the rows of all images; sums are computed row by row and then
// added up, so that no long float32 sum is needed.

// x -> for each row and channel its mean, and the sum of the squares of the distances from it.
KERNEL void moments_of_rows(unsigned count, ARRAY(const T) x, ARRAY(T) means, ARRAY(T) squares, int width, int channels) {
    EACH(i, count) {
        long long first = (long long)(i / channels) * width * channels + i % channels;
        T sum = 0, spread = 0;
        for (int column = 0; column < width; column++) sum += x[first + (long long)column * channels];
        T mean = sum / width;
        for (int column = 0; column < width; column++) {
            T distance = x[first + (long long)column * channels] - mean;
            spread += distance * distance;
        }
        means[i] = mean;
        squares[i] = spread;
    }
}

// y = x * factor + offset, by channel.
KERNEL void scale_and_shift(unsigned count, ARRAY(const T) x, ARRAY(T) y, ARRAY(const T) factor, ARRAY(const T) offset,
                            int channels) {
    EACH(i, count) y[i] = x[i] * factor[i % channels] + offset[i % channels];
}

// For each row and channel the sum of dy, and that of dy * (x - mean).
KERNEL void gradients_of_rows(unsigned count, ARRAY(const T) x, ARRAY(const T) dy, ARRAY(const T) mean, ARRAY(T) sums,
                               ARRAY(T) products, int width, int channels) {
    EACH(i, count) {
        long long first = (long long)(i / channels) * width * channels + i % channels;
        T sum = 0, product = 0;
        for (int column = 0; column < width; column++) {
            long long at = first + (long long)column * channels;
            sum += dy[at];
            product += dy[at] * (x[at] - mean[i % channels]);
        }
        sums[i] = sum;
        products[i] = product;
    }
}

// dx = scale * (dy - shift - slope * (x - mean)), by channel.
KERNEL void normalized_gradient(unsigned count, ARRAY(const T) x, ARRAY(const T) dy, ARRAY(T) dx, ARRAY(const T) mean,
                                ARRAY(const T) scale, ARRAY(const T) shift, ARRAY(const T) slope, int channels) {
    EACH(i, count) {
        unsigned channel = i % channels;
        dx[i] = scale[channel] * (dy[i] - shift[channel] - slope[channel] * (x[i] - mean[channel]));
    }
}
