// Max pooling: which tap of a window wins, and what comes back to it.

// x (n, height, width, channels) -> y (n, rows, columns, channels) and the winning tap of each window, the first on a tie.
// Taps in the padding do not take part; where there are no others, y is `lowest`. A NaN wins, the first one.
KERNEL void max_pool(RANGE, ARRAY(const T) x, ARRAY(T) y, ARRAY(WHOLE) winner, T lowest, int channels, int height, int width,
                     int rows, int columns, int kernel_height, int kernel_width, int stride_down, int stride_across,
                     int gap_down, int gap_across, int top, int left) {
    EACH_LANES(line, column, channel, columns, channels, 1) {
        int row = line % rows * stride_down - top, begin = column * stride_across - left;
        lanes best = lanes() + lowest;
        whole_lanes won = whole_lanes() - 1;
        for (int u = 0; u < kernel_height; u++) {
            int h = row + u * gap_down;
            if (h < 0 || h >= height) continue;
            long long seen = (long long)(line / rows * height + h) * width * channels + channel;
            for (int v = 0; v < kernel_width; v++) {
                int at = begin + v * gap_across;
                if (at < 0 || at >= width) continue;
                lanes value = AT(x, seen + (long long)at * channels);
                whole_lanes tap = whole_lanes() + (u * kernel_width + v);
                auto wins = (won < 0) | (value > best) | ((value != value) & (best == best));
                best = wins ? value : best;
                won = wins ? tap : won;
            }
        }
        long long i = ((long long)line * columns + column) * channels + channel;
        AT(y, i) = best;
        AT(winner, i) = won;
    }
}

// dy (n, rows, columns, channels) -> dx (n, height, width, channels): the dy of every window that a pixel has won.
KERNEL void max_pool_gradient(RANGE, ARRAY(const T) dy, ARRAY(const WHOLE) winner, ARRAY(T) dx, int channels, int height,
                              int width, int rows, int columns, int kernel_height, int kernel_width, int stride_down,
                              int stride_across, int gap_down, int gap_across, int top, int left) {
    EACH_LANES(line, column, channel, width, channels, 1) {
        int row = line % height + top, place = column + left;
        int reach_down = (kernel_height - 1) * gap_down + 1, reach_across = (kernel_width - 1) * gap_across + 1;
        int last_down = last_window(row, stride_down, rows), last_across = last_window(place, stride_across, columns);
        int first_across = first_window(place, reach_across, stride_across);
        lanes sum = lanes();
        for (int down = first_window(row, reach_down, stride_down); down <= last_down; down++) {
            int u = tap_at(row - down * stride_down, gap_down);
            if (u < 0) continue;
            for (int across = first_across; across <= last_across; across++) {
                int v = tap_at(place - across * stride_across, gap_across);
                if (v < 0) continue;
                long long window = ((long long)(line / height * rows + down) * columns + across) * channels + channel;
                sum += AT(winner, window) == u * kernel_width + v ? AT(dy, window) : lanes();
            }
        }
        AT(dx, ((long long)line * width + column) * channels + channel) = sum;
    }
}

// The same where no pixel lies in two windows: each window writes to its own. What lies in none, dx has to be 0 at before.
KERNEL void max_pool_gradient_apart(RANGE, ARRAY(const T) dy, ARRAY(const WHOLE) winner, ARRAY(T) dx, int channels, int height,
                                    int width, int rows, int columns, int kernel_height, int kernel_width, int stride_down,
                                    int stride_across, int gap_down, int gap_across, int top, int left) {
    EACH_LANES(line, column, channel, columns, channels, 1) {
        int row = line % rows * stride_down - top, begin = column * stride_across - left;
        long long i = ((long long)line * columns + column) * channels + channel;
        lanes upstream = AT(dy, i);
        whole_lanes won = AT(winner, i);
        for (int u = 0; u < kernel_height; u++) {
            int h = row + u * gap_down;
            if (h < 0 || h >= height) continue;
            long long seen = (long long)(line / rows * height + h) * width * channels + channel;
            for (int v = 0; v < kernel_width; v++) {
                int at = begin + v * gap_across;
                if (at < 0 || at >= width) continue;
                AT(dx, seen + (long long)at * channels) = won == u * kernel_width + v ? upstream : lanes();
            }
        }
    }
}
