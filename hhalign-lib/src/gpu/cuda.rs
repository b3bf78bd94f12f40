//! A CUDA device through its driver, cuBLAS and NVRTC. All three are opened when the first GPU is asked for, so one engine
//! serves machines with and without a GPU.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublas::{result as blas, sys as blas_sys};
use cudarc::driver::{result as driver, sys};
use cudarc::{cublas, nvrtc};

use super::Storage;
use super::card::{Card, Dtypes, Product, Store, out_of_memory};
use super::kernels::{self, Argument, Launch};
use crate::error::{Error, Result};

/// One device. Everything is queued on one stream.
pub(super) struct Cuda {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    blas: Mutex<Blas>,
    modules: Mutex<HashMap<Storage, Module>>,
    /// Major and minor number of the card's architecture: (7, 5) is a T4, (8, 0) an A100, (9, 0) an H100.
    capability: (i32, i32),
    /// Whether the card can read the processor's memory where it lies.
    reads_in_place: bool,
}

struct Blas {
    handle: blas_sys::cublasHandle_t,
    /// Room that products may use.
    workspace: sys::CUdeviceptr,
}

struct Module {
    functions: HashMap<&'static str, sys::CUfunction>,
    module: sys::CUmodule,
}

// SAFETY: handles of the driver may be used from any thread in which the context is current, which every call sees to; the
// cuBLAS handle is used under its lock.
#[allow(unsafe_code)]
unsafe impl Send for Cuda {}
#[allow(unsafe_code)]
unsafe impl Sync for Cuda {}

/// Memory that cuBLAS may use on Hopper for its fastest products; NVIDIA names 32 MiB.
const WORKSPACE: usize = 32 << 20;

fn failed(what: &str, error: impl std::fmt::Debug) -> Error {
    Error::new(
        format!("the GPU failed: {what}"),
        format!("{error:?}"),
        "start the kernel again; if the error returns, set HHALIGN_DEVICE=cpu",
    )
}

/// What of CUDA's libraries is missing on this machine, if anything.
#[allow(unsafe_code)]
pub(super) fn missing() -> Option<Error> {
    // SAFETY: these only try to open a library.
    let found = unsafe { [sys::is_culib_present(), blas_sys::is_culib_present(), nvrtc::sys::is_culib_present()] };
    let fixes = [
        ("libcuda.so.1", "install the NVIDIA driver (nvidia-smi must work), or use the CPU"),
        ("libcublas.so", "pip install nvidia-cublas-cu12, then run ./scripts/setup, which finds it"),
        ("libnvrtc.so", "pip install nvidia-cuda-nvrtc-cu12, then run ./scripts/setup, which finds it"),
    ];
    let (name, fix) = fixes.into_iter().zip(found).find(|(_, found)| !found)?.0;
    Some(Error::new("no GPU can be used", format!("{name} was not found"), fix))
}

/// Whether the compiler of the kernels is there.
#[allow(unsafe_code)]
pub(super) fn has_nvrtc() -> bool {
    // SAFETY: this only tries to open a library.
    unsafe { nvrtc::sys::is_culib_present() }
}

impl Cuda {
    /// Opens a device.
    pub(super) fn open(ordinal: usize) -> Result<Self> {
        if let Some(error) = missing() {
            return Err(error);
        }
        let broken = |e: driver::DriverError| {
            Error::new("no GPU can be used", format!("{e:?}"), "see that nvidia-smi lists a GPU, or use the CPU")
        };
        driver::init().map_err(broken)?;
        let count = driver::device::get_count().map_err(broken)?;
        let device = i32::try_from(ordinal).ok().filter(|i| *i < count).ok_or_else(|| {
            Error::new("no such GPU", format!("number {ordinal} of {count}"), "choose one that nvidia-smi lists")
        })?;
        let device = driver::device::get(device).map_err(broken)?;
        let attribute = |which| {
            // SAFETY: the device was just given by the driver.
            #[allow(unsafe_code)]
            unsafe { driver::device::get_attribute(device, which) }.map_err(broken)
        };
        use sys::CUdevice_attribute_enum as Attribute;
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let reads_in_place = attribute(Attribute::CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS)? == 1;
        // SAFETY: each handle is made right before it is used, in the context that is made current.
        #[allow(unsafe_code)]
        unsafe {
            let context = driver::primary_ctx::retain(device).map_err(broken)?;
            driver::ctx::set_current(context).map_err(broken)?;
            let stream = driver::stream::create(driver::stream::StreamKind::NonBlocking).map_err(broken)?;
            let handle = blas::create_handle().map_err(|e| failed("cuBLAS", e))?;
            blas::set_stream(handle, stream.cast()).map_err(|e| failed("cuBLAS", e))?;
            // Parts of a long sum would else be added in 16 bits.
            let exact = blas_sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
            blas_sys::cublasSetMathMode(handle, exact).result().map_err(|e| failed("cuBLAS", e))?;
            let workspace = driver::malloc_sync(WORKSPACE).map_err(broken)?;
            blas_sys::cublasSetWorkspace_v2(handle, workspace as *mut c_void, WORKSPACE)
                .result()
                .map_err(|e| failed("cuBLAS", e))?;
            let blas = Mutex::new(Blas { handle, workspace });
            Ok(Self { device, context, stream, blas, modules: Mutex::default(), capability, reads_in_place })
        }
    }

    /// Every call may come from another thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as this device.
        #[allow(unsafe_code)]
        unsafe { driver::ctx::set_current(self.context) }.map_err(|e| failed("context", e))
    }

    /// A kernel, compiled for this card when the first of its kind is asked for.
    fn function(&self, storage: Storage, kernel: &'static str) -> Result<sys::CUfunction> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match modules.entry(storage) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => place.insert(Module::load(&compile(storage, self.capability)?)?),
        };
        if let Some(function) = module.functions.get(kernel) {
            return Ok(*function);
        }
        let name = CString::new(kernel).expect("kernels have plain names");
        // SAFETY: the module is loaded and never unloaded before this device goes.
        #[allow(unsafe_code)]
        let function = unsafe { driver::module::get_function(module.module, name) }.map_err(|e| failed(kernel, e))?;
        module.functions.insert(kernel, function);
        Ok(function)
    }
}

impl Module {
    fn load(code: &[u8]) -> Result<Self> {
        // SAFETY: this is what NVRTC made, whole: machine code, or text that ends with a zero.
        #[allow(unsafe_code)]
        let module = unsafe { driver::module::load_data(code.as_ptr().cast()) }.map_err(|e| failed("kernels", e))?;
        Ok(Self { functions: HashMap::new(), module })
    }
}

/// All kernels as machine code for an architecture, by NVRTC; needs no GPU. A card that is newer than NVRTC gets the newest
/// text that NVRTC knows, which the driver translates.
pub(super) fn compile(storage: Storage, capability: (i32, i32)) -> Result<Vec<u8>> {
    let wanted = capability.0 * 10 + capability.1;
    let known = architectures()?;
    let newest = known.iter().copied().filter(|a| *a <= wanted).max().unwrap_or(wanted);
    let exact = newest == wanted;
    let options = [
        format!("--gpu-architecture={}_{newest}", if exact { "sm" } else { "compute" }),
        format!("-DSTORAGE={}", storage.id()),
        "--std=c++17".to_string(),
    ];
    let text = CString::new(kernels::source(storage)).expect("the kernels hold no zero");
    let broken = |e: nvrtc::result::NvrtcError| failed("NVRTC", e);
    let program = nvrtc::result::create_program(&text, None).map_err(broken)?;
    // SAFETY: the program was just made, is used here only, and each buffer is as long as NVRTC said.
    #[allow(unsafe_code)]
    unsafe {
        if nvrtc::result::compile_program(program, &options).is_err() {
            let log = nvrtc::result::get_program_log(program).unwrap_or_default();
            let log: Vec<u8> = log.into_iter().map(|c| c as u8).take_while(|c| *c != 0).collect();
            let _ = nvrtc::result::destroy_program(program);
            let fix =
                "this is a bug, or an NVRTC that is too old for this GPU: please report it, or set HHALIGN_DEVICE=cpu";
            return Err(Error::new("the GPU's kernels do not compile", String::from_utf8_lossy(&log), fix));
        }
        let mut size = 0;
        let mut code = vec![];
        if exact {
            nvrtc::sys::nvrtcGetCUBINSize(program, &raw mut size).result().map_err(broken)?;
            code.resize(size, 0u8);
            nvrtc::sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result().map_err(broken)?;
        } else {
            nvrtc::sys::nvrtcGetPTXSize(program, &raw mut size).result().map_err(broken)?;
            code.resize(size, 0u8);
            nvrtc::sys::nvrtcGetPTX(program, code.as_mut_ptr().cast()).result().map_err(broken)?;
        }
        let _ = nvrtc::result::destroy_program(program);
        Ok(code)
    }
}

/// The architectures that NVRTC makes code for, such as 75 or 90.
fn architectures() -> Result<Vec<i32>> {
    let mut n = 0;
    // SAFETY: the second call fills as many numbers as the first one said.
    #[allow(unsafe_code)]
    unsafe {
        nvrtc::sys::nvrtcGetNumSupportedArchs(&raw mut n).result().map_err(|e| failed("NVRTC", e))?;
        let mut known = vec![0; n.max(0) as usize];
        nvrtc::sys::nvrtcGetSupportedArchs(known.as_mut_ptr()).result().map_err(|e| failed("NVRTC", e))?;
        Ok(known)
    }
}

#[allow(unsafe_code)]
// SAFETY of all below: addresses come from `allocate` and lie within what was allocated, which the passes see to; the context
// is current; the stream keeps the order of everything that touches them.
impl Card for Cuda {
    fn name(&self) -> String {
        driver::device::get_name(self.device).unwrap_or_else(|_| "a GPU without a name".into())
    }

    fn memory(&self) -> Result<(usize, usize)> {
        self.enter()?;
        driver::mem_get_info().map_err(|e| failed("memory", e))
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        match unsafe { driver::malloc_sync(bytes) } {
            Ok(at) => Ok(at),
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(out_of_memory(bytes, self.memory()?)),
            Err(e) => Err(failed("memory", e)),
        }
    }

    fn free(&self, at: u64) {
        // Work that still reads it is waited for; an error here has been seen before.
        if self.enter().is_ok() {
            let _ = unsafe { driver::stream::synchronize(self.stream) };
            let _ = unsafe { driver::free_sync(at) };
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.enter()?;
        // Pageable memory is staged before the call returns, so `bytes` may go; a card that reads it in place is waited for.
        unsafe { driver::memcpy_htod_async(at, bytes, self.stream) }.map_err(|e| failed("copy to the card", e))?;
        if self.reads_in_place {
            unsafe { driver::stream::synchronize(self.stream) }.map_err(|e| failed("copy to the card", e))?;
        }
        Ok(())
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.enter()?;
        unsafe { driver::memcpy_dtoh_async(bytes, at, self.stream) }.map_err(|e| failed("copy from the card", e))?;
        unsafe { driver::stream::synchronize(self.stream) }.map_err(|e| failed("a kernel", e))
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.enter()?;
        unsafe { driver::memset_d8_async(at, 0, bytes, self.stream) }.map_err(|e| failed("clearing", e))
    }

    fn launch(&self, storage: Storage, launch: Launch) -> Result<()> {
        self.enter()?;
        let function = self.function(storage, launch.kernel)?;
        // Up to 48 KB may be taken without asking, a kernel's fixed arrays among them.
        if launch.shared > 46 << 10 {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            unsafe { driver::function::set_function_attribute(function, attribute, launch.shared as i32) }.map_err(
                |e| {
                    let got = format!("{} needs {} KB of shared memory: {e:?}", launch.kernel, launch.shared >> 10);
                    Error::new("this GPU is too small for heads of this width", got, "raise n_head, or use the CPU")
                },
            )?;
        }
        let mut args = launch.args;
        let mut pointers: Vec<*mut c_void> = args.iter_mut().map(Argument::pointer).collect();
        let [x, y] = launch.grid.map(|n| n as u32);
        let block = (launch.block, 1, 1);
        unsafe { driver::launch_kernel(function, (x, y, 1), block, launch.shared as u32, self.stream, &mut pointers) }
            .map_err(|e| failed(launch.kernel, e))
    }

    /// cuBLAS reads columns: a product of rows is that of the transposes in the other order.
    fn product(&self, dtypes: Dtypes, product: &Product) -> Result<()> {
        self.enter()?;
        use cublas::sys::{
            cublasComputeType_t as Compute, cublasGemmAlgo_t, cublasOperation_t, cudaDataType_t as Kind,
        };
        let blas = self.blas.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = match dtypes.storage {
            Storage::F32 => Kind::CUDA_R_32F,
            Storage::Bf16 => Kind::CUDA_R_16BF,
            Storage::F16 => Kind::CUDA_R_16F,
        };
        let compute = match (dtypes.storage, dtypes.tf32) {
            (Storage::F32, true) => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => Compute::CUBLAS_COMPUTE_32F,
        };
        let turned = |t: bool| if t { cublasOperation_t::CUBLAS_OP_T } else { cublasOperation_t::CUBLAS_OP_N };
        let [m, n, k] = product.size.map(|s| s as i32);
        let (one, beta) = (1.0f32, if product.store == Store::AddF32 { 1.0f32 } else { 0.0 });
        unsafe {
            blas::gemm_ex(
                blas.handle,
                turned(product.b.transposed),
                turned(product.a.transposed),
                n,
                m,
                k,
                std::ptr::from_ref(&one).cast(),
                product.b.at as *const c_void,
                kind,
                product.b.row as i32,
                product.a.at as *const c_void,
                kind,
                product.a.row as i32,
                std::ptr::from_ref(&beta).cast(),
                product.out as *mut c_void,
                if product.store == Store::Stored { kind } else { Kind::CUDA_R_32F },
                n,
                compute,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(|e| failed("a matrix product", e))
    }

    fn supports(&self, storage: Storage) -> Result<()> {
        let (needed, what, fix) = match storage {
            Storage::F32 => return Ok(()),
            Storage::Bf16 => ((8, 0), "this GPU has no bf16", "use Precision::Auto, which takes what there is"),
            Storage::F16 => ((7, 5), "this GPU is too old for our kernels in f16", "use Precision::F32"),
        };
        if self.capability >= needed {
            return Ok(());
        }
        let got = format!("{} of architecture {}.{}", self.name(), self.capability.0, self.capability.1);
        Err(Error::new(what, got, fix))
    }
}

impl Drop for Cuda {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        // SAFETY: nobody else holds these handles now.
        unsafe {
            let blas = self.blas.get_mut().unwrap_or_else(PoisonError::into_inner);
            let _ = blas::destroy_handle(blas.handle);
            let _ = driver::free_sync(blas.workspace);
            for module in self.modules.get_mut().unwrap_or_else(PoisonError::into_inner).values() {
                let _ = driver::module::unload(module.module);
            }
            let _ = driver::stream::destroy(self.stream);
            let _ = driver::primary_ctx::release(self.device);
        }
    }
}

/// A device that all of this process share.
pub(super) fn shared(ordinal: usize) -> Result<Arc<dyn Card>> {
    static OPEN: Mutex<Option<HashMap<usize, Arc<Cuda>>>> = Mutex::new(None);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = open.get_or_insert_default();
    if let Some(cuda) = open.get(&ordinal) {
        return Ok(cuda.clone());
    }
    let cuda = Arc::new(Cuda::open(ordinal)?);
    open.insert(ordinal, cuda.clone());
    Ok(cuda)
}
