/* size_text.c: see size_text.h. */
#include "cli/size_text.h"

#include <stdbool.h>
#include <stdio.h>

static bool has_tenths(double value)
{
    return (long)(value * 10 + 0.5) % 10 != 0;
}

/* giga_places: digits behind the point of gigabytes and more. */
static const char *format(uint64_t n_bytes, int giga_places, char text[SIZE_TEXT_BYTES])
{
    double kilo = (double)n_bytes / 1e3, mega = kilo / 1e3, giga = mega / 1e3, tera = giga / 1e3;
    if (n_bytes < 1000)
        snprintf(text, SIZE_TEXT_BYTES, "%d B", (int)n_bytes);
    else if (kilo < 999.5) /* what rounds to 1000 has the next unit */
        snprintf(text, SIZE_TEXT_BYTES, "%.0f kB", kilo);
    else if (mega < 999.5)
        snprintf(text, SIZE_TEXT_BYTES, "%.*f MB", mega < 9.95 && has_tenths(mega), mega);
    else if (giga < 999.5)
        snprintf(text, SIZE_TEXT_BYTES, "%.*f GB", giga < 9.95 ? giga_places : giga_places - 1, giga);
    else
        snprintf(text, SIZE_TEXT_BYTES, "%.*f TB", tera < 9.95 ? giga_places : giga_places - 1, tera);
    return text;
}

const char *size_text(uint64_t n_bytes, char text[SIZE_TEXT_BYTES])
{
    return format(n_bytes, 1, text);
}

const char *size_text_growing(uint64_t n_bytes, char text[SIZE_TEXT_BYTES])
{
    return format(n_bytes, 2, text);
}
