// Element-wise loops and column sums at one level; n and channels are
// multiples of W.

INLINE vec FN(load)(int type, const void *p, size_t i) {
    return type == MK_BF16 ? V_LOADH((const uint16_t *)p + i) : V_LOAD((const float *)p + i);
}

INLINE void FN(store)(int type, void *p, size_t i, vec v) {
    if (type == MK_BF16)
        V_STOREH((uint16_t *)p + i, v);
    else
        V_STORE((float *)p + i, v);
}

// BOTH runs a statement with T the type as a constant.
#define BOTH(statement)                \
    if (type == MK_BF16) {             \
        enum { T = MK_BF16 };          \
        statement;                     \
    } else {                           \
        enum { T = MK_F32 };           \
        statement;                     \
    }

// cast is between the two types.
static void FN(cast)(size_t from, size_t to, mk_type out, const void *src, void *dst) {
    if (out == MK_F32)
        for (size_t i = from; i < to; i += W) FN(store)(MK_F32, dst, i, FN(load)(MK_BF16, src, i));
    else
        for (size_t i = from; i < to; i += W) FN(store)(MK_BF16, dst, i, FN(load)(MK_F32, src, i));
}

static void FN(add)(size_t from, size_t to, mk_type type, const void *a, const void *b, void *y) {
    BOTH(for (size_t i = from; i < to; i += W) FN(store)(T, y, i, V_ADD(FN(load)(T, a, i), FN(load)(T, b, i))))
}

static void FN(relu)(size_t from, size_t to, mk_type type, const void *x, void *y) {
    BOTH(for (size_t i = from; i < to; i += W) FN(store)(T, y, i, V_RELU(FN(load)(T, x, i))))
}

static void FN(relu_grad)(size_t from, size_t to, mk_type type, const void *y, const void *dy, void *dx) {
    BOTH(for (size_t i = from; i < to; i += W)
             FN(store)(T, dx, i, V_POSITIVE(FN(load)(T, y, i), FN(load)(T, dy, i))))
}

static void FN(bias)(size_t from, size_t to, mk_type type, size_t rows, size_t ld, const void *x, const float *bias,
                     int relu, void *y) {
    for (size_t r = 0; r < rows; r++)
        for (size_t c = from; c < to; c += W) {
            vec v = V_ADD(FN(load)(type, x, r * ld + c), V_LOAD(bias + c));
            FN(store)(type, y, r * ld + c, relu ? V_RELU(v) : v);
        }
}

static void FN(bias_grad)(size_t from, size_t to, mk_type type, size_t rows, size_t ld, const void *dy, float *db) {
    for (size_t r = 0; r < rows; r++)
        for (size_t c = from; c < to; c += W) V_STORE(db + c, V_ADD(V_LOAD(db + c), FN(load)(type, dy, r * ld + c)));
}

// avgpool and its gradient, one image.
static void FN(avgpool)(size_t from, size_t to, mk_type type, size_t pixels, size_t ld, const void *x, mk_type out,
                        void *y) {
    for (size_t c = from; c < to; c += W) {
        vec sum = V_SET(0);
        for (size_t p = 0; p < pixels; p++) sum = V_ADD(sum, FN(load)(type, x, p * ld + c));
        FN(store)(out, y, c, V_MUL(sum, V_SET(1.0f / (float)pixels)));
    }
}

static void FN(avgpool_grad)(size_t from, size_t to, mk_type type, size_t pixels, size_t ld, mk_type in, const void *dy,
                             void *dx) {
    for (size_t p = 0; p < pixels; p++)
        for (size_t c = from; c < to; c += W)
            FN(store)(type, dx, p * ld + c, V_MUL(FN(load)(in, dy, c), V_SET(1.0f / (float)pixels)));
}
#undef BOTH
