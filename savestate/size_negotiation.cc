// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/size_negotiation.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_format.h"

namespace ferrybus::savestate {
namespace {

using Code = SizeAnswer::Code;

std::string_view CodeText(Code code) {
  switch (code) {
    case Code::kOk:
      return "success";
    case Code::kTooSmall:
      return "too small";
    case Code::kFailed:
      return "failure";
    case Code::kPending:
      return "pending";
  }
  return "an unknown code";
}

class Negotiation {
 public:
  Negotiation(const SizingOptions& options, std::string_view what,
              SizedCallback callback)
      : options_(options), what_(what), callback_(callback) {}

  absl::StatusOr<std::string> Run();

 private:
  // The answer to the call without a buffer, read by the dialect's rule:
  // the size to allocate, 0 when there is nothing to save.
  absl::StatusOr<uint64_t> FirstSize(const SizeAnswer& answer) const;
  absl::StatusOr<uint64_t> FirstSizeKmcl(const SizeAnswer& answer) const;
  absl::StatusOr<uint64_t> FirstSizeGpuP(const SizeAnswer& answer) const;

  // An answer to a call with `size` bytes that was not a success: the larger
  // size it asks for.
  absl::StatusOr<uint64_t> NextSize(const SizeAnswer& answer,
                                    uint64_t size) const;

  absl::Status CheckCap(uint64_t size) const;
  absl::Status CallbackFailed(const SizeAnswer& answer) const;
  absl::Status Violation(const SizeAnswer& answer, uint64_t buffer_bytes,
                         std::string_view why) const;

  const SizingOptions& options_;
  const std::string_view what_;
  const SizedCallback callback_;
};

absl::StatusOr<std::string> Negotiation::Run() {
  const auto first = FirstSize(callback_(absl::Span<std::byte>()));
  if (!first.ok()) return first.status();
  uint64_t size = *first;
  if (size == 0) return std::string();
  for (int resize = 0; resize < kResizesMax; ++resize) {
    if (auto status = CheckCap(size); !status.ok()) return status;
    // Zeroed anew each time: a callback that writes less than it says leaves
    // zeros, not bytes of this process.
    std::string blob(size, '\0');
    const SizeAnswer answer = callback_(
        absl::MakeSpan(reinterpret_cast<std::byte*>(blob.data()), blob.size()));
    if (answer.code == Code::kOk) {
      const uint64_t written = answer.bytes.value_or(size);
      if (written > size) {
        return Violation(answer, size, "it says that it wrote past the buffer");
      }
      blob.resize(written);
      return blob;
    }
    const auto next = NextSize(answer, size);
    if (!next.ok()) return next.status();
    size = *next;
  }
  return absl::AbortedError(
      absl::StrFormat("%s: the size does not settle: after %d buffers, %u "
                      "bytes are asked for",
                      what_, kResizesMax, size));
}

absl::StatusOr<uint64_t> Negotiation::FirstSize(
    const SizeAnswer& answer) const {
  switch (options_.dialect) {
    case SizingDialect::kKmcl:
      return FirstSizeKmcl(answer);
    case SizingDialect::kGpuP:
    case SizingDialect::kUserMode:
      return FirstSizeGpuP(answer);
  }
  return absl::InvalidArgumentError("unknown sizing dialect");
}

absl::StatusOr<uint64_t> Negotiation::FirstSizeKmcl(
    const SizeAnswer& answer) const {
  const uint64_t bytes = answer.bytes.value_or(0);
  switch (answer.code) {
    case Code::kOk:
      if (bytes == 0 || options_.literal_success) return 0;
      return Violation(answer, 0, "success means that there is no state");
    case Code::kTooSmall:
    case Code::kFailed:
      // Any failure with a size asks for a buffer, so the document says.
      if (bytes == 0) return CallbackFailed(answer);
      return bytes;
    case Code::kPending:
      if (options_.literal_success) return 0;
      break;
  }
  return Violation(answer, 0, "neither success nor failure");
}

absl::StatusOr<uint64_t> Negotiation::FirstSizeGpuP(
    const SizeAnswer& answer) const {
  const uint64_t bytes = answer.bytes.value_or(0);
  switch (answer.code) {
    case Code::kOk:
      return bytes;
    case Code::kTooSmall:
      if (bytes == 0) return CallbackFailed(answer);
      return bytes;
    case Code::kFailed:
      // A user-mode DLL has no code for "too small": it says E_INVALIDARG.
      if (options_.dialect == SizingDialect::kUserMode && bytes > 0 &&
          absl::IsInvalidArgument(answer.failure)) {
        return bytes;
      }
      return CallbackFailed(answer);
    case Code::kPending:
      break;
  }
  return Violation(answer, 0, "neither success nor failure");
}

absl::StatusOr<uint64_t> Negotiation::NextSize(const SizeAnswer& answer,
                                               uint64_t size) const {
  if (answer.code != Code::kTooSmall && answer.code != Code::kFailed) {
    return Violation(answer, size, "neither success nor failure");
  }
  const bool kmcl = options_.dialect == SizingDialect::kKmcl;
  const uint64_t bytes = answer.bytes.value_or(size);
  const bool grew = bytes > size && (answer.code == Code::kTooSmall || kmcl);
  if (!grew) return CallbackFailed(answer);
  const bool fixed =
      options_.dialect == SizingDialect::kUserMode || options_.immutable;
  if (fixed && !kmcl) {
    return absl::AbortedError(
        absl::StrFormat("%s: immutable data grew from %u to %u bytes between "
                        "two calls",
                        what_, size, bytes));
  }
  return bytes;
}

absl::Status Negotiation::CheckCap(uint64_t size) const {
  uint64_t cap = options_.bytes_max;
  if (options_.dialect == SizingDialect::kKmcl) {
    cap = std::min<uint64_t>(cap, std::numeric_limits<uint32_t>::max());
  }
  if (size <= cap) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrFormat(
      "%s: %u bytes are asked for, the limit is %u", what_, size, cap));
}

absl::Status Negotiation::CallbackFailed(const SizeAnswer& answer) const {
  if (answer.code == Code::kFailed && !answer.failure.ok()) {
    return absl::Status(answer.failure.code(),
                        absl::StrFormat("%s: the callback failed: %s", what_,
                                        answer.failure.ToString()));
  }
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s: the callback answered \"%s\" without a reason or a larger size",
      what_, CodeText(answer.code)));
}

absl::Status Negotiation::Violation(const SizeAnswer& answer,
                                    uint64_t buffer_bytes,
                                    std::string_view why) const {
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s: the callback broke its contract: \"%s\" with %u bytes for a buffer "
      "of %u: %s",
      what_, CodeText(answer.code), answer.bytes.value_or(buffer_bytes),
      buffer_bytes, why));
}

}  // namespace

absl::StatusOr<std::string> NegotiateSize(const SizingOptions& options,
                                          std::string_view what,
                                          SizedCallback callback) {
  return Negotiation(options, what, callback).Run();
}

}  // namespace ferrybus::savestate
