// What several sources share. `lanes` is one T on a GPU, and on a CPU a vector of neighbouring channels (`source.py`).

// value, no lower than `low` and no higher than `high`; a NaN stays one.
LANES_DEVICE lanes clipped(lanes value, T low, T high) {
    lanes lowest = lanes() + low, highest = lanes() + high;
    value = value < lowest ? lowest : value;
    return value > highest ? highest : value;
}

// Which window of a stride begins `distance` pixels from the first, or -1: none does, or it is not among `count`.
DEVICE int window_at(int distance, int stride, int count) {
    if (distance < 0) return -1;
    int window = stride == 1 ? distance : stride == 2 ? distance >> 1 : distance / stride;
    return window * stride == distance && window < count ? window : -1;
}
