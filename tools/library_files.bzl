"""A library's headers and archives as files, those of its dependencies too."""

def _library_files_impl(context):
    info = context.attr.library[CcInfo]
    archives = [
        archive
        for linked in info.linking_context.linker_inputs.to_list()
        for part in linked.libraries
        for archive in (part.static_library, part.pic_static_library)
        if archive
    ]
    files = depset(
        archives,
        transitive = [info.compilation_context.headers],
    )

    # Without runfiles a test that has them as data does not depend on them.
    return [DefaultInfo(
        files = files,
        runfiles = context.runfiles(transitive_files = files),
    )]

library_files = rule(
    implementation = _library_files_impl,
    attrs = {"library": attr.label(providers = [CcInfo])},
)
