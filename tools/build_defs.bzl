"""The rules this tree is built with: thin macros that fix flags and paths.

ferry_library, ferry_binary, ferry_test, ferry_fuzz, ferry_proto.  Each adds
the warning flags and the include prefix, so that every header is included as
"ferrybus/<folder>/<file>.h" with the folder at top level.
"""

WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wno-sign-conversion",
    "-Wnon-virtual-dtor",
    "-Werror",
]

# Libraries throw nothing and must build where exceptions are off.
LIBRARY_COPTS = WARNINGS + ["-fno-exceptions"]

def ferry_library(name, srcs = [], hdrs = [], deps = [], copts = [], **kwargs):
    """A cc_library with the tree's flags and include prefix."""
    native.cc_library(
        name = name,
        srcs = srcs,
        hdrs = hdrs,
        copts = LIBRARY_COPTS + copts,
        include_prefix = "ferrybus",
        strip_include_prefix = "/",
        deps = deps,
        **kwargs
    )

def ferry_binary(name, srcs, deps = [], copts = [], **kwargs):
    """A cc_binary with the tree's flags."""
    native.cc_binary(
        name = name,
        srcs = srcs,
        copts = WARNINGS + copts,
        deps = deps,
        **kwargs
    )

def ferry_test(name, srcs, deps = [], copts = [], size = "small", **kwargs):
    """A GoogleTest program; gtest_main is linked in."""
    native.cc_test(
        name = name,
        srcs = srcs,
        size = size,
        copts = WARNINGS + copts,
        deps = deps + ["@system//:gtest_main"],
        **kwargs
    )

def ferry_fuzz(name, srcs, corpus, deps = [], **kwargs):
    """A fuzz target, built two ways.

    <name>_replay is a test: it feeds every file of the seed corpus, and
    systematic mutations of each, to LLVMFuzzerTestOneInput (any compiler).
    <name> is the fuzzing program: libFuzzer's with --config=fuzz (./ferry
    check fuzz), AFL++'s with --config=afl (./ferry soak --engine afl).

    Args:
      name: target name, ends in _fuzz.
      srcs: the file that defines LLVMFuzzerTestOneInput.
      corpus: label of a filegroup with the seed inputs.
      deps: libraries under test.
      **kwargs: passed to both.
    """
    native.cc_library(
        name = name + "_entry",
        testonly = True,
        srcs = srcs,
        copts = WARNINGS,
        deps = deps,
        alwayslink = True,
    )
    native.cc_test(
        name = name + "_replay",
        size = "small",
        args = ["$(locations %s)" % corpus],
        data = [corpus],
        deps = [":" + name + "_entry", "//tools:fuzz_replay_main"],
        **kwargs
    )
    native.cc_binary(
        name = name,
        testonly = True,
        linkopts = select({
            "//tools:afl": ["/usr/lib/afl/libAFLDriver.a"],
            "//conditions:default": ["-fsanitize=fuzzer"],
        }),
        tags = ["manual", "libfuzzer"],
        deps = [":" + name + "_entry"],
        **kwargs
    )

def ferry_proto(name, src, deps = [], visibility = None):
    """A .proto file compiled by /usr/bin/protoc into one library.

    Included as "ferrybus/<folder>/<file>.pb.h".

    Args:
      name: name of the library.
      src: the .proto file, in this package.
      deps: other ferry_proto libraries that it imports.
      visibility: as usual.
    """
    base = src[:-len(".proto")]

    # Of an embedder's workspace this one is a folder.
    repository = native.repository_name()[1:]
    root = "external/" + repository if repository else "."
    native.genrule(
        name = name + "_gen",
        srcs = [src] + [d + "_src" for d in deps],
        outs = [base + ".pb.h", base + ".pb.cc"],
        cmd = ("/usr/bin/protoc --proto_path={root} " +
               "--cpp_out=$(GENDIR)/{root} $(location {src})").format(
            root = root,
            src = src,
        ),
    )
    native.filegroup(
        name = name + "_src",
        srcs = [src] + [d + "_src" for d in deps],
        visibility = visibility,
    )
    native.cc_library(
        name = name,
        srcs = [base + ".pb.cc"],
        hdrs = [base + ".pb.h"],
        copts = ["-w"],
        include_prefix = "ferrybus",
        strip_include_prefix = "/",
        deps = deps + ["@system//:protobuf"],
        visibility = visibility,
    )

def ferry_grpc_proto(name, src, deps = [], visibility = None):
    """A .proto file with a gRPC service, compiled into one library.

    Included as "ferrybus/<folder>/<file>.pb.h" and ".grpc.pb.h".

    Args:
      name: name of the library.
      src: the .proto file, in this package.
      deps: ferry_proto libraries that it imports.
      visibility: as usual.
    """
    base = src[:-len(".proto")]
    ferry_proto(
        name = name + "_messages",
        src = src,
        deps = deps,
        visibility = visibility,
    )

    # Of an embedder's workspace this one is a folder.
    repository = native.repository_name()[1:]
    root = "external/" + repository if repository else "."
    native.genrule(
        name = name + "_gen",
        srcs = [src] + [d + "_src" for d in deps],
        outs = [base + ".grpc.pb.h", base + ".grpc.pb.cc"],
        cmd = ("/usr/bin/protoc --proto_path={root} " +
               "--plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin " +
               "--grpc_out=$(GENDIR)/{root} $(location {src})").format(
            root = root,
            src = src,
        ),
    )
    native.cc_library(
        name = name,
        srcs = [base + ".grpc.pb.cc"],
        hdrs = [base + ".grpc.pb.h"],
        copts = ["-w"],
        include_prefix = "ferrybus",
        strip_include_prefix = "/",
        deps = [
            ":" + name + "_messages",
            "@system//:grpc",
        ],
        visibility = visibility,
    )

def ferry_program_test(
        name,
        srcs,
        deps = [],
        args = [],
        size = "small",
        **kwargs):
    """A program with its own main() as a test: it passes by exiting with 0."""
    native.cc_test(
        name = name,
        srcs = srcs,
        size = size,
        args = args,
        copts = WARNINGS,
        deps = deps,
        **kwargs
    )

def ferry_c_program_test(name, srcs, deps = [], size = "small", **kwargs):
    """A C11 program as a test: it passes by exiting with 0."""
    native.cc_test(
        name = name,
        srcs = srcs,
        size = size,
        copts = [
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Wno-gnu",
            "-Werror",
        ],
        deps = deps,
        **kwargs
    )
