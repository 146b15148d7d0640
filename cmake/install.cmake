# What `make install` puts where, and what other projects need to find the library: runnel.pc for pkg-config, and a package for
# CMake with the targets runnel::runnel (shared) and runnel::runnel_static.
include(CMakePackageConfigHelpers)

set(cmake_folder ${CMAKE_INSTALL_LIBDIR}/cmake/runnel)

foreach(library runnel_shared runnel_static)
    target_include_directories(${library} INTERFACE
        $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endforeach()
set_target_properties(runnel_shared PROPERTIES EXPORT_NAME runnel)

install(TARGETS runnel_shared runnel_static EXPORT runnel)
install(FILES include/runnel.h TYPE INCLUDE)
install(FILES LICENSE TYPE DOC)
install(FILES examples/ask.c examples/many.c DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)

install(EXPORT runnel NAMESPACE runnel:: FILE runnel-targets.cmake DESTINATION ${cmake_folder})
configure_package_config_file(cmake/runnel-config.cmake.in ${PROJECT_BINARY_DIR}/generated/runnel-config.cmake
    INSTALL_DESTINATION ${cmake_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/generated/runnel-config-version.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/generated/runnel-config.cmake
    ${PROJECT_BINARY_DIR}/generated/runnel-config-version.cmake DESTINATION ${cmake_folder})

configure_file(cmake/runnel.pc.in ${PROJECT_BINARY_DIR}/generated/runnel.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/generated/runnel.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
