# ExecuTorch from its sources, as it has no package for Android's C++: the one for Java has no headers and hides its symbols.
# Gives the targets of executorch's package from PyPI that the engine links, executorch::runtime, executorch::threadpool and
# executorch::etdump, and json_headers, of the nlohmann/json that ExecuTorch carries.
#
# The sources are had by git, by the hash of a commit, which covers every file and the commits of the submodules: once for all
# ABIs. Needs git, Python 3, make and the host's own C and C++ compilers, for ExecuTorch's generators of code.

set(T5G2_EXECUTORCH_COMMIT 3b60683923245cf472b7323426920e15623ba361)  # 1.5.1, the version that pyproject.toml pins
set(T5G2_EXECUTORCH_SOURCE "" CACHE PATH "ExecuTorch's sources with their submodules, in a folder of the name executorch")

# Sets T5G2_EXECUTORCH_SOURCE to the sources in `folder`, which are downloaded if they are not whole and of that commit.
function(t5g2_download_executorch folder)
  file(LOCK ${folder}.lock GUARD FUNCTION TIMEOUT 3600)  # Gradle configures several ABIs at a time
  set(T5G2_EXECUTORCH_SOURCE ${folder} PARENT_SCOPE)
  if(EXISTS ${folder}.commit)
    file(READ ${folder}.commit commit)
    if(commit STREQUAL T5G2_EXECUTORCH_COMMIT)
      return()
    endif()
  endif()
  message(STATUS "Downloading ExecuTorch's sources to ${folder}")
  file(REMOVE_RECURSE ${folder} ${folder}.commit)
  file(MAKE_DIRECTORY ${folder})
  set(xnnpack backends/xnnpack/third-party)
  foreach(command "init" "fetch;--depth;1;https://github.com/pytorch/executorch.git;${T5G2_EXECUTORCH_COMMIT}"
                  "-c;advice.detachedHead=false;checkout;FETCH_HEAD"
                  "submodule;update;--init;--depth;1;--;third-party/flatbuffers;third-party/flatcc;third-party/gflags;\
third-party/json;${xnnpack}/FXdiv;${xnnpack}/cpuinfo;${xnnpack}/pthreadpool")
    execute_process(COMMAND git ${command} WORKING_DIRECTORY ${folder} COMMAND_ERROR_IS_FATAL ANY)
  endforeach()
  file(WRITE ${folder}.commit ${T5G2_EXECUTORCH_COMMIT})
endfunction()

if(NOT T5G2_EXECUTORCH_SOURCE)
  t5g2_download_executorch(${t5g2}/android_demo/engine/build/executorch)
endif()

# As the package is built: with messages, of which the engine shows errors; with checks of programs; with the tracer.
set(EXECUTORCH_ENABLE_LOGGING ON)
set(EXECUTORCH_LOG_LEVEL Error)
set(EXECUTORCH_ENABLE_PROGRAM_VERIFICATION ON)
set(EXECUTORCH_ENABLE_EVENT_TRACER ON)
set(EXECUTORCH_BUILD_DEVTOOLS ON)
set(EXECUTORCH_BUILD_EXTENSION_DATA_LOADER ON)
set(EXECUTORCH_BUILD_EXTENSION_FLAT_TENSOR ON)
set(EXECUTORCH_BUILD_EXTENSION_MODULE ON)
set(EXECUTORCH_BUILD_EXTENSION_NAMED_DATA_MAP ON)
set(EXECUTORCH_BUILD_EXTENSION_TENSOR ON)
# A bundle's programs call our operators and no others.
set(EXECUTORCH_BUILD_PORTABLE_OPS OFF)
set(EXECUTORCH_BUILD_EXECUTOR_RUNNER OFF)
set(EXECUTORCH_BUILD_EXTENSION_EVALUE_UTIL OFF)
set(EXECUTORCH_BUILD_EXTENSION_RUNNER_UTIL OFF)
set(CMAKE_SKIP_INSTALL_RULES ON)
add_subdirectory(${T5G2_EXECUTORCH_SOURCE} executorch EXCLUDE_FROM_ALL SYSTEM)
unset(CMAKE_SKIP_INSTALL_RULES)
# Else it is put among the sources, which all ABIs share.
set_target_properties(flatccrt PROPERTIES ARCHIVE_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/flatcc)

add_library(t5g2_executorch INTERFACE)
target_link_libraries(t5g2_executorch INTERFACE executorch executorch_core extension_module_static extension_tensor
                                                extension_data_loader extension_flat_tensor extension_named_data_map)
target_compile_definitions(t5g2_executorch INTERFACE C10_USING_CUSTOM_GENERATED_MACROS ET_EVENT_TRACER_ENABLED)
add_library(executorch::runtime ALIAS t5g2_executorch)
add_library(executorch::threadpool ALIAS extension_threadpool)
add_library(executorch::etdump ALIAS etdump)
set(json_headers ${T5G2_EXECUTORCH_SOURCE}/third-party/json/include)
