# Compiles device code to PTX, and PTX to a C file. A script: cmake -DCLANG= -DARCH= -DSOURCES=a,b,c -DNAME= -DPTX= -DOUTPUT= -P ptx.cmake
include(${CMAKE_CURRENT_LIST_DIR}/embed.cmake)
string(REPLACE "," ";" sources "${SOURCES}")
list(POP_BACK sources last)
set(included "")
foreach(source ${sources})
    list(APPEND included -include ${source})
endforeach()
# The oldest version of PTX that has what is used: a driver takes those that are no newer than itself.
set(version ptx63)
if(ARCH GREATER_EQUAL 80)
    set(version ptx70)
endif()
# Nothing is contracted to a fused multiply-add that does not say so: bits must be those of the CPU.
execute_process(COMMAND ${CLANG} -target nvptx64-nvidia-cuda -x cl -cl-std=CL1.2 -cl-no-stdinc -ffp-contract=off -O3
    -Xclang -target-cpu -Xclang sm_${ARCH} -Xclang -target-feature -Xclang +${version} ${included} -S -o ${PTX} ${last}
    COMMAND_ERROR_IS_FATAL ANY)
# No group has more than 256 work items; clang has no attribute that says so.
file(READ ${PTX} text)
string(REGEX REPLACE "(\\.visible \\.entry [^{]*\\))" "\\1\n.maxntid 256, 1, 1" text "${text}")
file(WRITE ${PTX} "${text}")
embed_file(${PTX} ${NAME} ${OUTPUT})
