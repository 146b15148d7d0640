/* fuzz_gbnf.c: arbitrary grammars, and texts that keep to them. Input: see constrain_walk.h. */
#include "constrain/gbnf.h"
#include "helpers/constrain_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    constrain_walk(gbnf_grammar, data, size, NULL);
    return 0;
}
