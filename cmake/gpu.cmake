# Device code (src/gpu/device) into the program: as text, which OpenCL's drivers compile when it is first used, and as PTX, where there is
# a clang that can make it. The pieces of a program, as src/gpu/programs.c has them:
set(gpu_pieces_embed tiles embed)
set(gpu_pieces_layer acts layer)
set(gpu_pieces_attention acts attention)
set(gpu_pieces_product_k tiles matrices product_k)
set(gpu_pieces_product_32 tiles matrices product_32)
set(gpu_pieces_product_float matrices product_float)
set(gpu_programs embed layer attention product_k product_32 product_float)
set(gpu_device ${PROJECT_SOURCE_DIR}/src/gpu/device)

include(cmake/embed.cmake)
embed_file(${PROJECT_SOURCE_DIR}/src/gpu/layout.h gpu_text_layout ${PROJECT_BINARY_DIR}/generated/gpu_text_layout.c)
set(gpu_generated ${PROJECT_BINARY_DIR}/generated/gpu_text_layout.c)
foreach(piece opencl common tiles acts matrices embed layer attention product_k product_32 product_float)
    embed_file(${gpu_device}/${piece}.cl gpu_text_${piece} ${PROJECT_BINARY_DIR}/generated/gpu_text_${piece}.c)
    list(APPEND gpu_generated ${PROJECT_BINARY_DIR}/generated/gpu_text_${piece}.c)
endforeach()

# OpenCL's headers: types and numbers alone. The loader is looked for at run time.
find_path(OPENCL_HEADERS CL/cl.h)
mark_as_advanced(OPENCL_HEADERS)
if(OPENCL_HEADERS)
    set_source_files_properties(src/gpu/gpu.c src/gpu/opencl.c PROPERTIES COMPILE_DEFINITIONS RUNNEL_OPENCL)
else()
    message(NOTICE "OpenCL's headers are not installed (opencl-headers): this build uses no GPU through OpenCL")
    list(REMOVE_ITEM RUNNEL_SOURCES ${PROJECT_SOURCE_DIR}/src/gpu/opencl.c)
endif()

# Two modules of every program: for compute capability 6.1 on (dp4a) and 8.0 on.
find_program(RUNNEL_CLANG NAMES clang clang-19 clang-18 clang-17 clang-16 clang-15 clang-14)
mark_as_advanced(RUNNEL_CLANG)
set(gpu_has_ptx FALSE)
if(RUNNEL_CLANG)
    execute_process(COMMAND ${RUNNEL_CLANG} --print-targets OUTPUT_VARIABLE clang_targets ERROR_QUIET)
    if(clang_targets MATCHES "nvptx64")
        set(gpu_has_ptx TRUE)
    endif()
endif()
if(gpu_has_ptx)
    set_source_files_properties(src/gpu/programs.c PROPERTIES COMPILE_DEFINITIONS RUNNEL_PTX)
    foreach(program ${gpu_programs})
        set(sources ${PROJECT_SOURCE_DIR}/src/gpu/layout.h ${gpu_device}/nvptx.cl ${gpu_device}/common.cl)
        foreach(piece ${gpu_pieces_${program}})
            list(APPEND sources ${gpu_device}/${piece}.cl)
        endforeach()
        string(REPLACE ";" "," listed "${sources}")
        foreach(arch 61 80)
            set(name gpu_ptx_${program}_${arch})
            add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/generated/${name}.c
                COMMAND ${CMAKE_COMMAND} -DCLANG=${RUNNEL_CLANG} -DARCH=${arch} -DSOURCES=${listed} -DNAME=${name}
                    -DPTX=${PROJECT_BINARY_DIR}/generated/${name}.ptx -DOUTPUT=${PROJECT_BINARY_DIR}/generated/${name}.c
                    -P ${PROJECT_SOURCE_DIR}/cmake/ptx.cmake
                DEPENDS ${sources} ${PROJECT_SOURCE_DIR}/cmake/ptx.cmake ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
                COMMENT "Compiling device code ${program} for sm_${arch}" VERBATIM)
            list(APPEND gpu_generated ${PROJECT_BINARY_DIR}/generated/${name}.c)
        endforeach()
    endforeach()
else()
    message(NOTICE "clang is not installed, or makes no PTX: this build uses NVIDIA's GPUs through OpenCL alone")
endif()
list(APPEND RUNNEL_SOURCES ${gpu_generated})
