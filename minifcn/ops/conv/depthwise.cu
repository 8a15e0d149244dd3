// Depthwise convolution, one kernel a channel. The kernels come tap by tap, w (kernel_height, kernel_width, channels).

// x (n, height, width, channels) -> y (n, rows, columns, channels), clipped to low ... high, which is ReLU or ReLU6.
KERNEL void depthwise(unsigned count, ARRAY(const T) x, ARRAY(const T) w, ARRAY(T) y, ARRAY(const T) bias, T low, T high,
                      int channels, int height, int width, int rows, int columns, int kernel_height, int kernel_width,
                      int stride_down, int stride_across, int gap_down, int gap_across, int top, int left) {
    EACH(i, count) {
        unsigned channel = i % channels, window = i / channels;
        int row = int(window / columns % rows) * stride_down - top, column = int(window % columns) * stride_across - left;
        long long image = (long long)(window / columns / rows) * height;
        T sum = 0;
        for (int u = 0; u < kernel_height; u++) {
            int h = row + u * gap_down;
            if (h < 0 || h >= height) continue;
            for (int v = 0; v < kernel_width; v++) {
                int at = column + v * gap_across;
                if (at < 0 || at >= width) continue;
                sum += w[(u * kernel_width + v) * channels + channel] * x[((image + h) * width + at) * channels + channel];
            }
        }
        sum += bias[channel];
        y[i] = sum < low ? low : sum > high ? high : sum;
    }
}

// dy (n, rows, columns, channels) -> dx (n, height, width, channels): what each window that saw a pixel sends back to it.
KERNEL void depthwise_input_gradient(unsigned count, ARRAY(const T) dy, ARRAY(const T) w, ARRAY(T) dx, int channels,
                                     int height, int width, int rows, int columns, int kernel_height, int kernel_width,
                                     int stride_down, int stride_across, int gap_down, int gap_across, int top, int left) {
    EACH(i, count) {
        unsigned channel = i % channels, pixel = i / channels;
        int row = int(pixel / width % height) + top, column = int(pixel % width) + left;
        long long image = (long long)(pixel / width / height) * rows;
        T sum = 0;
        for (int u = 0; u < kernel_height; u++) {
            int down = row - u * gap_down;
            if (down < 0 || down % stride_down || down / stride_down >= rows) continue;
            for (int v = 0; v < kernel_width; v++) {
                int across = column - v * gap_across;
                if (across < 0 || across % stride_across || across / stride_across >= columns) continue;
                long long window = ((image + down / stride_down) * columns + across / stride_across) * channels + channel;
                sum += w[(u * kernel_width + v) * channels + channel] * dy[window];
            }
        }
        dx[i] = sum;
    }
}

// dw of each output row by itself: sums (n * rows, kernel_height, kernel_width, channels), to be added up.
KERNEL void depthwise_weight_gradient(unsigned count, ARRAY(const T) x, ARRAY(const T) dy, ARRAY(T) sums, int channels,
                                      int height, int width, int rows, int columns, int kernel_height, int kernel_width,
                                      int stride_down, int stride_across, int gap_down, int gap_across, int top, int left) {
    EACH(i, count) {
        unsigned channel = i % channels, rest = i / channels;
        int v = rest % kernel_width, u = rest / kernel_width % kernel_height;
        unsigned line = rest / kernel_width / kernel_height;
        int h = int(line % rows) * stride_down - top + u * gap_down;
        T sum = 0;
        if (h >= 0 && h < height) {
            for (int column = 0; column < columns; column++) {
                int at = column * stride_across - left + v * gap_across;
                if (at < 0 || at >= width) continue;
                sum += dy[((long long)line * columns + column) * channels + channel] *
                       x[(((long long)(line / rows) * height + h) * width + at) * channels + channel];
            }
        }
        sums[i] = sum;
    }
}
