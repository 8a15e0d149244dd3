// What is done to maps value by value, channels last.

// The bias of each channel is added to y, and y clipped to low ... high, which is ReLU.
KERNEL void add_bias_and_clip(unsigned count, ARRAY(T) y, ARRAY(const T) bias, T low, T high, int channels) {
    EACH(i, count) {
        T value = y[i] + bias[i % channels];
        y[i] = value < low ? low : value > high ? high : value;
    }
}
