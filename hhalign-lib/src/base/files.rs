//! Atomic writes: a temporary file in the same folder, then a rename.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::error::{Error, Result};

/// Writes `bytes` to `path` so that a reader sees the old file or the new one, never half of it.
///
/// Creates missing folders. The temporary file is in the same folder, since a rename cannot cross
/// file systems.
///
/// # Errors
/// The file system refuses; the error names the path.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary_beside(path)?;
    let written =
        File::create(&temporary).and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()));
    written.and_then(|()| fs::rename(&temporary, path)).map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io(path, e)
    })
}

/// Returns a path in the folder of `path` for a file that will replace it, and creates the folder.
///
/// # Errors
/// The folder cannot be created.
pub fn temporary_beside(path: &Path) -> Result<std::path::PathBuf> {
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    // Two threads that write one file get different names; the last rename wins.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(path.with_file_name(format!(".{name}.{}-{count}.part", std::process::id())))
}

/// Reads a whole file.
///
/// # Errors
/// The file system refuses; the error names the path.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::io(path, e))
}
