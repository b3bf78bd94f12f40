//! The kernels: their source, which is compiled at run time, and a typed launcher for each kernel
//! next to its `.cu` file. Only the launcher has the kernel's name, grid, block size, shared memory
//! and order of arguments.
//!
//! Read `common.cu` first, then `rows`, `attention`, `head`, `optim` and `decode`. `tensor.cu` has
//! the products on tensor cores that `attention_tensor` uses. `emulated.h` defines enough of CUDA
//! to run the kernels on a CPU.

pub(super) mod attention;
pub(super) mod attention_tensor;
pub(super) mod decode;
pub(super) mod head;
pub(super) mod optim;
pub(super) mod rows;

use std::ffi::c_void;

use crate::compute::gpu::Storage;

const COMMON: &str = include_str!("common.cu");
const ROWS: &str = include_str!("rows.cu");
const ATTENTION: &str = include_str!("attention.cu");
const HEAD: &str = include_str!("head.cu");
const OPTIM: &str = include_str!("optim.cu");
const DECODE: &str = include_str!("decode.cu");
/// Products on tensor cores, for 16-bit dtypes.
const TENSOR: &str = include_str!("tensor.cu");
const ATTENTION_TENSOR: &str = include_str!("attention_tensor.cu");
const EMULATED: &str = include_str!("emulated.h");

/// Returns the CUDA source of all kernels for a dtype of activations.
pub(super) fn source(storage: Storage) -> String {
    let mut files = vec![COMMON, ROWS, ATTENTION, HEAD, OPTIM, DECODE];
    if storage != Storage::F32 {
        files.extend([TENSOR, ATTENTION_TENSOR]);
    }
    files.join("\n")
}

/// Returns the C++ source of the kernels for the emulated card, with a function `launch_NAME` for
/// each kernel.
pub(super) fn emulated_source(storage: Storage) -> String {
    let source = source(storage);
    let names =
        source.lines().filter_map(|line| line.strip_prefix("KERNEL void ")?.split('(').next());
    let launchers = names.map(|name| {
        format!(
            "extern \"C\" void launch_{name}(\
             void** a, unsigned x, unsigned y, unsigned block, unsigned shared) \
             {{ emulated_launch({name}, a, x, y, block, shared); }}\n"
        )
    });
    let launchers: String = launchers.collect();
    format!("{EMULATED}\n{source}\n{launchers}")
}

/// A launcher, whose fields are the arguments of one kernel, named as its parameters. An address of
/// 0 is a null pointer.
pub(super) trait Kernel {
    /// Returns the launch of the kernel.
    fn launch(&self) -> Launch;
}

/// The name of a kernel, its threads and its arguments.
pub(super) struct Launch {
    pub(super) kernel: &'static str,
    /// The number of blocks.
    pub(super) grid: [usize; 2],
    /// The number of threads of a block.
    pub(super) block: u32,
    /// Bytes of dynamic shared memory.
    pub(super) shared: usize,
    /// The arguments in the order of the kernel's signature.
    pub(super) args: Vec<Argument>,
}

impl Launch {
    /// Launches a kernel that loops over `n` numbers, four per thread.
    fn grid_stride(kernel: &'static str, n: usize, args: Vec<Argument>) -> Self {
        Self { kernel, grid: [(n / 4).div_ceil(256).min(4096), 1], block: 256, shared: 0, args }
    }

    /// Launches a kernel in which a warp computes a row.
    fn warp_per_row(kernel: &'static str, rows: usize, args: Vec<Argument>) -> Self {
        Self { kernel, grid: [rows.div_ceil(4), 1], block: 128, shared: 0, args }
    }
}

/// An argument with the name of its parameter. Only launchers make them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Argument {
    name: &'static str,
    value: Value,
}

/// A value of one of the types that kernels take.
#[derive(Debug, Clone, Copy)]
enum Value {
    Pointer(u64),
    Int(i32),
    Long(i64),
    Float(f32),
}

impl From<u64> for Value {
    fn from(address: u64) -> Self {
        Self::Pointer(address)
    }
}

impl From<usize> for Value {
    fn from(n: usize) -> Self {
        Self::Int(n as i32)
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Self::Long(n)
    }
}

impl From<f32> for Value {
    fn from(x: f32) -> Self {
        Self::Float(x)
    }
}

impl Argument {
    fn new(name: &'static str, value: impl Into<Value>) -> Self {
        Self { name, value: value.into() }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the address if the argument is a pointer and not null.
    pub(super) fn address(&self) -> Option<u64> {
        match self.value {
            Value::Pointer(address) if address != 0 => Some(address),
            _ => None,
        }
    }

    /// Returns a pointer to the value, as a launch needs it.
    pub(super) fn pointer(&mut self) -> *mut c_void {
        match &mut self.value {
            Value::Pointer(x) => std::ptr::from_mut(x).cast(),
            Value::Int(x) => std::ptr::from_mut(x).cast(),
            Value::Long(x) => std::ptr::from_mut(x).cast(),
            Value::Float(x) => std::ptr::from_mut(x).cast(),
        }
    }
}

/// Makes arguments from the fields of a launcher, in the order of the signature. A field and its
/// parameter share one name, so a value cannot be passed for another parameter. The test below
/// compares names and types with the signatures.
macro_rules! args {
    ($launcher:ident: $($name:ident),+) => {
        vec![$($crate::compute::gpu::kernels::Argument::new(stringify!($name), $launcher.$name)),+]
    };
}
use args;

#[cfg(test)]
mod tests {
    use super::attention::{Attention, AttentionDelta, AttentionKeys, AttentionQueries};
    use super::attention_tensor::{
        AttentionTensor, AttentionTensorKeys, AttentionTensorQueries, Width,
    };
    use super::decode::{AttentionCached, CacheAppend};
    use super::head::{Draw, LogProbs};
    use super::optim::{Adamw, CopyWeights, SquareSums};
    use super::rows::*;
    use super::*;

    /// A launch and the name of its launcher.
    struct Launched {
        launcher: &'static str,
        launch: Launch,
    }

    fn launched<K: Kernel>(kernel: K) -> Launched {
        Launched {
            launcher: std::any::type_name::<K>().rsplit("::").next().unwrap(),
            launch: kernel.launch(),
        }
    }

    fn default<K: Kernel + Default>() -> Launched {
        launched(K::default())
    }

    /// Returns every `.cu` file and its launchers.
    fn files() -> Vec<(&'static str, Vec<Launched>)> {
        let tensor = Width::ALL.into_iter().flat_map(|width| {
            [
                launched(AttentionTensor { width, ..Default::default() }),
                launched(AttentionTensorQueries { width, ..Default::default() }),
                launched(AttentionTensorKeys { width, ..Default::default() }),
            ]
        });
        vec![
            (COMMON, vec![]),
            (TENSOR, vec![]),
            (
                ROWS,
                vec![
                    default::<Embed>(),
                    default::<ResidualLayerNorm>(),
                    default::<ResidualAdd>(),
                    default::<LayerNormAgain>(),
                    default::<LayerNormBackward>(),
                    default::<GeluForward>(),
                    default::<GeluBackward>(),
                    default::<ColumnSums>(),
                    default::<LayerNormSums>(),
                    default::<AddPartials>(),
                    default::<GatherStored>(),
                    default::<GatherResidual>(),
                    default::<ScatterSumResidual>(),
                    default::<ScatterSumStored>(),
                    default::<EmbedBackward>(),
                ],
            ),
            (
                ATTENTION,
                vec![
                    default::<Attention>(),
                    default::<AttentionDelta>(),
                    default::<AttentionQueries>(),
                    default::<AttentionKeys>(),
                ],
            ),
            (ATTENTION_TENSOR, tensor.collect()),
            (HEAD, vec![default::<LogProbs>(), default::<Draw>()]),
            (OPTIM, vec![default::<SquareSums>(), default::<Adamw>(), default::<CopyWeights>()]),
            (DECODE, vec![default::<CacheAppend>(), default::<AttentionCached>()]),
        ]
    }

    /// Returns the kernels of a source with their parameters, each as type and name: `pointer wte`,
    /// `int rows`.
    fn signatures(text: &str) -> Vec<(String, Vec<String>)> {
        let text = text.replace("\\\n", " ");
        let macros: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("#define ")?.trim_start().split_once(' '))
            .collect();
        let kernels = text.split("\nKERNEL void ").skip(1).map(|rest| {
            let (name, rest) = rest.split_once('(').unwrap();
            let list = rest.split_once(')').unwrap().0;
            let list = macros
                .iter()
                .find(|(name, _)| *name == list)
                .map_or(list, |(_, expansion)| expansion);
            (name.to_string(), list.split(',').map(parameter).collect())
        });
        kernels.collect()
    }

    fn parameter(text: &str) -> String {
        let text = text.replace('*', " * ");
        let words: Vec<&str> = text.split_whitespace().filter(|word| *word != "const").collect();
        let (name, kind) = words.split_last().unwrap();
        let kind = match kind {
            [.., "*"] => "pointer",
            [kind @ ("int" | "long" | "float")] => kind,
            other => panic!("kernels have no parameter of type {other:?}"),
        };
        format!("{kind} {name}")
    }

    fn arguments(args: &[Argument]) -> Vec<String> {
        let kind = |value| match value {
            Value::Pointer(_) => "pointer",
            Value::Int(_) => "int",
            Value::Long(_) => "long",
            Value::Float(_) => "float",
        };
        args.iter().map(|arg| format!("{} {}", kind(arg.value), arg.name)).collect()
    }

    #[test]
    fn every_kernel_has_a_launcher_that_passes_what_its_signature_names() {
        let mut n = 0;
        for (text, launchers) in files() {
            let mut expected = signatures(text);
            n += expected.len();
            let mut found: Vec<_> = launchers
                .iter()
                .map(|l| (l.launch.kernel.to_string(), arguments(&l.launch.args)))
                .collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected);
        }
        assert_eq!(
            n,
            source(Storage::Bf16).matches("KERNEL void ").count(),
            "every kernel's signature is read"
        );
    }

    #[test]
    fn a_launcher_has_the_name_of_its_kernel() {
        let snake = |name: &str| {
            let letters = name.chars().flat_map(|c| {
                let under = c.is_uppercase().then_some('_');
                under.into_iter().chain(c.to_lowercase())
            });
            letters.skip(1).collect::<String>()
        };
        for launched in files().into_iter().flat_map(|(_, launchers)| launchers) {
            let (name, kernel) = (snake(launched.launcher), launched.launch.kernel);
            // Names of tensor-core kernels end with the width of a head.
            let rest = kernel
                .strip_prefix(&name)
                .unwrap_or_else(|| panic!("{} launches {kernel}", launched.launcher));
            assert!(
                rest.is_empty() || ["_32", "_64", "_128"].contains(&rest),
                "{} launches {kernel}",
                launched.launcher
            );
        }
    }

    #[test]
    fn signatures_are_read_in_every_form() {
        let text = "#define P S *a, \\\n  const float *b, int n\n// KERNEL void c(int n)\n\
                    KERNEL void k(P) { f(n); }\n\
                    KERNEL void l(const unsigned char* x,\n    long n, float y) {\n}";
        let parameters = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let expected = [
            ("k".to_string(), parameters(&["pointer a", "pointer b", "int n"])),
            ("l".to_string(), parameters(&["pointer x", "long n", "float y"])),
        ];
        assert_eq!(signatures(text), expected);
    }

    #[test]
    fn sizes_are_those_of_the_kernels() {
        let defined = |text: &str, name: &str| {
            let value =
                text.lines().find_map(|line| line.strip_prefix(&format!("#define {name} ")));
            value.unwrap().trim().parse::<usize>().unwrap()
        };
        assert_eq!(defined(ROWS, "SUM_ROWS"), SUM_ROWS);
        assert_eq!(defined(OPTIM, "TILE"), optim::TILE);
        assert_eq!(2 * defined(ATTENTION, "ROWS"), attention::TILE);
        assert_eq!(defined(TENSOR, "TILE_ROWS"), attention::TILE);
    }

    #[test]
    fn the_smallest_width_that_holds_a_head_is_taken() {
        let widths = [8, 24, 32, 40, 64, 72, 128].map(|d| Width::for_head(d).unwrap());
        let expected =
            [Width::W32, Width::W32, Width::W32, Width::W64, Width::W64, Width::W128, Width::W128];
        assert_eq!(widths, expected);
        assert!([12, 33, 136].into_iter().all(|d| Width::for_head(d).is_none()));
    }
}
