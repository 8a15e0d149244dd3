// Depthwise convolution, one kernel a channel. The kernels come tap by tap, w (kernel_height, kernel_width, channels).

// x (n, height, width, channels) -> y (n, rows, columns, channels), clipped to low ... high, which is ReLU or ReLU6.
// Results that are next to each other share the taps.
KERNEL void depthwise(RANGE, ARRAY(const T) x, ARRAY(const T) w, ARRAY(T) y, ARRAY(const T) bias, T low, T high,
                      int channels, int height, int width, int rows, int columns, int kernel_height, int kernel_width,
                      int stride_down, int stride_across, int gap_down, int gap_across, int top, int left) {
    EACH_LANES(line, column, channel, columns, channels, 6) {
        const int run = RUN(6);
        int row = line % rows * stride_down - top, begin = column * stride_across - left;
        int reach = (run - 1) * stride_across + (kernel_width - 1) * gap_across;
        bool inside = begin >= 0 && begin + reach < width && column + run <= columns;
        lanes sum[run] = {};
        for (int u = 0; u < kernel_height; u++) {
            int h = row + u * gap_down;
            if (h < 0 || h >= height) continue;
            long long seen = (long long)(line / rows * height + h) * width * channels + channel;
            for (int v = 0; v < kernel_width; v++) {
                int at = begin + v * gap_across;
                lanes tap = AT(w, (u * kernel_width + v) * channels + channel);
                UNROLL for (int r = 0; r < run; r++, at += stride_across)
                    if (inside || (at >= 0 && at < width)) sum[r] += tap * AT(x, seen + (long long)at * channels);
            }
        }
        lanes shift = AT(bias, channel);
        UNROLL for (int r = 0; r < run; r++)
            if (column + r < columns)
                AT(y, ((long long)line * columns + column + r) * channels + channel) =
                    clipped(sum[r] + shift, low, high);
    }
}

// dy (n, rows, columns, channels) -> dx (n, height, width, channels): what each window that saw a pixel sends back to it.
KERNEL void depthwise_input_gradient(RANGE, ARRAY(const T) dy, ARRAY(const T) w, ARRAY(T) dx, int channels, int height,
                                     int width, int rows, int columns, int kernel_height, int kernel_width,
                                     int stride_down, int stride_across, int gap_down, int gap_across, int top, int left) {
    EACH_LANES(line, column, channel, width, channels, 6) {
        const int run = RUN(6);
        int row = line % height + top, begin = column + left;
        int reach_down = (kernel_height - 1) * gap_down + 1, last_down = last_window(row, stride_down, rows);
        bool inside = stride_across == 1 && begin >= (kernel_width - 1) * gap_across && begin + run <= columns;
        lanes sum[run] = {};
        for (int down = first_window(row, reach_down, stride_down); down <= last_down; down++) {
            int u = tap_at(row - down * stride_down, gap_down);
            if (u < 0) continue;
            long long sent = (long long)(line / height * rows + down) * columns * channels + channel;
            for (int v = 0; v < kernel_width; v++) {
                int place = begin - v * gap_across;  // where a window begins whose tap v sees the first of these pixels
                lanes tap = AT(w, (u * kernel_width + v) * channels + channel);
                if (inside) {
                    UNROLL for (int r = 0; r < run; r++) sum[r] += tap * AT(dy, sent + (long long)(place + r) * channels);
                } else {
                    UNROLL for (int r = 0; r < run; r++) {
                        int across = place + r < 0 ? -1 : divided(place + r, stride_across);
                        if (across >= 0 && across < columns && across * stride_across == place + r)
                            sum[r] += tap * AT(dy, sent + (long long)across * channels);
                    }
                }
            }
        }
        UNROLL for (int r = 0; r < run; r++)
            if (column + r < width) AT(dx, ((long long)line * width + column + r) * channels + channel) = sum[r];
    }
}

// dw of each output row by itself: sums (n * rows, kernel_height * kernel_width, channels), to be added up. Taps that
// are next to each other share dy.
KERNEL void depthwise_weight_gradient(RANGE, ARRAY(const T) x, ARRAY(const T) dy, ARRAY(T) sums, int channels, int height,
                                      int width, int rows, int columns, int kernel_height, int kernel_width,
                                      int stride_down, int stride_across, int gap_down, int gap_across, int top, int left) {
    EACH_LANES(line, tap, channel, kernel_height * kernel_width, channels, 9) {
        const int run = RUN(9);
        int first = -left, taps = kernel_height * kernel_width;
        long long upstream = (long long)line * columns * channels + channel;
        int at[run];  // the column that a tap sees from the first window on
        long long seen[run];  // and where that is in x
        int low = 0, high = columns;  // the windows from which all of these taps see a pixel
        UNROLL for (int r = 0; r < run; r++) {
            int u = (tap + r) / kernel_width, h = line % rows * stride_down - top + u * gap_down;
            at[r] = first + (tap + r) % kernel_width * gap_across;
            bool some = tap + r < taps && h >= 0 && h < height;
            if (!some) at[r] = -columns * stride_across - width;  // which sees nothing
            seen[r] = ((long long)(line / rows * height + h) * width + at[r]) * channels + channel;
            if (!some) continue;
            while (low < columns && at[r] + low * stride_across < 0) low++;
            while (high > low && at[r] + (high - 1) * stride_across >= width) high--;
        }
        lanes sum[run] = {};
        for (int column = 0; column < columns; column++) {
            lanes dy_here = AT(dy, upstream + (long long)column * channels);
            long long further = (long long)column * stride_across * channels;
            bool all = column >= low && column < high;
            UNROLL for (int r = 0; r < run; r++) {
                int w = at[r] + column * stride_across;
                if (w >= 0 && (all || w < width)) sum[r] += dy_here * AT(x, seen[r] + further);
            }
        }
        UNROLL for (int r = 0; r < run; r++)
            if (tap + r < taps) AT(sums, ((long long)line * taps + tap + r) * channels + channel) = sum[r];
    }
}
