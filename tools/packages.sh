# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The Debian 12 packages that the tree needs, each with the reason: the only
# list of them.  `ferry` reads it; packages that another one pulls in are not
# named, unless the tree uses them itself.

# To build, test, run the demo and the benchmarks.
# shellcheck disable=SC2034
FERRY_PACKAGES="
bazel-bootstrap           the build tool, Bazel 4.2.3
bazel-rules-java          Bazel's own rules load it
bazel-rules-proto         Bazel's own rules load it
bazel-skylib              Bazel's own rules load it
bazel-platforms           Bazel's own rules load it
g++                       the compiler
libabsl-dev               Abseil: status, spans, hash maps
libprotobuf-dev           Protobuf: the sections of the saved state
protobuf-compiler         generates the code for them
libgtest-dev              GoogleTest
libgmock-dev              GoogleMock
libbenchmark-dev          Google Benchmark
liburing-dev              asynchronous disk I/O of the storage device
libisal-dev               fast CRC32C of the saved state
libssl-dev                SHA-256 of the checkpoint manifest, HMAC of sealed states
libzstd-dev               compression of migrated memory
libgrpc++-dev             migration between hosts
protobuf-compiler-grpc    generates the code for it
libext2fs-dev             the demo reads its disk's file system
comerr-dev                libext2fs needs it to link
e2fsprogs                 the demo makes and checks file systems
libz3-dev                 proves the ring's index arithmetic
libdpdk-dev               the other side of the ring in an interoperation test
libboost-dev              a peer that the ring benchmark measures beside us
libconcurrentqueue-dev    a peer that the ring benchmark measures beside us
libreaderwriterqueue-dev  a peer that the ring benchmark measures beside us
iproute2                  the migration demo's two hosts and their link
openssl                   certificates of the migration demo's two hosts
iperf3                    what that link gives, beside our figures
nlohmann-json3-dev        JSON of reports and of the command line tools
libcli11-dev              arguments of the command line tools
python3                   lint, reports
cmake                     builds and installs the library for embedders
make                      cmake runs it
pkgconf                   pkg-config: how embedders find the library
"

# To boot a stock Linux guest (./ferry guest, guest-test).  Its kernel is the
# package linux-image-cloud-amd64 of the day, unpacked and not installed.
# shellcheck disable=SC2034
FERRY_GUEST_PACKAGES="
busybox-static            the programs in the guest
cpio                      makes the guest's initramfs
kmod                      finds the kernel modules that it needs
xz-utils                  unpacks those of newer kernels
hyperv-daemons            the guest's end of key-value exchange
qemu-system-x86           a processor with KVM, where there is none
"

# To run the checks as well.
# shellcheck disable=SC2034
FERRY_CHECK_PACKAGES="
clang                     second compiler: layering, fuzzing
clang-format              the code's layout
clang-tidy                static analysis
libclang-rt-14-dev        clang's sanitizers and libFuzzer
spin                      checks the models in tests/models
gcc                       compiles what spin writes
afl++                     second fuzzing engine, beside libFuzzer
llvm                      reads the coverage that clang's programs write
"
