// An update of a parameter's values, each with its state, in place. The formulas are in optimizers.py.

KERNEL void sgd(RANGE, ARRAY(T) value, ARRAY(const T) gradient, ARRAY(T) velocity, T momentum, T rate, T rate_of_decay) {
    EACH(i) {
        lanes step = momentum * AT(velocity, i) + rate * AT(gradient, i) + rate_of_decay * AT(value, i);
        AT(velocity, i) = step;
        AT(value, i) -= step;
    }
}

// shrink: the factor that the decoupled decay puts on a value; decay: what of it is added to the gradient instead. share1, share2:
// 1 - beta1 and 1 - beta2, which float32 would round too much. bias1, bias2: the corrections of the two moments.
KERNEL void adam(RANGE, ARRAY(T) value, ARRAY(const T) gradient, ARRAY(T) first, ARRAY(T) second, T rate, T shrink, T decay,
                 T beta1, T beta2, T share1, T share2, T bias1, T bias2, T eps) {
    EACH(i) {
        lanes g = AT(gradient, i) + decay * AT(value, i);
        lanes mean = beta1 * AT(first, i) + share1 * g, square = beta2 * AT(second, i) + share2 * g * g;
        AT(first, i) = mean;
        AT(second, i) = square;
        AT(value, i) = shrink * AT(value, i) - rate / bias1 * mean / (square_root(square / bias2) + eps);
    }
}
