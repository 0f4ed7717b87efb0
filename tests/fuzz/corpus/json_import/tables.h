/* turboquant-c-header 1
 * codec: mixed
 *
 * A coordinate y of the rotated unit vector has index i when boundaries[i] < y <= boundaries[i + 1], the
 * two ends open. qjl_scale is the bare alpha: a decoder divides by d. The sign of 0 is -1.
 * rht: rotated[i] = (H D x)[permutation[i]] / sqrt(d), D the signs, H the Hadamard matrix of order d.
 */
#ifndef TURBOQUANT_TABLES_H
#define TURBOQUANT_TABLES_H

#define TQ_ARTEFACT_SHA256 "3fcdbdbaf04706a835bfce9b9019d023519a26343606f2e107acbce7b6810e1c"
#define TQ_MODEL "a model"
#define TQ_NUM_LAYERS 3
#define TQ_NUM_Q_HEADS 4
#define TQ_KEY_BASIS "pre_rope"
#define TQ_SOFTMAX_SCALE 0x1.8p-3
#define TQ_RECENT_WINDOW 64
#define TQ_FIRST_TOKENS 4

#define TQ_ROTATION_D16_KIND "rht"
#define TQ_ROTATION_D16_SEED 18446744073709551615ull
#define TQ_ROTATION_D16_SHA256 "4706be46d5c569868033f8136317c6b9d73b309d70182b645cc021ce798a4389"
static const signed char tq_rotation_d16_signs[16] = {
    1, 1, 1, -1, 1, -1, -1, 1, 1, 1, 1, 1, -1, -1, 1, 1,
};
static const unsigned short tq_rotation_d16_permutation[16] = {
    1, 8, 5, 13, 15, 12, 4, 2, 11, 10, 7, 0, 6, 9, 3, 14,
};

#define TQ_ROTATION_D24_KIND "rht"
#define TQ_ROTATION_D24_SEED 18446744073709551615ull
#define TQ_ROTATION_D24_SHA256 "b1dca08b5e4282aadcec7cfa52d355a50c1bc8d6d55201f997aaf167e6c6d0c7"
static const signed char tq_rotation_d24_signs[24] = {
    1, 1, 1, -1, 1, -1, -1, 1, 1, 1, 1, 1, -1, -1, 1, 1, 1, -1, 1, -1, 1, 1, 1, 1,
};
static const unsigned short tq_rotation_d24_permutation[24] = {
    19, 6, 23, 13, 8, 2, 18, 3, 22, 16, 17, 7, 9, 11, 20, 4, 0, 14, 12, 1, 10, 15, 5, 21,
};

#define TQ_SKETCH_D16_KIND "gaussian"
#define TQ_SKETCH_D16_SEED 2ull
#define TQ_SKETCH_D16_SHA256 "000b03ee6182b81bace832ee0cbb547b189e0b5e14ac28cde492f703a8ea4253"

#define TQ_SKETCH_D24_KIND "orthogonal"
#define TQ_SKETCH_D24_SEED 3ull
#define TQ_SKETCH_D24_SHA256 "736389cae64645f2ec93c69b57e86b9fcfc4758a527ff3ab637c36a89deb23d7"
static const signed char tq_sketch_d24_signs[24] = {
    1, -1, -1, 1, -1, 1, -1, -1, 1, -1, -1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, 1,
};
static const unsigned short tq_sketch_d24_permutation[24] = {
    6, 13, 7, 0, 5, 2, 1, 4, 20, 22, 8, 9, 3, 17, 14, 18, 15, 23, 12, 19, 10, 16, 11, 21,
};

/* Layer 0: prod3-gaussian, rotated2-ls */
#define TQ_LAYER_000_HEAD_DIM 16
#define TQ_LAYER_000_KV_HEADS 2
#define TQ_LAYER_000_KEY_MODE "prod"
#define TQ_LAYER_000_KEY_SCALE "nc"
#define TQ_LAYER_000_KEY_SKETCH "gaussian"
#define TQ_LAYER_000_KEY_TABLE_BITS 2
#define TQ_LAYER_000_KEY_TABLES 2
#define TQ_LAYER_000_KEY_SIGN_BIT 1
#define TQ_LAYER_000_VALUE_MODE "rotated"
#define TQ_LAYER_000_VALUE_SCALE "ls"
#define TQ_LAYER_000_VALUE_BITS 2
#define TQ_LAYER_000_VALUE_TABLES 2
#define TQ_LAYER_000_VALUE_GROUP_SIZE 32
/* The boundaries are the midpoints of neighbouring centroids. */
static const float tq_layer_000_head_00_key_b2_centroids[4] = {
    -0x1.d4p-3f, /* -0.228515625 */
    -0x1.dp-5f,  /* -0.056640625 */
    0x1.dp-5f,   /* 0.056640625 */
    0x1.d4p-3f,  /* 0.228515625 */
};
static const float tq_layer_000_head_00_key_b2_boundaries[5] = {
    -0x1p+0f,    /* -1 */
    -0x1.24p-3f, /* -0.142578125 */
    0x0p+0f,     /* 0 */
    0x1.24p-3f,  /* 0.142578125 */
    0x1p+0f,     /* 1 */
};
static const float tq_layer_000_head_00_key_qjl_scale = 0x1.8p-1f; /* 0.75 */
/* The boundaries are NOT the midpoints of neighbouring centroids. */
static const float tq_layer_000_head_01_key_b2_centroids[4] = {
    -0x1.d4p-3f, /* -0.228515625 */
    -0x1.dp-5f,  /* -0.056640625 */
    0x1.dp-5f,   /* 0.056640625 */
    0x1.d4p-3f,  /* 0.228515625 */
};
static const float tq_layer_000_head_01_key_b2_boundaries[5] = {
    -0x1p+0f,    /* -1 */
    -0x1.7cp-3f, /* -0.185546875 */
    -0x1.dp-6f,  /* -0.0283203125 */
    0x1.98p-4f,  /* 0.099609375 */
    0x1p+0f,     /* 1 */
};
static const float tq_layer_000_head_01_key_qjl_scale = 0x1.4p+0f; /* 1.25 */
/* The boundaries are NOT the midpoints of neighbouring centroids. */
static const float tq_layer_000_head_00_value_b2_centroids[4] = {
    -0x1.d4p-3f, /* -0.228515625 */
    -0x1.dp-5f,  /* -0.056640625 */
    0x1.dp-5f,   /* 0.056640625 */
    0x1.d4p-3f,  /* 0.228515625 */
};
static const float tq_layer_000_head_00_value_b2_boundaries[5] = {
    -0x1p+0f,    /* -1 */
    -0x1.7cp-3f, /* -0.185546875 */
    -0x1.dp-6f,  /* -0.0283203125 */
    0x1.98p-4f,  /* 0.099609375 */
    0x1p+0f,     /* 1 */
};
/* The boundaries are the midpoints of neighbouring centroids. */
static const float tq_layer_000_head_01_value_b2_centroids[4] = {
    -0x1.d4p-3f, /* -0.228515625 */
    -0x1.dp-5f,  /* -0.056640625 */
    0x1.dp-5f,   /* 0.056640625 */
    0x1.d4p-3f,  /* 0.228515625 */
};
static const float tq_layer_000_head_01_value_b2_boundaries[5] = {
    -0x1p+0f,    /* -1 */
    -0x1.24p-3f, /* -0.142578125 */
    0x0p+0f,     /* 0 */
    0x1.24p-3f,  /* 0.142578125 */
    0x1p+0f,     /* 1 */
};

/* Layer 1: mse2-norm, group3-gs8 */
#define TQ_LAYER_001_HEAD_DIM 24
#define TQ_LAYER_001_KV_HEADS 1
#define TQ_LAYER_001_KEY_MODE "mse"
#define TQ_LAYER_001_KEY_SCALE "norm"
#define TQ_LAYER_001_KEY_SKETCH "orthogonal"
#define TQ_LAYER_001_KEY_TABLE_BITS 2
#define TQ_LAYER_001_KEY_TABLES 1
#define TQ_LAYER_001_KEY_SIGN_BIT 0
#define TQ_LAYER_001_VALUE_MODE "group"
#define TQ_LAYER_001_VALUE_SCALE "nc"
#define TQ_LAYER_001_VALUE_BITS 3
#define TQ_LAYER_001_VALUE_TABLES 0
#define TQ_LAYER_001_VALUE_GROUP_SIZE 8
/* The boundaries are the midpoints of neighbouring centroids. */
static const float tq_layer_001_key_b2_centroids[4] = {
    -0x1.d4p-3f, /* -0.228515625 */
    -0x1.dp-5f,  /* -0.056640625 */
    0x1.dp-5f,   /* 0.056640625 */
    0x1.d4p-3f,  /* 0.228515625 */
};
static const float tq_layer_001_key_b2_boundaries[5] = {
    -0x1p+0f,    /* -1 */
    -0x1.24p-3f, /* -0.142578125 */
    0x0p+0f,     /* 0 */
    0x1.24p-3f,  /* 0.142578125 */
    0x1p+0f,     /* 1 */
};
static const float tq_layer_001_key_qjl_scale = 0x0p+0f; /* 0 */

/* Layer 2: prod2-orthogonal, rotated3-nc */
#define TQ_LAYER_002_HEAD_DIM 24
#define TQ_LAYER_002_KV_HEADS 4
#define TQ_LAYER_002_KEY_MODE "prod"
#define TQ_LAYER_002_KEY_SCALE "nc"
#define TQ_LAYER_002_KEY_SKETCH "orthogonal"
#define TQ_LAYER_002_KEY_TABLE_BITS 1
#define TQ_LAYER_002_KEY_TABLES 1
#define TQ_LAYER_002_KEY_SIGN_BIT 1
#define TQ_LAYER_002_VALUE_MODE "rotated"
#define TQ_LAYER_002_VALUE_SCALE "nc"
#define TQ_LAYER_002_VALUE_BITS 3
#define TQ_LAYER_002_VALUE_TABLES 1
#define TQ_LAYER_002_VALUE_GROUP_SIZE 32
/* The boundaries are the midpoints of neighbouring centroids. */
static const float tq_layer_002_key_b1_centroids[2] = {
    -0x1.1p-3f, /* -0.1328125 */
    0x1.1p-3f,  /* 0.1328125 */
};
static const float tq_layer_002_key_b1_boundaries[3] = {
    -0x1p+0f, /* -1 */
    0x0p+0f,  /* 0 */
    0x1p+0f,  /* 1 */
};
static const float tq_layer_002_key_qjl_scale = 0x1p-1f; /* 0.5 */
/* The boundaries are the midpoints of neighbouring centroids. */
static const float tq_layer_002_value_b3_centroids[8] = {
    -0x1.228p-2f, /* -0.283691406 */
    -0x1.6dp-3f,  /* -0.178222656 */
    -0x1.7ap-4f,  /* -0.0922851562 */
    -0x1.a8p-6f,  /* -0.0258789062 */
    0x1.a8p-6f,   /* 0.0258789062 */
    0x1.7ap-4f,   /* 0.0922851562 */
    0x1.6dp-3f,   /* 0.178222656 */
    0x1.228p-2f,  /* 0.283691406 */
};
static const float tq_layer_002_value_b3_boundaries[9] = {
    -0x1p+0f,    /* -1 */
    -0x1.d9p-3f, /* -0.230957031 */
    -0x1.15p-3f, /* -0.135253906 */
    -0x1.e4p-5f, /* -0.0590820312 */
    0x0p+0f,     /* 0 */
    0x1.e4p-5f,  /* 0.0590820312 */
    0x1.15p-3f,  /* 0.135253906 */
    0x1.d9p-3f,  /* 0.230957031 */
    0x1p+0f,     /* 1 */
};

#endif /* TURBOQUANT_TABLES_H */
