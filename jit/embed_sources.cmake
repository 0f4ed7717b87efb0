# tq_embed_sources(TARGET NAME ROOT GLOB...): gives TARGET a function `std::span<const tq::EmbeddedFile> tq::NAME()`
# with the files below ROOT that match, by their paths relative to it. TARGET must link to tq_jit. A changed, new
# or removed file is noticed by the next build.
function(tq_embed_sources TARGET NAME ROOT)
  set(script ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/write_embedded.cmake)
  list(TRANSFORM ARGN PREPEND "${ROOT}/")
  file(GLOB files CONFIGURE_DEPENDS RELATIVE "${ROOT}" ${ARGN})
  list(SORT files)
  if(NOT files)
    message(FATAL_ERROR "tq_embed_sources(${TARGET}): no file matches ${ARGN}")
  endif()
  set(paths ${files})
  list(TRANSFORM paths PREPEND "${ROOT}/")
  set(output ${CMAKE_CURRENT_BINARY_DIR}/${NAME}.cpp)
  # The list of names goes through a file, so that a removed or renamed file also makes the output out of date.
  set(list_file ${CMAKE_CURRENT_BINARY_DIR}/${NAME}.txt)
  file(CONFIGURE OUTPUT ${list_file} CONTENT "${files}")
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DNAME=${NAME} -DROOT=${ROOT} -DLIST=${list_file} -DOUTPUT=${output}
            -P ${script}
    DEPENDS ${paths} ${list_file} ${script}
    COMMENT "Embedding ${NAME}"
    VERBATIM)
  target_sources(${TARGET} PRIVATE ${output})
endfunction()
