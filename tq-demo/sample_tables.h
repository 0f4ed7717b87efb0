/* turboquant-c-header 1
 * codec: prod3-orthogonal+rotated3-nc
 *
 * A coordinate y of the rotated unit vector has index i when boundaries[i] < y <= boundaries[i + 1], the
 * two ends open. qjl_scale is the bare alpha: a decoder divides by d. The sign of 0 is -1.
 * rht: rotated[i] = (H D x)[permutation[i]] / sqrt(d), D the signs, H the Hadamard matrix of order d.
 */
#ifndef TURBOQUANT_TABLES_H
#define TURBOQUANT_TABLES_H

#define TQ_ARTEFACT_SHA256 "2a47946a13ba5bce8582efb5346cd81e17892a11d3e32421d33505374beca01b"
#define TQ_MODEL "pylm-30m"
#define TQ_NUM_LAYERS 4
#define TQ_NUM_Q_HEADS 8
#define TQ_KEY_BASIS "post_rope"
#define TQ_SOFTMAX_SCALE 0x1.6a09e667f3bcdp-4

#define TQ_ROTATION_D128_KIND "rht"
#define TQ_ROTATION_D128_SEED 0ull
#define TQ_ROTATION_D128_SHA256 "ff468982023497114b12f11fd140986be0b5b773c4a1540ea2b6c498ae1ae83c"
static const signed char tq_rotation_d128_signs[128] = {
    1,
    1,
    -1,
    -1,
    -1,
    1,
    1,
    -1,
    1,
    -1,
    1,
    1,
    -1,
    -1,
    -1,
    -1,
    1,
    -1,
    -1,
    1,
    -1,
    1,
    1,
    1,
    -1,
    -1,
    -1,
    -1,
    1,
    -1,
    -1,
    -1,
    1,
    -1,
    1,
    1,
    -1,
    -1,
    1,
    -1,
    1,
    1,
    1,
    1,
    1,
    -1,
    1,
    -1,
    1,
    -1,
    1,
    -1,
    -1,
    -1,
    1,
    1,
    -1,
    1,
    1,
    1,
    -1,
    1,
    -1,
    -1,
    -1,
    -1,
    1,
    -1,
    1,
    -1,
    -1,
    1,
    1,
    1,
    -1,
    -1,
    1,
    -1,
    1,
    -1,
    -1,
    -1,
    1,
    1,
    1,
    1,
    1,
    -1,
    1,
    -1,
    -1,
    -1,
    1,
    1,
    1,
    -1,
    -1,
    -1,
    1,
    -1,
    -1,
    1,
    -1,
    1,
    -1,
    -1,
    -1,
    1,
    1,
    1,
    -1,
    -1,
    1,
    1,
    -1,
    -1,
    -1,
    1,
    -1,
    -1,
    1,
    1,
    1,
    1,
    -1,
    -1,
    1,
    1,
};
static const unsigned short tq_rotation_d128_permutation[128] = {
    119,
    123,
    56,
    58,
    33,
    117,
    66,
    16,
    89,
    91,
    53,
    104,
    30,
    3,
    7,
    12,
    62,
    36,
    118,
    34,
    102,
    107,
    64,
    23,
    14,
    105,
    4,
    106,
    97,
    54,
    120,
    115,
    111,
    72,
    85,
    59,
    109,
    38,
    0,
    10,
    124,
    79,
    99,
    47,
    32,
    24,
    76,
    20,
    87,
    51,
    2,
    78,
    18,
    29,
    100,
    26,
    101,
    37,
    27,
    77,
    50,
    31,
    81,
    52,
    116,
    46,
    122,
    71,
    55,
    22,
    1,
    92,
    42,
    39,
    127,
    95,
    121,
    94,
    114,
    70,
    73,
    25,
    9,
    60,
    45,
    126,
    63,
    21,
    80,
    93,
    125,
    75,
    74,
    28,
    69,
    65,
    43,
    8,
    112,
    83,
    68,
    35,
    57,
    96,
    11,
    40,
    98,
    19,
    67,
    6,
    49,
    15,
    5,
    84,
    41,
    13,
    82,
    17,
    44,
    61,
    108,
    88,
    48,
    90,
    103,
    113,
    86,
    110,
};

#define TQ_SKETCH_D128_KIND "orthogonal"
#define TQ_SKETCH_D128_SEED 0ull
#define TQ_SKETCH_D128_SHA256 "298a9d8400a8aa3be01ccb17b296c4ee22980d3aa5bfc8eaa9f2b7305de5f380"
static const signed char tq_sketch_d128_signs[128] = {
    1,
    -1,
    1,
    1,
    1,
    -1,
    -1,
    1,
    -1,
    1,
    -1,
    -1,
    -1,
    1,
    1,
    -1,
    1,
    -1,
    -1,
    1,
    -1,
    -1,
    -1,
    1,
    -1,
    1,
    1,
    -1,
    1,
    1,
    1,
    -1,
    -1,
    1,
    1,
    -1,
    1,
    1,
    1,
    1,
    -1,
    1,
    -1,
    1,
    1,
    1,
    -1,
    -1,
    -1,
    -1,
    -1,
    1,
    -1,
    1,
    1,
    -1,
    1,
    -1,
    -1,
    -1,
    -1,
    1,
    1,
    -1,
    -1,
    -1,
    1,
    -1,
    1,
    1,
    -1,
    -1,
    1,
    1,
    -1,
    -1,
    1,
    -1,
    -1,
    1,
    1,
    -1,
    -1,
    -1,
    -1,
    -1,
    1,
    1,
    -1,
    1,
    -1,
    1,
    -1,
    -1,
    -1,
    -1,
    1,
    -1,
    -1,
    1,
    -1,
    -1,
    -1,
    1,
    1,
    -1,
    1,
    1,
    1,
    -1,
    1,
    1,
    -1,
    1,
    1,
    1,
    -1,
    1,
    1,
    1,
    1,
    -1,
    1,
    -1,
    1,
    -1,
    -1,
    1,
};
static const unsigned short tq_sketch_d128_permutation[128] = {
    56,
    89,
    72,
    27,
    2,
    103,
    49,
    16,
    86,
    58,
    75,
    92,
    38,
    19,
    34,
    63,
    83,
    73,
    30,
    7,
    69,
    20,
    9,
    54,
    74,
    118,
    116,
    105,
    114,
    39,
    53,
    12,
    65,
    106,
    46,
    3,
    107,
    77,
    64,
    96,
    127,
    41,
    35,
    93,
    47,
    22,
    14,
    8,
    122,
    36,
    60,
    97,
    85,
    88,
    100,
    126,
    76,
    82,
    62,
    55,
    10,
    23,
    108,
    111,
    29,
    5,
    101,
    50,
    79,
    15,
    117,
    31,
    70,
    0,
    44,
    67,
    43,
    91,
    71,
    59,
    26,
    24,
    17,
    123,
    112,
    11,
    37,
    6,
    87,
    115,
    45,
    13,
    42,
    57,
    99,
    124,
    80,
    33,
    104,
    125,
    94,
    110,
    95,
    98,
    40,
    78,
    28,
    32,
    109,
    68,
    119,
    81,
    121,
    102,
    61,
    1,
    51,
    90,
    84,
    4,
    66,
    18,
    52,
    25,
    48,
    120,
    113,
    21,
};

/* Layer 0: prod3-orthogonal, rotated3-nc */
#define TQ_LAYER_000_HEAD_DIM 128
#define TQ_LAYER_000_KV_HEADS 2
#define TQ_LAYER_000_KEY_MODE "prod"
#define TQ_LAYER_000_KEY_SCALE "nc"
#define TQ_LAYER_000_KEY_SKETCH "orthogonal"
#define TQ_LAYER_000_KEY_TABLE_BITS 2
#define TQ_LAYER_000_KEY_TABLES 1
#define TQ_LAYER_000_KEY_SIGN_BIT 1
#define TQ_LAYER_000_VALUE_MODE "rotated"
#define TQ_LAYER_000_VALUE_SCALE "nc"
#define TQ_LAYER_000_VALUE_BITS 3
#define TQ_LAYER_000_VALUE_TABLES 1
#define TQ_LAYER_000_VALUE_GROUP_SIZE 32
/* The boundaries are the midpoints of neighbouring centroids. */
static const float tq_layer_000_key_b2_centroids[4] = {
    -0x1.0c4d86p-3f, /* -0.131007239 */
    -0x1.384948p-5f, /* -0.0381208807 */
    0x1.5d340cp-5f, /* 0.0426273569 */
    0x1.176ab6p-3f, /* 0.136434004 */
};
static const float tq_layer_000_key_b2_boundaries[5] = {
    -0x1p+0f, /* -1 */
    -0x1.5a5fd8p-4f, /* -0.08456406 */
    0x1.275624p-9f, /* 0.00225323858 */
    0x1.6eb7b8p-4f, /* 0.0895306766 */
    0x1p+0f, /* 1 */
};
static const float tq_layer_000_key_qjl_scale = 0x1.993d78p-1f; /* 0.799297094 */
/* The boundaries are the midpoints of neighbouring centroids. */
static const float tq_layer_000_value_b3_centroids[8] = {
    -0x1.820f8ep-3f, /* -0.188506231 */
    -0x1.eb3e68p-4f, /* -0.119932562 */
    -0x1.1853cp-4f, /* -0.0684392452 */
    -0x1.6fe72ap-6f, /* -0.0224550162 */
    0x1.416b2ep-6f, /* 0.0196178388 */
    0x1.042acep-4f, /* 0.0635173842 */
    0x1.d27f0ap-4f, /* 0.113890685 */
    0x1.7128dep-3f, /* 0.180253729 */
};
static const float tq_layer_000_value_b3_boundaries[9] = {
    -0x1p+0f, /* -1 */
    -0x1.3bd76p-3f, /* -0.154219389 */
    -0x1.81c914p-4f, /* -0.0941859037 */
    -0x1.744d8ap-5f, /* -0.0454471298 */
    -0x1.73dfdcp-10f, /* -0.00141858845 */
    0x1.54859ap-5f, /* 0.0415676124 */
    0x1.6b54ecp-4f, /* 0.0887040347 */
    0x1.2d3432p-3f, /* 0.147072211 */
    0x1p+0f, /* 1 */
};

/* Layer 1: prod3-orthogonal, rotated3-nc */
#define TQ_LAYER_001_HEAD_DIM 128
#define TQ_LAYER_001_KV_HEADS 2
#define TQ_LAYER_001_KEY_MODE "prod"
#define TQ_LAYER_001_KEY_SCALE "nc"
#define TQ_LAYER_001_KEY_SKETCH "orthogonal"
#define TQ_LAYER_001_KEY_TABLE_BITS 2
#define TQ_LAYER_001_KEY_TABLES 1
#define TQ_LAYER_001_KEY_SIGN_BIT 1
#define TQ_LAYER_001_VALUE_MODE "rotated"
#define TQ_LAYER_001_VALUE_SCALE "nc"
#define TQ_LAYER_001_VALUE_BITS 3
#define TQ_LAYER_001_VALUE_TABLES 1
#define TQ_LAYER_001_VALUE_GROUP_SIZE 32
/* The boundaries are the midpoints of neighbouring centroids. */
static const float tq_layer_001_key_b2_centroids[4] = {
    -0x1.107812p-3f, /* -0.133041516 */
    -0x1.479c74p-5f, /* -0.0399915949 */
    0x1.479c74p-5f, /* 0.0399915949 */
    0x1.107812p-3f, /* 0.133041516 */
};
static const float tq_layer_001_key_b2_boundaries[5] = {
    -0x1p+0f, /* -1 */
    -0x1.625f3p-4f, /* -0.0865165591 */
    0x0p+0f, /* 0 */
    0x1.625f3p-4f, /* 0.0865165591 */
    0x1p+0f, /* 1 */
};
static const float tq_layer_001_key_qjl_scale = 0x1.998da2p-1f; /* 0.799908698 */
/* The boundaries are the midpoints of neighbouring centroids. */
static const float tq_layer_001_value_b3_centroids[8] = {
    -0x1.81d662p-3f, /* -0.188397184 */
    -0x1.e3e686p-4f, /* -0.118139766 */
    -0x1.10bc12p-4f, /* -0.0665856078 */
    -0x1.61f70cp-6f, /* -0.0216043107 */
    0x1.61f70cp-6f, /* 0.0216043107 */
    0x1.10bc12p-4f, /* 0.0665856078 */
    0x1.e3e686p-4f, /* 0.118139766 */
    0x1.81d662p-3f, /* 0.188397184 */
};
static const float tq_layer_001_value_b3_boundaries[9] = {
    -0x1p+0f, /* -1 */
    -0x1.39e4d2p-3f, /* -0.153268471 */
    -0x1.7a514cp-4f, /* -0.092362687 */
    -0x1.6939d6p-5f, /* -0.0440949611 */
    0x0p+0f, /* 0 */
    0x1.6939d6p-5f, /* 0.0440949611 */
    0x1.7a514cp-4f, /* 0.092362687 */
    0x1.39e4d2p-3f, /* 0.153268471 */
    0x1p+0f, /* 1 */
};

/* Layer 2: prod3-orthogonal, rotated3-nc */
#define TQ_LAYER_002_HEAD_DIM 128
#define TQ_LAYER_002_KV_HEADS 2
#define TQ_LAYER_002_KEY_MODE "prod"
#define TQ_LAYER_002_KEY_SCALE "nc"
#define TQ_LAYER_002_KEY_SKETCH "orthogonal"
#define TQ_LAYER_002_KEY_TABLE_BITS 2
#define TQ_LAYER_002_KEY_TABLES 1
#define TQ_LAYER_002_KEY_SIGN_BIT 1
#define TQ_LAYER_002_VALUE_MODE "rotated"
#define TQ_LAYER_002_VALUE_SCALE "nc"
#define TQ_LAYER_002_VALUE_BITS 3
#define TQ_LAYER_002_VALUE_TABLES 1
#define TQ_LAYER_002_VALUE_GROUP_SIZE 32
/* The boundaries are the midpoints of neighbouring centroids. */
static const float tq_layer_002_key_b2_centroids[4] = {
    -0x1.107812p-3f, /* -0.133041516 */
    -0x1.479c74p-5f, /* -0.0399915949 */
    0x1.479c74p-5f, /* 0.0399915949 */
    0x1.107812p-3f, /* 0.133041516 */
};
static const float tq_layer_002_key_b2_boundaries[5] = {
    -0x1p+0f, /* -1 */
    -0x1.625f3p-4f, /* -0.0865165591 */
    0x0p+0f, /* 0 */
    0x1.625f3p-4f, /* 0.0865165591 */
    0x1p+0f, /* 1 */
};
static const float tq_layer_002_key_qjl_scale = 0x1.99f1c6p-1f; /* 0.80067271 */
/* The boundaries are the midpoints of neighbouring centroids. */
static const float tq_layer_002_value_b3_centroids[8] = {
    -0x1.843ab8p-3f, /* -0.189565122 */
    -0x1.e3165cp-4f, /* -0.117941245 */
    -0x1.0d8fc2p-4f, /* -0.0658109263 */
    -0x1.4fe9f2p-6f, /* -0.0205025543 */
    0x1.7a1d8p-6f, /* 0.0230783224 */
    0x1.17b7ccp-4f, /* 0.0682905167 */
    0x1.ebaec6p-4f, /* 0.120039724 */
    0x1.852f4p-3f, /* 0.190031528 */
};
static const float tq_layer_002_value_b3_boundaries[9] = {
    -0x1p+0f, /* -1 */
    -0x1.3ae2f4p-3f, /* -0.153753191 */
    -0x1.78531p-4f, /* -0.0918760896 */
    -0x1.618a4p-5f, /* -0.043156743 */
    0x1.519c74p-10f, /* 0.00128788431 */
    0x1.763f2cp-5f, /* 0.0456844196 */
    0x1.81b34ap-4f, /* 0.094165124 */
    0x1.3d8352p-3f, /* 0.15503563 */
    0x1p+0f, /* 1 */
};

/* Layer 3: prod3-orthogonal, rotated3-nc */
#define TQ_LAYER_003_HEAD_DIM 128
#define TQ_LAYER_003_KV_HEADS 2
#define TQ_LAYER_003_KEY_MODE "prod"
#define TQ_LAYER_003_KEY_SCALE "nc"
#define TQ_LAYER_003_KEY_SKETCH "orthogonal"
#define TQ_LAYER_003_KEY_TABLE_BITS 2
#define TQ_LAYER_003_KEY_TABLES 1
#define TQ_LAYER_003_KEY_SIGN_BIT 1
#define TQ_LAYER_003_VALUE_MODE "rotated"
#define TQ_LAYER_003_VALUE_SCALE "nc"
#define TQ_LAYER_003_VALUE_BITS 3
#define TQ_LAYER_003_VALUE_TABLES 1
#define TQ_LAYER_003_VALUE_GROUP_SIZE 32
/* The boundaries are the midpoints of neighbouring centroids. */
static const float tq_layer_003_key_b2_centroids[4] = {
    -0x1.0c891ap-3f, /* -0.131120875 */
    -0x1.43b7bap-5f, /* -0.0395163186 */
    0x1.4bdfdap-5f, /* 0.0405120142 */
    0x1.118d9cp-3f, /* 0.13357088 */
};
static const float tq_layer_003_key_b2_boundaries[5] = {
    -0x1p+0f, /* -1 */
    -0x1.5d7708p-4f, /* -0.0853185952 */
    0x1.05042p-11f, /* 0.000497848727 */
    0x1.648592p-4f, /* 0.0870414451 */
    0x1p+0f, /* 1 */
};
static const float tq_layer_003_key_qjl_scale = 0x1.9a9712p-1f; /* 0.801933825 */
/* The boundaries are the midpoints of neighbouring centroids. */
static const float tq_layer_003_value_b3_centroids[8] = {
    -0x1.81d662p-3f, /* -0.188397184 */
    -0x1.e3e686p-4f, /* -0.118139766 */
    -0x1.10bc12p-4f, /* -0.0665856078 */
    -0x1.61f70cp-6f, /* -0.0216043107 */
    0x1.61f70cp-6f, /* 0.0216043107 */
    0x1.10bc12p-4f, /* 0.0665856078 */
    0x1.e3e686p-4f, /* 0.118139766 */
    0x1.81d662p-3f, /* 0.188397184 */
};
static const float tq_layer_003_value_b3_boundaries[9] = {
    -0x1p+0f, /* -1 */
    -0x1.39e4d2p-3f, /* -0.153268471 */
    -0x1.7a514cp-4f, /* -0.092362687 */
    -0x1.6939d6p-5f, /* -0.0440949611 */
    0x0p+0f, /* 0 */
    0x1.6939d6p-5f, /* 0.0440949611 */
    0x1.7a514cp-4f, /* 0.092362687 */
    0x1.39e4d2p-3f, /* 0.153268471 */
    0x1p+0f, /* 1 */
};

#endif /* TURBOQUANT_TABLES_H */
