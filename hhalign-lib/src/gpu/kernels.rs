//! The text of the kernels. They are compiled where they run.

const COMMON: &str = include_str!("kernels/common.cu");
const FILES: [&str; 5] = [
    include_str!("kernels/rows.cu"),
    include_str!("kernels/attention.cu"),
    include_str!("kernels/head.cu"),
    include_str!("kernels/optim.cu"),
    include_str!("kernels/decode.cu"),
];
const EMULATED: &str = include_str!("kernels/emulated.h");

/// All kernels as CUDA text.
pub(super) fn source() -> String {
    std::iter::once(COMMON).chain(FILES).collect::<Vec<_>>().join("\n")
}

/// The same as C++ for a processor, with a function `launch_NAME` for each kernel.
pub(super) fn emulated_source() -> String {
    let source = source();
    let names = source.lines().filter_map(|line| line.strip_prefix("KERNEL void ")?.split('(').next());
    let starts = names.map(|name| {
        format!(
            "extern \"C\" void launch_{name}(void** a, unsigned x, unsigned y, unsigned block, unsigned shared) {{ emulated_launch({name}, a, x, y, block, shared); }}\n"
        )
    });
    let starts: String = starts.collect();
    format!("{EMULATED}\n{source}\n{starts}")
}
