# Device code (src/gpu/device) into the program: as text, which OpenCL's drivers compile when it is first used, and as PTX, where there is
# a clang that can make it. The pieces of a program, as src/gpu/programs.c has them:
set(gpu_pieces_embed tiles embed)
set(gpu_pieces_layer rows acts heads layer)
set(gpu_pieces_attention rows acts heads attention)
set(gpu_pieces_product_k tiles matrices rows product_k product_own)
set(gpu_pieces_product_32 tiles matrices product_32)
set(gpu_pieces_product_float matrices product_float)
set(gpu_pieces_product_matrix tiles matrices product_matrix)
set(gpu_programs embed layer attention product_k product_32 product_float product_matrix)
set(gpu_device ${PROJECT_SOURCE_DIR}/src/gpu/device)

include(cmake/embed.cmake)
embed_file(${PROJECT_SOURCE_DIR}/src/gpu/layout.h gpu_text_layout ${PROJECT_BINARY_DIR}/generated/gpu_text_layout.c)
set(gpu_generated ${PROJECT_BINARY_DIR}/generated/gpu_text_layout.c)
foreach(piece opencl common rows tiles acts heads matrices embed layer attention product_k product_own product_32 product_float product_matrix)
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

# Two modules of every program, for compute capability 6.1 on (dp4a) and 8.0 on; one of what uses matrix units.
find_program(RUNNEL_CLANG NAMES clang clang-19 clang-18 clang-17 clang-16 clang-15 clang-14)
mark_as_advanced(RUNNEL_CLANG)
# Sets `result` to the files of a program, with commas between them.
function(list_ptx_sources program result)
    set(sources ${PROJECT_SOURCE_DIR}/src/gpu/layout.h ${gpu_device}/nvptx.cl ${gpu_device}/common.cl)
    foreach(piece ${gpu_pieces_${program}})
        list(APPEND sources ${gpu_device}/${piece}.cl)
    endforeach()
    string(REPLACE ";" "," listed "${sources}")
    set(${result} ${listed} PARENT_SCOPE)
endfunction()

# A clang that names the target need not take the sources, if it is too old or lacks its half: the one that asks most of it tells.
set(gpu_has_ptx FALSE)
if(RUNNEL_CLANG)
    execute_process(COMMAND ${RUNNEL_CLANG} --print-targets OUTPUT_VARIABLE clang_targets ERROR_QUIET)
    if(clang_targets MATCHES "nvptx64")
        list_ptx_sources(product_matrix listed)
        set(trial ${PROJECT_BINARY_DIR}/CMakeFiles/gpu_ptx_trial)
        execute_process(COMMAND ${CMAKE_COMMAND} -DCLANG=${RUNNEL_CLANG} -DARCH=80 -DSOURCES=${listed} -DNAME=gpu_ptx_trial
            -DPTX=${trial}.ptx -DOUTPUT=${trial}.c -P ${PROJECT_SOURCE_DIR}/cmake/ptx.cmake
            RESULT_VARIABLE trial_failed OUTPUT_QUIET ERROR_QUIET)
        if(trial_failed EQUAL 0)
            set(gpu_has_ptx TRUE)
        endif()
    endif()
endif()
if(gpu_has_ptx)
    set_source_files_properties(src/gpu/programs.c PROPERTIES COMPILE_DEFINITIONS RUNNEL_PTX)
    foreach(program ${gpu_programs})
        list_ptx_sources(${program} listed)
        string(REPLACE "," ";" sources "${listed}")
        foreach(arch 61 80)
            if(program STREQUAL "product_matrix" AND arch LESS 80)
                continue()
            endif()
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
    message(NOTICE "clang is not installed, or makes no PTX of this source: this build uses NVIDIA's GPUs through OpenCL alone")
endif()
list(APPEND RUNNEL_SOURCES ${gpu_generated})
