//! NVRTC, the compiler of the kernels.

use std::ffi::CString;

use cudarc::nvrtc;

use super::Storage;
use super::card::failed;
use super::kernels;
use crate::base::error::{Error, Result};

/// Returns whether NVRTC is installed.
#[allow(unsafe_code)]
pub(super) fn has_nvrtc() -> bool {
    // SAFETY: this call only tries to open a library.
    unsafe { nvrtc::sys::is_culib_present() }
}

/// Compiles all kernels to machine code for an architecture; needs no GPU. For a card newer than
/// NVRTC it makes PTX for the newest architecture that NVRTC knows, which the driver translates.
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
    let nvrtc_failed = |e: nvrtc::result::NvrtcError| failed("NVRTC", e);
    let program = nvrtc::result::create_program(&text, None).map_err(nvrtc_failed)?;
    // SAFETY: the program was just made and is used here only, and each buffer has the size that
    // NVRTC returned.
    #[allow(unsafe_code)]
    unsafe {
        if nvrtc::result::compile_program(program, &options).is_err() {
            let log = nvrtc::result::get_program_log(program).unwrap_or_default();
            let log: Vec<u8> = log.into_iter().map(|c| c as u8).take_while(|c| *c != 0).collect();
            let _ = nvrtc::result::destroy_program(program);
            let fix = "this is a bug, or NVRTC is too old for this GPU: please report it, \
                       or set HHALIGN_DEVICE=cpu";
            return Err(Error::device(
                "the GPU's kernels do not compile",
                String::from_utf8_lossy(&log),
                fix,
            ));
        }
        let mut size = 0;
        let mut code = vec![];
        if exact {
            nvrtc::sys::nvrtcGetCUBINSize(program, &raw mut size).result().map_err(nvrtc_failed)?;
            code.resize(size, 0u8);
            nvrtc::sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast())
                .result()
                .map_err(nvrtc_failed)?;
        } else {
            nvrtc::sys::nvrtcGetPTXSize(program, &raw mut size).result().map_err(nvrtc_failed)?;
            code.resize(size, 0u8);
            nvrtc::sys::nvrtcGetPTX(program, code.as_mut_ptr().cast())
                .result()
                .map_err(nvrtc_failed)?;
        }
        let _ = nvrtc::result::destroy_program(program);
        Ok(code)
    }
}

/// Returns the architectures that NVRTC supports, such as 75 or 90.
fn architectures() -> Result<Vec<i32>> {
    let mut n = 0;
    // SAFETY: the second call fills as many numbers as the first one returned.
    #[allow(unsafe_code)]
    unsafe {
        nvrtc::sys::nvrtcGetNumSupportedArchs(&raw mut n)
            .result()
            .map_err(|e| failed("NVRTC", e))?;
        let mut known = vec![0; n.max(0) as usize];
        nvrtc::sys::nvrtcGetSupportedArchs(known.as_mut_ptr())
            .result()
            .map_err(|e| failed("NVRTC", e))?;
        Ok(known)
    }
}
