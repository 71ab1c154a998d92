// SPDX-License-Identifier: MIT

#include "ferrybus/examples/demo/shell.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"

namespace ferrybus::demo {

std::pair<int, std::string> Run(const std::string& command) {
  std::string output;
  FILE* const pipe =
      popen(absl::StrCat(command, " 2>&1 </dev/null").c_str(), "re");
  if (pipe == nullptr) return {127, "popen failed"};
  char buffer[4096];
  size_t got;
  while ((got = fread(buffer, 1, sizeof(buffer), pipe)) > 0) {
    output.append(buffer, got);
  }
  const int status = pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128, output};
}

std::string Tool(const std::string& name) {
  for (const char* folder : {"/usr/sbin/", "/sbin/"}) {
    if (access((folder + name).c_str(), X_OK) == 0) return folder + name;
  }
  return name;
}

}  // namespace ferrybus::demo
