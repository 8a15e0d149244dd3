// Patches for a convolution as a matrix product, and their adjoint. A patch has a value for each tap (of kernel_height x
// kernel_width) and each channel of a group; tap_step and channel_step say how far apart they are.

// x (n, height, width, all_channels) -> patches (pixels, taps * channels) of `rows` output rows, which look at the image from
// `top` rows before it on (top = pad - first row * stride), and of the channels from first_channel on. Outside of it is 0.
KERNEL void gather_patches(RANGE, ARRAY(const T) x, ARRAY(T) patches, int height, int width, int all_channels,
                           int first_channel, int channels, int tap_step, int channel_step, int kernel_height,
                           int kernel_width, int stride_down, int stride_across, int gap_down, int gap_across, int top,
                           int left, int rows, int columns) {
    EACH(i) {
        int taps = kernel_height * kernel_width;
        int tap = i / tap_step % taps, channel = i / channel_step % channels;
        unsigned pixel = i / taps / channels;
        int row = int(pixel / columns % rows) * stride_down + tap / kernel_width * gap_down - top;
        int column = int(pixel % columns) * stride_across + tap % kernel_width * gap_across - left;
        long long image = (long long)(pixel / columns / rows) * height;
        bool inside = row >= 0 && row < height && column >= 0 && column < width;
        patches[i] = inside ? x[((image + row) * width + column) * all_channels + first_channel + channel] : T(0);
    }
}

// The adjoint: to each pixel and channel of dx the values of all patches that would have been taken from it are added.
KERNEL void add_patches(RANGE, ARRAY(const T) patches, ARRAY(T) dx, int height, int width, int all_channels,
                        int first_channel, int channels, int tap_step, int channel_step, int kernel_height,
                        int kernel_width, int stride_down, int stride_across, int gap_down, int gap_across, int top,
                        int left, int rows, int columns) {
    EACH(i) {
        int channel = i % channels;
        unsigned pixel = i / channels;
        int row = int(pixel / width % height) + top, column = int(pixel % width) + left;
        long long image = (long long)(pixel / width / height) * rows;
        T sum = 0;
        for (int u = 0; u < kernel_height; u++) {
            int down = row - u * gap_down;
            if (down < 0 || down % stride_down || down / stride_down >= rows) continue;
            for (int v = 0; v < kernel_width; v++) {
                int across = column - v * gap_across;
                if (across < 0 || across % stride_across || across / stride_across >= columns) continue;
                long long patch = (image + down / stride_down) * columns + across / stride_across;
                int value = (u * kernel_width + v) * tap_step + channel * channel_step;
                sum += patches[patch * kernel_height * kernel_width * channels + value];
            }
        }
        dx[(long long)pixel * all_channels + first_channel + channel] += sum;
    }
}
