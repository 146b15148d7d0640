# librunnel.a. An archive of our objects would show all of their functions to whoever links it: a program with a function of its
# own called error_set would not link. So all objects become one, in which what is hidden (everything without RUNNEL_API) is local.
if(NOT CMAKE_LINKER OR NOT CMAKE_OBJCOPY)
    message(FATAL_ERROR "ld and objcopy are not there, which librunnel.a is made with: install binutils (see packages.txt)")
endif()
set(all_of_runnel ${PROJECT_BINARY_DIR}/generated/all-of-runnel.o)
set(public_runnel ${PROJECT_BINARY_DIR}/generated/runnel.o)
add_custom_command(OUTPUT ${public_runnel}
    COMMAND ${CMAKE_LINKER} -r -o ${all_of_runnel} $<TARGET_OBJECTS:runnel_objects>
    COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${all_of_runnel} ${public_runnel}
    COMMAND ${CMAKE_COMMAND} -E rm ${all_of_runnel}
    DEPENDS runnel_objects $<TARGET_OBJECTS:runnel_objects>
    COMMENT "One object of all, with runnel_* alone visible" COMMAND_EXPAND_LISTS VERBATIM)
set_source_files_properties(${public_runnel} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
add_library(runnel_static STATIC ${public_runnel})
set_target_properties(runnel_static PROPERTIES OUTPUT_NAME runnel LINKER_LANGUAGE C)
target_link_libraries(runnel_static PUBLIC PkgConfig::PCRE2 Threads::Threads m)
