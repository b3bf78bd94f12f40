//! An emulated card: the machine's C++ compiler compiles the kernels, and they run thread by
//! thread. It is slow; it serves to test every kernel and every pass on machines without a GPU.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use libloading::Library;

use crate::base::error::{Error, Result};
use crate::base::rng::sha256_hex;
use crate::compute::gpu::Storage;
use crate::compute::gpu::card::{Card, Dtypes, Operand, Product, Store, out_of_memory};
use crate::compute::gpu::kernels::{self, Argument, Launch};

/// A card that uses host memory.
pub(super) struct Emulated {
    allocated: Mutex<HashMap<u64, usize>>,
    libraries: Mutex<HashMap<Storage, Library>>,
    /// The size of the card's memory, in bytes.
    memory: usize,
    /// The number of operations so far.
    calls: AtomicUsize,
}

const ALIGNMENT: usize = 256;

impl Emulated {
    pub(super) fn new(memory: usize) -> Self {
        Self {
            allocated: Mutex::default(),
            libraries: Mutex::default(),
            memory,
            calls: AtomicUsize::new(0),
        }
    }

    fn used(&self) -> usize {
        self.allocated.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Panics unless these bytes are part of one allocation.
    fn check(&self, address: u64, bytes: usize) {
        assert!(self.holds(address, bytes), "{bytes} bytes at {address:#x} were never allocated");
    }

    fn holds(&self, address: u64, bytes: usize) -> bool {
        let allocated = self.allocated.lock().unwrap_or_else(PoisonError::into_inner);
        allocated.iter().any(|(begin, size)| {
            *begin <= address && address + bytes as u64 <= begin + *size as u64
        })
    }

    fn build(storage: Storage) -> Result<Library> {
        let source = kernels::emulated_source(storage);
        let name = format!("hhalign-card-{}-{}", sha256_hex([source.as_bytes()], 16), storage.id());
        let folder = std::env::temp_dir();
        let library = folder.join(format!("lib{name}.so"));
        if !library.exists() {
            static BUILT: AtomicUsize = AtomicUsize::new(0);
            let own =
                format!("{name}-{}-{}", std::process::id(), BUILT.fetch_add(1, Ordering::Relaxed));
            let own = folder.join(own);
            let (text, made) = (own.with_extension("cpp"), own.with_extension("so"));
            fs::write(&text, source).map_err(|e| Error::io(&text, e))?;
            let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
            let flags = ["-std=c++17", "-O2", "-fno-strict-aliasing", "-shared", "-fPIC", "-o"];
            let built = Command::new(&compiler)
                .args(flags)
                .arg(&made)
                .arg(format!("-DSTORAGE={}", storage.id()))
                .arg(&text)
                .output();
            let _ = fs::remove_file(&text);
            let fix = "install a C++ compiler (g++ 12 or newer), or name one in CXX";
            let built = built.map_err(|e| {
                Error::device("the emulated card has no C++ compiler", e.to_string(), fix)
                    .caused_by(e)
            })?;
            if !built.status.success() {
                let got = String::from_utf8_lossy(&built.stderr).into_owned();
                return Err(Error::device(
                    "the kernels do not compile for the emulated card",
                    got,
                    fix,
                ));
            }
            fs::rename(&made, &library).map_err(|e| Error::io(&library, e))?;
        }
        // SAFETY: the library was built from our own source and runs nothing when it is opened.
        #[allow(unsafe_code)]
        unsafe { Library::new(&library) }.map_err(|e| {
            Error::device(
                "the emulated card cannot be opened",
                e.to_string(),
                "remove it from the temporary folder",
            )
            .caused_by(e)
        })
    }

    #[allow(unsafe_code)]
    fn values(&self, storage: Storage, address: u64, n: usize) -> Vec<f32> {
        let bytes = n * storage.bytes();
        self.check(address, bytes);
        // SAFETY: the range is allocated, as checked above.
        storage.decode(unsafe { std::slice::from_raw_parts(address as *const u8, bytes) })
    }
}

/// Returns element (i, j) of an operand from its stored numbers.
fn read(operand: &Operand, data: &[f32], i: usize, j: usize) -> f32 {
    if operand.transposed { data[j * operand.row + i] } else { data[i * operand.row + j] }
}

fn extent(operand: &Operand, rows: usize, columns: usize) -> usize {
    let (lines, width) = if operand.transposed { (columns, rows) } else { (rows, columns) };
    (lines - 1) * operand.row + width
}

#[allow(unsafe_code)]
// SAFETY of all below: every range is checked against the allocations; kernels are ours.
impl Card for Emulated {
    fn name(&self) -> String {
        "an emulated GPU".into()
    }

    fn memory(&self) -> Result<(usize, usize)> {
        Ok((self.memory - self.used(), self.memory))
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (free, all) = self.memory()?;
        if bytes > free {
            return Err(out_of_memory(bytes, (free, all)));
        }
        let layout = Layout::from_size_align(bytes, ALIGNMENT).expect("a size that fits");
        let address = unsafe { alloc(layout) } as u64;
        // Uninitialised memory of a card is arbitrary; here it is NaN.
        unsafe { std::ptr::write_bytes(address as *mut u8, 0xff, bytes) };
        self.allocated.lock().unwrap_or_else(PoisonError::into_inner).insert(address, bytes);
        Ok(address)
    }

    fn free(&self, address: u64) {
        let bytes = self
            .allocated
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&address)
            .expect("allocated here");
        let layout = Layout::from_size_align(bytes, ALIGNMENT).expect("a size that fits");
        unsafe { dealloc(address as *mut u8, layout) };
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.check(address, bytes.len());
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.check(address, bytes.len());
        unsafe {
            std::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), bytes.len())
        };
        Ok(())
    }

    fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        self.check(address, bytes);
        unsafe { std::ptr::write_bytes(address as *mut u8, 0, bytes) };
        Ok(())
    }

    fn launch(&self, storage: Storage, launch: Launch) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        type Start = unsafe extern "C" fn(*mut *mut c_void, u32, u32, u32, u32);
        let mut libraries = self.libraries.lock().unwrap_or_else(PoisonError::into_inner);
        let library = match libraries.entry(storage) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Self::build(storage)?),
        };
        for arg in &launch.args {
            if let Some(address) = arg.address() {
                assert!(
                    self.holds(address, 0),
                    "{} of {} was never allocated",
                    arg.name(),
                    launch.kernel
                );
            }
        }
        let mut args = launch.args;
        let mut pointers: Vec<*mut c_void> = args.iter_mut().map(Argument::pointer).collect();
        let [x, y] = launch.grid.map(|n| n as u32);
        unsafe {
            let start: libloading::Symbol<'_, Start> = library
                .get(format!("launch_{}", launch.kernel).as_bytes())
                .map_err(|e| Error::bug("no such kernel", e.to_string()).caused_by(e))?;
            start(pointers.as_mut_ptr(), x, y, launch.block, launch.shared as u32);
        }
        Ok(())
    }

    fn product(&self, dtypes: Dtypes, product: &Product) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let [m, n, k] = product.size;
        let a = self.values(dtypes.storage, product.a.address, extent(&product.a, m, k));
        let b = self.values(dtypes.storage, product.b.address, extent(&product.b, k, n));
        let kind = if product.store == Store::Stored { dtypes.storage } else { Storage::F32 };
        let mut sums = vec![0f32; m * n];
        if product.store == Store::AddF32 {
            sums = self.values(kind, product.out, m * n);
        }
        let a = (0..m)
            .flat_map(|i| (0..k).map(move |l| (i, l)))
            .map(|(i, l)| read(&product.a, &a, i, l));
        let a: Vec<f32> = a.collect();
        for l in 0..k {
            let b: Vec<f32> = (0..n).map(|j| read(&product.b, &b, l, j)).collect();
            for (row, a) in sums.chunks_exact_mut(n).zip(a.chunks_exact(k)) {
                row.iter_mut().zip(&b).for_each(|(sum, b)| *sum += a[l] * b);
            }
        }
        self.write(product.out, &kind.encode(&sums))?;
        Ok(())
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn supports(&self, _: Storage) -> Result<()> {
        Ok(())
    }
}
