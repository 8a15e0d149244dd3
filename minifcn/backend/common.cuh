// What several sources share. `lanes` is one T on a GPU, and on a CPU a vector of neighbouring channels (`source.py`).

// Whether a number is neither infinite nor NaN.
DEVICE bool is_bounded(T x) { return x - x == 0; }

// value, no lower than `low` and no higher than `high`; a NaN stays one.
LANES_DEVICE lanes clipped(lanes value, T low, T high) {
    lanes lowest = lanes() + low, highest = lanes() + high;
    value = value < lowest ? lowest : value;
    return value > highest ? highest : value;
}

// whole / part, for whole >= 0; the division takes long, and most windows move by 1 or 2.
DEVICE int divided(int whole, int part) { return part == 1 ? whole : part == 2 ? whole >> 1 : whole / part; }

// The windows that a pixel can lie in, first ... last of `count`: `place` is the pixel's, counted from the first window's
// begin, and `reach` how far a window reaches.
DEVICE int first_window(int place, int reach, int stride) { return place < reach ? 0 : divided(place - reach, stride) + 1; }
DEVICE int last_window(int place, int stride, int count) {
    int last = divided(place, stride);
    return last < count ? last : count - 1;
}

// Which tap of a window sees the pixel `offset` behind its begin, or -1: it lies in a gap.
DEVICE int tap_at(int offset, int gap) {
    int tap = divided(offset, gap);
    return tap * gap == offset ? tap : -1;
}
