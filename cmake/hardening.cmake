# What makes a defect harder to use, in every file and program of ours. tests/install/hardening.sh finds it in what was built. Each option
# stands where the compiler has it. Sanitizers and fuzzers watch the same by other means, and find more.
include(CheckPIESupported)
include(CheckCCompilerFlag)
include(CheckLinkerFlag)
check_pie_supported(LANGUAGES C)

# Kernels are no exception so far. What the compiler makes of them differs by more than marks at the beginning of functions; whether they
# are as fast is to be measured.
set(hardening_wanted -fstack-clash-protection)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    list(APPEND hardening_wanted -fcf-protection=full) # CET
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    list(APPEND hardening_wanted -mbranch-protection=standard)
endif()
if(CMAKE_C_COMPILER_ID MATCHES Clang)
    list(APPEND hardening_wanted -grecord-command-line) # gcc does so by itself: the test reads it
endif()
foreach(flag ${hardening_wanted})
    string(MAKE_C_IDENTIFIER "has${flag}" has_flag)
    check_c_compiler_flag(${flag} ${has_flag})
    if(${has_flag})
        target_compile_options(runnel_flags INTERFACE ${flag})
    endif()
endforeach()
target_compile_options(runnel_flags INTERFACE -fstack-protector-strong)
if(CMAKE_BUILD_TYPE STREQUAL "Release")
    target_compile_options(runnel_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
endif()

foreach(flag -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,-z,separate-code -Wl,--build-id=sha1)
    string(MAKE_C_IDENTIFIER "has${flag}" has_flag)
    check_linker_flag(C ${flag} ${has_flag})
    if(${has_flag})
        target_link_options(runnel_flags INTERFACE ${flag})
    endif()
endforeach()
