#include "kernels/shared.h"

bool kernels_fill_avx512(struct kernels *kernels)
{
    (void) kernels;
    return false;
}
