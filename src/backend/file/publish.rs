//! New files: complete and durable under their name, or not there at all. Nothing that exists is replaced.

use std::{
    fs::{DirBuilder, File},
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use tempfile::NamedTempFile;

use super::error::StoreError;

/// Writes a new file with mode 0600.
///
/// # Errors
/// [`StoreError::Exists`] when the name is taken, else what kept it from being written.
pub fn file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut draft = draft_beside(path)?;
    draft.write_all(bytes).map_err(|error| failed(path, "writing", &error))?;
    publish(draft, path)
}

/// An empty file with mode 0600 in the folder of `path`, which is made (for the owner only) where it is missing.
pub fn draft_beside(path: &Path) -> Result<NamedTempFile, StoreError> {
    let folder = folder_of(path);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| failed(path, "making its folder", &error))?;
    tempfile::Builder::new().prefix(".keyferry-").tempfile_in(folder).map_err(|error| failed(path, "writing in its folder", &error))
}

/// Gives the draft its name, once its bytes are durable.
pub fn publish(draft: NamedTempFile, path: &Path) -> Result<(), StoreError> {
    draft.as_file().sync_all().map_err(|error| failed(path, "writing", &error))?;
    draft.persist_noclobber(path).map_err(|refused| match refused.error.kind() {
        std::io::ErrorKind::AlreadyExists => StoreError::Exists { place: path.display().to_string() },
        _ => failed(path, "naming it", &refused.error),
    })?;
    File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(|error| failed(path, "writing its folder", &error))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn failed(path: &Path, action: &'static str, error: &std::io::Error) -> StoreError {
    StoreError::io(&path.display().to_string(), action, error)
}
