//! A CUDA device, through its driver, cuBLAS and NVRTC. All three are opened when the first GPU is
//! requested, so one engine serves machines with and without a GPU.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublas;
use cudarc::cublas::{result as blas, sys as blas_sys};
use cudarc::driver::{result as driver, sys};

use crate::base::error::{Error, Result};
use crate::compute::gpu::Storage;
use crate::compute::gpu::card::{Card, Dtypes, Product, Store, failed, out_of_memory};
use crate::compute::gpu::kernels::{Argument, Launch};
use crate::compute::gpu::nvrtc;

/// One device. All work is queued on one stream.
pub(super) struct Cuda {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    blas: Mutex<Blas>,
    modules: Mutex<HashMap<Storage, Module>>,
    /// Major and minor number of the card's architecture: (7, 5) is a T4, (8, 0) an A100, (9, 0) an
    /// H100.
    capability: (i32, i32),
    /// Whether the card reads pageable host memory directly.
    reads_in_place: bool,
}

struct Blas {
    handle: blas_sys::cublasHandle_t,
    /// Workspace for products.
    workspace: sys::CUdeviceptr,
}

struct Module {
    functions: HashMap<&'static str, sys::CUfunction>,
    module: sys::CUmodule,
}

// SAFETY: driver handles may be used from any thread in which the context is current, and every
// call makes it current; the cuBLAS handle is used under its lock.
#[allow(unsafe_code)]
unsafe impl Send for Cuda {}
#[allow(unsafe_code)]
unsafe impl Sync for Cuda {}

/// Workspace for cuBLAS's fastest products on Hopper; NVIDIA recommends 32 MiB.
const WORKSPACE: usize = 32 << 20;

/// Returns an error that names the first missing CUDA library, or `None` if all are found.
#[allow(unsafe_code)]
pub(in crate::compute) fn missing_library() -> Option<Error> {
    // SAFETY: these calls only try to open a library.
    let found = unsafe {
        [
            sys::is_culib_present(),
            blas_sys::is_culib_present(),
            cudarc::nvrtc::sys::is_culib_present(),
        ]
    };
    let fixes = [
        ("libcuda.so.1", "install the NVIDIA driver (nvidia-smi must work), or use the CPU"),
        (
            "libcublas.so",
            "pip install nvidia-cublas-cu12, then run ./scripts/setup, which finds it",
        ),
        (
            "libnvrtc.so",
            "pip install nvidia-cuda-nvrtc-cu12, then run ./scripts/setup, which finds it",
        ),
    ];
    let (name, fix) = fixes.into_iter().zip(found).find(|(_, found)| !found)?.0;
    Some(Error::device("no GPU can be used", format!("{name} was not found"), fix))
}

impl Cuda {
    /// Opens a device.
    pub(super) fn open(ordinal: usize) -> Result<Self> {
        if let Some(error) = missing_library() {
            return Err(error);
        }
        let unusable = |e: driver::DriverError| {
            Error::device(
                "no GPU can be used",
                format!("{e:?}"),
                "check that nvidia-smi lists a GPU, or use the CPU",
            )
            .caused_by(e)
        };
        driver::init().map_err(unusable)?;
        let count = driver::device::get_count().map_err(unusable)?;
        let device = i32::try_from(ordinal).ok().filter(|i| *i < count).ok_or_else(|| {
            Error::device(
                "no such GPU",
                format!("number {ordinal} of {count}"),
                "choose one that nvidia-smi lists",
            )
        })?;
        let device = driver::device::get(device).map_err(unusable)?;
        let attribute = |which| {
            // SAFETY: the driver has just returned the device.
            #[allow(unsafe_code)]
            unsafe { driver::device::get_attribute(device, which) }.map_err(unusable)
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
            let context = driver::primary_ctx::retain(device).map_err(unusable)?;
            driver::ctx::set_current(context).map_err(unusable)?;
            let stream = driver::stream::create(driver::stream::StreamKind::NonBlocking)
                .map_err(unusable)?;
            let handle = blas::create_handle().map_err(|e| failed("cuBLAS", e))?;
            blas::set_stream(handle, stream.cast()).map_err(|e| failed("cuBLAS", e))?;
            // Otherwise parts of a long sum would be added in 16 bits.
            let exact = blas_sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
            blas_sys::cublasSetMathMode(handle, exact).result().map_err(|e| failed("cuBLAS", e))?;
            let workspace = driver::malloc_sync(WORKSPACE).map_err(unusable)?;
            blas_sys::cublasSetWorkspace_v2(handle, workspace as *mut c_void, WORKSPACE)
                .result()
                .map_err(|e| failed("cuBLAS", e))?;
            let blas = Mutex::new(Blas { handle, workspace });
            Ok(Self {
                device,
                context,
                stream,
                blas,
                modules: Mutex::default(),
                capability,
                reads_in_place,
            })
        }
    }

    /// Makes the context current in the calling thread.
    fn make_current(&self) -> Result<()> {
        // SAFETY: the context lives as long as this device.
        #[allow(unsafe_code)]
        unsafe { driver::ctx::set_current(self.context) }.map_err(|e| failed("context", e))
    }

    /// Returns a kernel. The first request for a dtype compiles all kernels for this card.
    fn function(&self, storage: Storage, kernel: &'static str) -> Result<sys::CUfunction> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match modules.entry(storage) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(Module::load(&nvrtc::compile(storage, self.capability)?)?)
            }
        };
        if let Some(function) = module.functions.get(kernel) {
            return Ok(*function);
        }
        let name = CString::new(kernel).expect("kernels have plain names");
        // SAFETY: the module is loaded and stays loaded until this device is dropped.
        #[allow(unsafe_code)]
        let function = unsafe { driver::module::get_function(module.module, name) }
            .map_err(|e| failed(kernel, e))?;
        module.functions.insert(kernel, function);
        Ok(function)
    }
}

impl Module {
    fn load(code: &[u8]) -> Result<Self> {
        // SAFETY: this is the complete output of NVRTC: machine code, or text that ends with a
        // zero.
        #[allow(unsafe_code)]
        let module = unsafe { driver::module::load_data(code.as_ptr().cast()) }
            .map_err(|e| failed("kernels", e))?;
        Ok(Self { functions: HashMap::new(), module })
    }
}

#[allow(unsafe_code)]
// SAFETY of all below: addresses come from `allocate` and the passes keep accesses within the
// allocations; the context is current; the stream keeps the order of all operations on them.
impl Card for Cuda {
    fn name(&self) -> String {
        driver::device::get_name(self.device).unwrap_or_else(|_| "an unnamed GPU".into())
    }

    fn memory(&self) -> Result<(usize, usize)> {
        self.make_current()?;
        driver::mem_get_info().map_err(|e| failed("memory", e))
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.make_current()?;
        match unsafe { driver::malloc_sync(bytes) } {
            Ok(address) => Ok(address),
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Err(out_of_memory(bytes, self.memory()?))
            }
            Err(e) => Err(failed("memory", e)),
        }
    }

    fn free(&self, address: u64) {
        // Waits for queued work that may still read the memory. An error here was reported before.
        if self.make_current().is_ok() {
            let _ = unsafe { driver::stream::synchronize(self.stream) };
            let _ = unsafe { driver::free_sync(address) };
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.make_current()?;
        // The driver stages pageable memory before the call returns, so `bytes` may be dropped. If
        // the card reads host memory directly, wait for it.
        unsafe { driver::memcpy_htod_async(address, bytes, self.stream) }
            .map_err(|e| failed("copy to the card", e))?;
        if self.reads_in_place {
            unsafe { driver::stream::synchronize(self.stream) }
                .map_err(|e| failed("copy to the card", e))?;
        }
        Ok(())
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.make_current()?;
        unsafe { driver::memcpy_dtoh_async(bytes, address, self.stream) }
            .map_err(|e| failed("copy from the card", e))?;
        unsafe { driver::stream::synchronize(self.stream) }.map_err(|e| failed("a kernel", e))
    }

    fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.make_current()?;
        unsafe { driver::memset_d8_async(address, 0, bytes, self.stream) }
            .map_err(|e| failed("clearing", e))
    }

    fn launch(&self, storage: Storage, launch: Launch) -> Result<()> {
        self.make_current()?;
        let function = self.function(storage, launch.kernel)?;
        // Shared memory above 48 KB must be requested; 2 KB of it are left for a kernel's fixed
        // arrays.
        if launch.shared > 46 << 10 {
            let attribute =
                sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            unsafe {
                driver::function::set_function_attribute(function, attribute, launch.shared as i32)
            }
            .map_err(|e| {
                let got = format!(
                    "{} needs {} KB of shared memory: {e:?}",
                    launch.kernel,
                    launch.shared >> 10
                );
                Error::device(
                    "this GPU has too little shared memory for heads of this width",
                    got,
                    "raise n_head, or use the CPU",
                )
            })?;
        }
        let mut args = launch.args;
        let mut pointers: Vec<*mut c_void> = args.iter_mut().map(Argument::pointer).collect();
        let [x, y] = launch.grid.map(|n| n as u32);
        let block = (launch.block, 1, 1);
        unsafe {
            driver::launch_kernel(
                function,
                (x, y, 1),
                block,
                launch.shared as u32,
                self.stream,
                &mut pointers,
            )
        }
        .map_err(|e| failed(launch.kernel, e))
    }

    /// Computes the transposed product with its operands swapped, since cuBLAS matrices are
    /// column-major.
    fn product(&self, dtypes: Dtypes, product: &Product) -> Result<()> {
        self.make_current()?;
        use cublas::sys::{
            cublasComputeType_t as Compute, cublasGemmAlgo_t, cublasOperation_t,
            cudaDataType_t as Kind,
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
        let operation = |t: bool| {
            if t { cublasOperation_t::CUBLAS_OP_T } else { cublasOperation_t::CUBLAS_OP_N }
        };
        let [m, n, k] = product.size.map(|s| s as i32);
        let (one, beta) = (1.0f32, if product.store == Store::AddF32 { 1.0f32 } else { 0.0 });
        unsafe {
            blas::gemm_ex(
                blas.handle,
                operation(product.b.transposed),
                operation(product.a.transposed),
                n,
                m,
                k,
                std::ptr::from_ref(&one).cast(),
                product.b.address as *const c_void,
                kind,
                product.b.row as i32,
                product.a.address as *const c_void,
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
            Storage::Bf16 => (
                (8, 0),
                "this GPU has no bf16",
                "use Precision::Auto, which chooses what the GPU supports",
            ),
            Storage::F16 => ((7, 5), "this GPU is too old for f16", "use Precision::F32"),
        };
        if self.capability >= needed {
            return Ok(());
        }
        let got =
            format!("{} of architecture {}.{}", self.name(), self.capability.0, self.capability.1);
        Err(Error::device(what, got, fix))
    }
}

impl Drop for Cuda {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.make_current().is_err() {
            return;
        }
        // SAFETY: nothing else holds these handles now.
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

/// Returns the device, which the whole process shares.
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
