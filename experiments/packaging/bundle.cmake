# Writes OUTPUT_DIR/NAME.tar.gz: an installation of BUILD_DIR with every shared library that tq needs, except the C
# library's own, and the licences of what is inside. Runs on Debian and its relatives, whose package data base knows
# the licences. A bundle runs where the C library is at least as new as the one it was made with.
cmake_minimum_required(VERSION 3.25)

set(staging ${BUILD_DIR}/bundle)
set(root ${staging}/${NAME})
file(REMOVE_RECURSE ${staging})
execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${root} --strip
                OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
# In the place of a `tq` with MPI, where that was built, one without; always, since both may be of one second.
execute_process(COMMAND ${CMAKE_COMMAND} -E env CMAKE_INSTALL_ALWAYS=1
                        ${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${root} --strip --component bundle
                OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)

# The dynamic loader and the libraries that must be of one build with it.
set(c_library "^(ld-linux.*|lib(c|m|mvec|pthread|dl|rt|util|resolv|anl|nss_.*))\\.so")
file(GET_RUNTIME_DEPENDENCIES
     EXECUTABLES ${root}/bin/tq
     RESOLVED_DEPENDENCIES_VAR libraries
     PRE_EXCLUDE_REGEXES ${c_library})
# Debian's licences of the headers that are compiled into tq.
set(licensed /usr/include/eigen3/Eigen/Core /usr/include/boost/version.hpp /usr/include/nlohmann/json.hpp)

file(MAKE_DIRECTORY ${root}/lib)
foreach(library IN LISTS libraries)
  file(REAL_PATH ${library} file)
  get_filename_component(soname ${library} NAME)
  file(COPY_FILE ${file} ${root}/lib/${soname})
  list(APPEND licensed ${file})
endforeach()

set(licences ${root}/share/turboquant-lab/licences)
foreach(file IN LISTS licensed)
  # dpkg may know /usr/lib/x as /lib/x, from before the two were merged.
  string(REGEX REPLACE "^/usr" "" unmerged ${file})
  execute_process(COMMAND dpkg-query --search ${file} ${unmerged}
                  OUTPUT_VARIABLE owner ERROR_QUIET)
  if(NOT owner MATCHES "^([^:,\n]+)")
    message(FATAL_ERROR "${file} belongs to no package: its licence is unknown, so it cannot be bundled")
  endif()
  set(package ${CMAKE_MATCH_1})
  file(REAL_PATH /usr/share/doc/${package}/copyright copyright)
  file(MAKE_DIRECTORY ${licences})
  file(COPY_FILE ${copyright} ${licences}/${package})
  # The copyright files refer to the usual licences by their place on a Debian system.
  file(READ ${copyright} text)
  string(REGEX MATCHALL "/usr/share/common-licenses/[A-Za-z]+(-[0-9.]*[0-9])?" common "${text}")
  list(APPEND common_licences ${common})
endforeach()
list(REMOVE_DUPLICATES common_licences)
foreach(licence IN LISTS common_licences)
  if(EXISTS ${licence})
    file(COPY ${licence} DESTINATION ${licences}/common-licenses FOLLOW_SYMLINK_CHAIN)
  endif()
endforeach()

# Under its name only when complete: an interrupted run leaves no half bundle to be taken for a whole one.
set(archive ${OUTPUT_DIR}/${NAME}.tar.gz)
execute_process(COMMAND tar --create --gzip --file=${archive}.part --sort=name --owner=0 --group=0 --numeric-owner
                        --directory=${staging} ${NAME}
                COMMAND_ERROR_IS_FATAL ANY)
file(RENAME ${archive}.part ${archive})
file(SIZE ${archive} bytes)
math(EXPR mib "(${bytes} + 524288) / 1048576")
message(STATUS "${archive} (${mib} MiB)")
