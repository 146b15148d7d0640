/* matrices.cl: which of up to three matrices a group of a product works on, and what becomes of a sum. Groups: the tiles of all
 * matrices, one after the other; rows of activations, N at a time. */

#define MATRIX_IN(i)                                                                                                   \
    IN(uchar, tiles##i), IN(float, bias##i), OUT(float, out##i), uint type##i, uint n_rows##i
#define MATRICES_IN MATRIX_IN(0), MATRIX_IN(1), MATRIX_IN(2)

/* Declares those of a tile, counted over all matrices: tiles, bias, out, type, n_rows, and tile, counted from its matrix's first. */
#define MATRIX_OF_TILE(number)                                                                                         \
    GLOBAL const uchar *tiles = AT(uchar, tiles0);                                                                     \
    GLOBAL const float *bias = HAS(bias0) ? AT(float, bias0) : 0;                                                      \
    GLOBAL float *out = OUT_AT(float, out0);                                                                           \
    uint type = type0, n_rows = n_rows0, tile = number;                                                                \
    if (tile >= (n_rows0 + 15) / 16) {                                                                                 \
        tile -= (n_rows0 + 15) / 16;                                                                                   \
        tiles = AT(uchar, tiles1);                                                                                     \
        bias = HAS(bias1) ? AT(float, bias1) : 0;                                                                      \
        out = OUT_AT(float, out1);                                                                                     \
        type = type1;                                                                                                  \
        n_rows = n_rows1;                                                                                              \
        if (tile >= (n_rows1 + 15) / 16) {                                                                             \
            tile -= (n_rows1 + 15) / 16;                                                                               \
            tiles = AT(uchar, tiles2);                                                                                 \
            bias = HAS(bias2) ? AT(float, bias2) : 0;                                                                  \
            out = OUT_AT(float, out2);                                                                                 \
            type = type2;                                                                                              \
            n_rows = n_rows2;                                                                                          \
        }                                                                                                              \
    }

#define MATRIX_OF_GROUP MATRIX_OF_TILE(GROUP_X)

/* One output: the bias comes after the sum, the old value after the bias. */
FUNCTION void store_output(GLOBAL float *out, float sum, GLOBAL const float *bias, uint column, uint add)
{
    if (bias)
        sum += bias[column];
    out[column] = add ? sum + out[column] : sum;
}
