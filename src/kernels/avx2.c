#include "kernels/shared.h"

bool kernels_fill_avx2(struct kernels *kernels)
{
    kernels->name = "avx2";
    return cpu_has_avx2();
}
