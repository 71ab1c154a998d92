# SPDX-License-Identifier: MIT
"""Rules about what the build knows."""

from source_tree import Finding


def _package_of(tree, file):
    """The nearest BUILD.bazel at or above the file, or None."""
    for depth in range(len(file.folders), -1, -1):
        folder = file.folders[:depth]
        build = tree.get("/".join(folder + ["BUILD.bazel"]))
        if build is not None:
            return build, "/".join(file.folders[depth:] + [file.name])
    return None, file.path


def in_build(tree):
    """Each source file is named in its package: what is not built, rots."""
    for file in tree.cpp_files() + [
            f for f in tree.files if f.suffix == ".proto"]:
        build, name = _package_of(tree, file)
        if build is None or f'"{name}"' not in "\n".join(build.lines):
            where = build.path if build else "any BUILD.bazel"
            yield Finding("in-build", file.path, 1,
                          f'"{name}" is not named in {where}: add it to a '
                          "target, or delete it")


def fuzz_corpus(tree):
    """Each fuzz target starts from a corpus: <folder>/corpus/<name>/."""
    for file in tree.cpp_files():
        if not file.name.endswith("_fuzz.cc"):
            continue
        stem = file.name.removesuffix(".cc")
        names = (stem, stem.removesuffix("_fuzz"))
        folders = ["/".join(file.folders + ["corpus", name, ""])
                   for name in names]
        if not any(other.path.startswith(folder)
                   for other in tree.files for folder in folders):
            yield Finding("fuzz-corpus", file.path, 1,
                          f"no seed corpus: put a few small inputs into "
                          f"{folders[1]}")


RULES = [in_build, fuzz_corpus]
