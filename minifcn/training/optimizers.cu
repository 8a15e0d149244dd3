// An update of a parameter's values, each with its state, in place. The formulas are in optimizers.py.

KERNEL void sgd(unsigned count, ARRAY(T) value, ARRAY(const T) gradient, ARRAY(T) velocity, T momentum, T rate,
                T rate_of_decay) {
    EACH(i, count) {
        velocity[i] = momentum * velocity[i] + rate * gradient[i];
        if (rate_of_decay != 0) velocity[i] += rate_of_decay * value[i];
        value[i] -= velocity[i];
    }
}

// shrink: the factor that the decoupled decay puts on a value; decay: what of it is added to the gradient instead. share1, share2:
// 1 - beta1 and 1 - beta2, which float32 would round too much. bias1, bias2: the corrections of the two moments.
KERNEL void adam(unsigned count, ARRAY(T) value, ARRAY(const T) gradient, ARRAY(T) first, ARRAY(T) second, T rate, T shrink,
                 T decay, T beta1, T beta2, T share1, T share2, T bias1, T bias2, T eps) {
    EACH(i, count) {
        T g = decay != 0 ? gradient[i] + decay * value[i] : gradient[i];
        first[i] = beta1 * first[i] + share1 * g;
        second[i] = beta2 * second[i] + share2 * g * g;
        value[i] = shrink * value[i] - rate / bias1 * first[i] / (sqrt(second[i] / bias2) + eps);
    }
}
