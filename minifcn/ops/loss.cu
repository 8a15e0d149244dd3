// Softmax cross-entropy. logits (n, classes, pixels); label, share and loss (n, pixels).

// A pixel's probabilities, and its loss  -share * log softmax(logits)[label]. Where the share is 0, so is the loss.
KERNEL void softmax_cross_entropy(RANGE, ARRAY(const T) logits, ARRAY(const long long) label,
                                  ARRAY(const T) share, ARRAY(T) probabilities, ARRAY(T) loss, int classes, int pixels) {
    EACH(i) {
        long long first = (long long)(i / pixels) * classes * pixels + i % pixels;
        T highest = logits[first], total = 0;
        for (int k = 1; k < classes; k++) {
            T value = logits[first + (long long)k * pixels];
            if (value > highest) highest = value;
        }
        for (int k = 0; k < classes; k++) {
            T value = exp(logits[first + (long long)k * pixels] - highest);
            probabilities[first + (long long)k * pixels] = value;
            total += value;
        }
        for (int k = 0; k < classes; k++) probabilities[first + (long long)k * pixels] /= total;
        T log_likelihood = logits[first + label[i] * pixels] - highest - log(total);
        loss[i] = share[i] == 0 ? T(0) : -log_likelihood * share[i];
    }
}

// dlogits = share * (probabilities - one-hot label); the share has been multiplied by dloss.
KERNEL void softmax_cross_entropy_gradient(RANGE, ARRAY(const T) probabilities, ARRAY(const long long) label,
                                           ARRAY(const T) share, ARRAY(T) dlogits, int classes, int pixels) {
    EACH(i) {
        unsigned pixel = i / (classes * pixels) * pixels + i % pixels;
        int k = i / pixels % classes;
        dlogits[i] = share[pixel] * (probabilities[i] - T(label[pixel] == k));
    }
}
