// Max pooling: which tap of a window wins, and what comes back to it.

// x (n, height, width, channels) -> y (n, rows, columns, channels) and the winning tap of each window, the first on a tie.
// Taps in the padding do not take part; where there are no others, y is `lowest`. A NaN wins, the first one.
KERNEL void max_pool(unsigned count, ARRAY(const T) x, ARRAY(T) y, ARRAY(int) winner, T lowest, int channels, int height,
                     int width, int rows, int columns, int kernel_height, int kernel_width, int stride_down, int stride_across,
                     int gap_down, int gap_across, int top, int left) {
    EACH(i, count) {
        unsigned channel = i % channels, window = i / channels;
        int row = int(window / columns % rows) * stride_down - top, column = int(window % columns) * stride_across - left;
        long long image = (long long)(window / columns / rows) * height;
        T best = lowest;
        int won = -1;
        for (int u = 0; u < kernel_height; u++) {
            int h = row + u * gap_down;
            if (h < 0 || h >= height) continue;
            for (int v = 0; v < kernel_width; v++) {
                int w = column + v * gap_across;
                if (w < 0 || w >= width) continue;
                T value = x[((image + h) * width + w) * channels + channel];
                if (won < 0 || value > best || (value != value && best == best)) {
                    best = value;
                    won = u * kernel_width + v;
                }
            }
        }
        y[i] = best;
        winner[i] = won;
    }
}

// dy (n, rows, columns, channels) -> dx (n, height, width, channels): the dy of every window that a pixel has won.
KERNEL void max_pool_gradient(unsigned count, ARRAY(const T) dy, ARRAY(const int) winner, ARRAY(T) dx, int channels,
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
                if (winner[window] == u * kernel_width + v) sum += dy[window];
            }
        }
        dx[i] = sum;
    }
}
