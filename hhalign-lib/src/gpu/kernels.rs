//! The text of the kernels. They are compiled where they run.

use super::Storage;

const COMMON: &str = include_str!("kernels/common.cu");
const FILES: [&str; 5] = [
    include_str!("kernels/rows.cu"),
    include_str!("kernels/attention.cu"),
    include_str!("kernels/head.cu"),
    include_str!("kernels/optim.cu"),
    include_str!("kernels/decode.cu"),
];
/// What tensor cores do; these multiply numbers of 16 bits.
const TENSOR: [&str; 2] = [include_str!("kernels/tensor.cu"), include_str!("kernels/attention_tensor.cu")];
const EMULATED: &str = include_str!("kernels/emulated.h");

/// All kernels for a way of storing numbers, as CUDA text.
pub(super) fn source(storage: Storage) -> String {
    let tensor = if storage == Storage::F32 { &[][..] } else { &TENSOR };
    std::iter::once(COMMON).chain(FILES).chain(tensor.iter().copied()).collect::<Vec<_>>().join("\n")
}

/// The same as C++ for a processor, with a function `launch_NAME` for each kernel.
pub(super) fn emulated_source(storage: Storage) -> String {
    let source = source(storage);
    let names = source.lines().filter_map(|line| line.strip_prefix("KERNEL void ")?.split('(').next());
    let starts = names.map(|name| {
        format!(
            "extern \"C\" void launch_{name}(void** a, unsigned x, unsigned y, unsigned block, unsigned shared) {{ emulated_launch({name}, a, x, y, block, shared); }}\n"
        )
    });
    let starts: String = starts.collect();
    format!("{EMULATED}\n{source}\n{starts}")
}
