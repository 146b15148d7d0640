/* matmul_body.h: the outer loops of products. Included by files of inner loops, after these; wants from them
 * ROWS_AT_ONCE and TILES_AT_ONCE.
 *
 * A call goes through a few tiles at a time: a group of activation rows, once in L1, is used for each of
 * them, and the tiles stay in L2 for the next group. */

static void matmul_tiles(const struct product *p, uint32_t tile_begin, uint32_t tile_end, uint32_t n_acts,
                         rows_function *const *functions)
{
    uint32_t n_groups = (n_acts + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    uint32_t smaller = n_acts / n_groups, n_larger = n_acts % n_groups; /* groups of nearly equal size */
    for (uint32_t first = tile_begin; first < tile_end; first += TILES_AT_ONCE) {
        uint32_t last = tile_end - first < TILES_AT_ONCE ? tile_end : first + TILES_AT_ONCE;
        for (uint32_t group = 0, row = 0; group < n_groups; group++) {
            uint32_t n_rows = smaller + (group < n_larger);
            for (uint32_t tile = first; tile < last; tile++)
                functions[n_rows - 1](p, tile, row);
            row += n_rows;
        }
    }
}

/* A function of the table, made of a list of functions for 1 to ROWS_AT_ONCE rows; inputs come in blocks of block_values. */
#define MATMUL_ENTRY(name, block_values, functions) static MATMUL_FUNCTION(name, block_values, functions)
#define MATMUL_FUNCTION(name, block_values, functions)                                                       \
    void name(const struct matmul_args *args, uint32_t tile_begin, uint32_t tile_end)                        \
    {                                                                                                        \
        const struct product p = product_of(args, block_values);                                             \
        matmul_tiles(&p, tile_begin, tile_end, args->n_acts, functions);                                     \
    }
