# embed_file(SOURCE_FILE NAME OUTPUT): writes to OUTPUT a C file that defines `const char NAME[]`, the bytes of SOURCE_FILE
# with a zero behind them, and `const size_t NAME_len`, their number. Made anew when SOURCE_FILE changes.
function(embed_file source name output)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
    file(READ ${source} hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
    string(REGEX REPLACE "(('\\\\x[0-9a-f][0-9a-f]',){16})" "\\1\n" bytes "${bytes}")
    file(CONFIGURE OUTPUT ${output} @ONLY CONTENT
"/* Generated from ${source}. */
#include <stddef.h>
extern const char ${name}[];
extern const size_t ${name}_len;
const char ${name}[] = {${bytes}0};
const size_t ${name}_len = sizeof ${name} - 1;
")
endfunction()
