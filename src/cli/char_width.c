/* char_width.c: see char_width.h. */
#include "cli/char_width.h"

#include <stddef.h>

int char_width(wchar_t c)
{
    static const struct {
        wchar_t low, high;
        int width;
    } ranges[] = {
        {0x0300, 0x036F, 0},   {0x200B, 0x200F, 0},   {0xFE00, 0xFE0F, 0},   {0x1100, 0x115F, 2},
        {0x2E80, 0xA4CF, 2},   {0xAC00, 0xD7A3, 2},   {0xF900, 0xFAFF, 2},   {0xFE30, 0xFE4F, 2},
        {0xFF00, 0xFF60, 2},   {0xFFE0, 0xFFE6, 2},   {0x1F300, 0x1F64F, 2}, {0x1F680, 0x1F6FF, 2},
        {0x1F900, 0x1FAFF, 2}, {0x20000, 0x3FFFD, 2},
    };
    int width = wcwidth(c);
    if (width >= 0)
        return width;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (ranges[i].low <= c && c <= ranges[i].high)
            return ranges[i].width;
    return 1;
}
