# What the compiler may use in the files of each instruction set. All other files are compiled for every CPU of the kind.
file(GLOB avx2_sources ${PROJECT_SOURCE_DIR}/src/kernels/x86/avx2*.c)
file(GLOB avxvnni_sources ${PROJECT_SOURCE_DIR}/src/kernels/x86/avxvnni*.c)
file(GLOB avx512_sources ${PROJECT_SOURCE_DIR}/src/kernels/x86/avx512*.c)
set(avx2_options "-mavx2;-mfma;-mf16c;-mbmi2;${kernel_optimisation}")
set_source_files_properties(${avx2_sources} PROPERTIES COMPILE_OPTIONS "${avx2_options}")
# AVX-VNNI itself is assembly (vnni_instructions.h) and needs no option.
set_source_files_properties(${avxvnni_sources} PROPERTIES COMPILE_OPTIONS "${avx2_options}")
set(avx512_options
    "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vnni;-mavx2;-mfma;-mf16c;-mbmi2;-mprefer-vector-width=512;${kernel_optimisation}")
set_source_files_properties(${avx512_sources} PROPERTIES COMPILE_OPTIONS "${avx512_options}")

# Tiles are assembly (amx_tiles.h) and need no option. amx_permission.c runs on every CPU.
file(GLOB amx_sources ${PROJECT_SOURCE_DIR}/src/kernels/x86/amx.c ${PROJECT_SOURCE_DIR}/src/kernels/x86/amx_matmul*.c)
set_source_files_properties(${amx_sources} PROPERTIES COMPILE_OPTIONS "${avx512_options}")
