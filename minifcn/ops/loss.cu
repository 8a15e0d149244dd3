// Softmax cross-entropy. logits (n, classes, height, width); label, share and loss (n, height, width). A line is a row of an image.

// A pixel's probabilities, and its loss  -share * log softmax(logits)[label]. Where the share is 0, so is the loss.
KERNEL void softmax_cross_entropy(RANGE, ARRAY(const T) logits, ARRAY(const WHOLE) label, ARRAY(const T) share,
                                  ARRAY(T) probabilities, ARRAY(T) loss, int classes, int height, int width) {
    EACH_LANES(line, column, w, 1, width, 1) {
        long long plane = (long long)height * width, pixel = (long long)line * width + w;
        long long first = (line / height * classes * (long long)height + line % height) * width + w;
        lanes highest = AT(logits, first), total = lanes(), of_label = lanes();
        for (int k = 1; k < classes; k++) {
            lanes value = AT(logits, first + k * plane);
            highest = value > highest ? value : highest;
        }
        for (int k = 0; k < classes; k++) {
            lanes shifted = AT(logits, first + k * plane) - highest, value = exponential(shifted);
            AT(probabilities, first + k * plane) = value;
            total += value;
            of_label = AT(label, pixel) == k ? shifted : of_label;
        }
        for (int k = 0; k < classes; k++) AT(probabilities, first + k * plane) = AT(probabilities, first + k * plane) / total;
        lanes weight = AT(share, pixel);
        AT(loss, pixel) = weight == T(0) ? lanes() : (logarithm(total) - of_label) * weight;
    }
}

// dlogits = share * (probabilities - one-hot label); the share has been multiplied by dloss.
KERNEL void softmax_cross_entropy_gradient(RANGE, ARRAY(const T) probabilities, ARRAY(const WHOLE) label,
                                           ARRAY(const T) share, ARRAY(T) dlogits, int classes, int height, int width) {
    EACH_LANES(line, k, w, classes, width, 1) {
        long long pixel = (long long)line * width + w;
        long long i = ((line / height * (long long)classes + k) * height + line % height) * width + w;
        lanes probability = AT(probabilities, i), weight = AT(share, pixel);
        lanes gradient = weight * (AT(label, pixel) == k ? probability - T(1) : probability);
        AT(dlogits, i) = weight == T(0) ? lanes() : gradient;  // also if a score is no number
    }
}
