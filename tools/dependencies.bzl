"""What a workspace needs to build Ferrybus: this one's, or an embedder's.

Everything comes from the machine: Bazel's own rule sets and the libraries are
Debian packages (tools/packages.sh), nothing is downloaded.
"""

def _folder_impl(context):
    folder = context.path(context.attr.marker).dirname
    for entry in folder.readdir():
        context.symlink(entry, entry.basename)

# A folder of this checkout as a repository, wherever the checkout is.
_folder = repository_rule(
    implementation = _folder_impl,
    attrs = {"marker": attr.label(doc = "a file in the folder")},
    local = True,
)

def ferrybus_dependencies():
    """Declares the repositories that the workspace has not declared itself."""
    folders = {
        "bazel_skylib": "/usr/share/bazel/tools/skylib",
        "platforms": "/usr/share/bazel/tools/platforms",
        "rules_java": "/usr/share/bazel/rules/java",
        "rules_proto": "/usr/share/bazel/rules/proto",
    }
    stubs = {
        "remote_coverage_tools": "//third_party/coverage_tools:WORKSPACE",
        "rules_cc": "//third_party/rules_cc:WORKSPACE",
    }
    for name, path in folders.items():
        if not native.existing_rule(name):
            native.local_repository(name = name, path = path)
    for name, marker in stubs.items():
        if not native.existing_rule(name):
            _folder(name = name, marker = Label(marker))

    # Headers of the system libraries are under /usr/include, which the
    # compiler finds by itself; the repository only carries what to link.
    if not native.existing_rule("system"):
        native.new_local_repository(
            name = "system",
            build_file = "@ferrybus//third_party/system:system.BUILD",
            path = "/usr/include/x86_64-linux-gnu/sys",
        )
