// What is done to maps value by value.

// The bias of each channel is added to y (pixels, channels), and y clipped to low ... high, which is ReLU.
KERNEL void add_bias_and_clip(RANGE, ARRAY(T) y, ARRAY(const T) bias, T low, T high, int channels) {
    EACH_LANES(pixel, column, channel, 1, channels, 1) {
        long long i = (long long)pixel * channels + channel;
        AT(y, i) = clipped(AT(y, i) + AT(bias, channel), low, high);
    }
}

// dx = dy where the clipping let x through, which is where y is neither low nor high.
KERNEL void clip_gradient(RANGE, ARRAY(const T) y, ARRAY(const T) dy, ARRAY(T) dx, T low, T high) {
    EACH(i) {
        lanes value = AT(y, i), upstream = AT(dy, i);
        lanes above = value > low ? upstream : lanes();
        if (is_bounded(high)) above = value < high ? above : lanes();
        AT(dx, i) = above;
    }
}
