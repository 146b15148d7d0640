/* split_model.c: cuts a model into parts.
 *
 *     split_model MODEL.gguf STEM N
 *
 * writes STEM-00001-of-0000N.gguf and the others. */
#include "helpers/split_model.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    struct split_model_options options;
    runnel_error error;
    unsigned n_parts = argc == 4 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
    if (n_parts < 1 || n_parts > 99999) {
        fprintf(stderr, "usage: split_model MODEL.gguf STEM N\n");
        return 2;
    }
    split_model_defaults(&options, n_parts);
    if (split_model_write(&options, argv[1], argv[2], &error)) {
        fprintf(stderr, "split_model: %s\n", error.message);
        return 1;
    }
    return 0;
}
