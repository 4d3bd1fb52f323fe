//! The files of a folder: opened beneath it only, regular files only, listed completely or not at all.
//!
//! A mounted ConfigMap is links within its folder, so links are followed; the kernel refuses those that lead out of it.

use std::{
    collections::BTreeMap,
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Dir, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use zeroize::Zeroizing;

use crate::{fault::quote, secret::SecretValue};

/// Longest file that is read.
pub const MAX_FILE: u64 = 8 << 20;
/// Most files of a tree that is listed.
const MAX_FILES: usize = 10_000;
/// Folders within folders of a listing.
const MAX_DEPTH: usize = 32;
/// How often a file is read again that changed while it was read.
const TRIES: usize = 3;

/// Why a file or tree was not read. The admin's path is in no message.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("{tree} does not exist: create it below the operator's root for trees, or correct provider.file.path")]
    Missing { tree: String },
    #[error("{tree} has no files at all: see whether it is mounted")]
    Empty { tree: String },
    #[error("{file} leads out of its tree, through a symbolic link: put the file itself there")]
    Escapes { file: String },
    #[error("{file} may not be read by the operator: give its user or group the right")]
    Denied { file: String },
    #[error("{file} is no regular file: devices, pipes and sockets are refused")]
    NotAFile { file: String },
    #[error("{file} is longer than {MAX_FILE} bytes: split it")]
    TooLarge { file: String },
    #[error("{tree} has more than {MAX_FILES} files or is deeper than {MAX_DEPTH} folders: choose a folder within it")]
    TooMany { tree: String },
    #[error("{file} changed each time while it was read: replace it by renaming a complete file")]
    Changing { file: String },
    #[error("{file} is a link to nothing: see what it leads to")]
    Dangling { file: String },
    #[error("{file} cannot be read: {cause}")]
    Io { file: String, cause: io::ErrorKind },
}

/// A folder that stands beneath the admin's root.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
    namespace: Option<String>,
    path: String,
    name: String,
}

/// Enough of a file to see that it was written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    place: (u64, u64),
    length: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            place: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
        }
    }
}

const WITHIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Folder {
    /// `path` was checked to be relative and without `..`; `.` is the root itself.
    pub fn beneath(root: &Path, namespace: Option<&str>, path: &str) -> Self {
        let name = format!("the tree {}", quote(path));
        Self { root: root.to_owned(), namespace: namespace.map(str::to_owned), path: path.to_owned(), name }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes of a file; none when the tree proves that there is no such file.
    ///
    /// # Errors
    /// [`TreeError`] for whatever else is in the way.
    pub fn read(&self, key: &str) -> Result<Option<SecretValue>, TreeError> {
        let top = self.open()?;
        for _ in 0..TRIES {
            let Some(file) = open_file(&top, key)? else { return self.missing(&top) };
            if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                return Ok(None);
            }
            if let Some(value) = read_whole(&file, key)? {
                return Ok(Some(value));
            }
        }
        Err(TreeError::Changing { file: quote(key) })
    }

    /// Every file below `path`, with its stamp.
    ///
    /// # Errors
    /// [`TreeError`] when any part of the tree cannot be listed: half a list would look like deletions.
    pub fn list(&self, path: Option<&str>) -> Result<BTreeMap<String, Stamp>, TreeError> {
        let top = self.open()?;
        let mut files = BTreeMap::new();
        let start = match path {
            None => self.open()?,
            Some(path) => match rustix::fs::openat2(&top, path, FOLDER, Mode::empty(), WITHIN) {
                Ok(folder) => folder,
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(files),
                Err(errno) => return Err(refusal(path, errno)),
            },
        };
        self.walk(&top, &start, path.unwrap_or_default(), &mut Vec::new(), &mut files)?;
        Ok(files)
    }

    fn open(&self) -> Result<OwnedFd, TreeError> {
        let opened = rustix::fs::open(&self.root, FOLDER, Mode::empty()).and_then(|mut top| {
            if let Some(namespace) = &self.namespace {
                top = rustix::fs::openat2(&top, namespace, FOLDER | OFlags::NOFOLLOW, Mode::empty(), WITHIN)?;
            }
            rustix::fs::openat2(&top, &self.path, FOLDER, Mode::empty(), WITHIN)
        });
        opened.map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => TreeError::Missing { tree: self.name.clone() },
            Errno::XDEV | Errno::LOOP => TreeError::Escapes { file: self.name.clone() },
            Errno::ACCESS | Errno::PERM => TreeError::Denied { file: self.name.clone() },
            other => TreeError::Io { file: self.name.clone(), cause: io::Error::from(other).kind() },
        })
    }

    /// A file is proven missing only by a tree that has files: an empty folder may be one on which nothing is mounted.
    fn missing(&self, top: &OwnedFd) -> Result<Option<SecretValue>, TreeError> {
        let mut entries = Dir::read_from(top).map_err(|errno| refusal(&self.name, errno))?;
        let has_any = entries.any(|entry| entry.is_ok_and(|entry| !matches!(entry.file_name().to_bytes(), b"." | b"..")));
        if has_any { Ok(None) } else { Err(TreeError::Empty { tree: self.name.clone() }) }
    }

    /// `above` are the folders on the way here: a link to one of them would never end.
    fn walk(
        &self,
        top: &OwnedFd,
        folder: &OwnedFd,
        path: &str,
        above: &mut Vec<(u64, u64)>,
        files: &mut BTreeMap<String, Stamp>,
    ) -> Result<(), TreeError> {
        let here = rustix::fs::fstat(folder).map_err(|errno| refusal(path, errno))?;
        if above.contains(&(here.st_dev, here.st_ino)) {
            return Ok(());
        }
        above.push((here.st_dev, here.st_ino));
        if above.len() > MAX_DEPTH {
            return Err(TreeError::TooMany { tree: self.name.clone() });
        }
        for name in names(folder).map_err(|errno| refusal(path, errno))? {
            let key = if path.is_empty() { name } else { format!("{path}/{name}") };
            self.visit(top, key, above, files)?;
        }
        above.pop();
        Ok(())
    }

    fn visit(&self, top: &OwnedFd, key: String, above: &mut Vec<(u64, u64)>, files: &mut BTreeMap<String, Stamp>) -> Result<(), TreeError> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = match rustix::fs::openat2(top, key.as_str(), flags, Mode::empty(), WITHIN) {
            Ok(found) => File::from(found),
            // Gone since its folder was read, a link to nothing, or one that leads out: no file of this tree.
            Err(Errno::NOENT | Errno::XDEV | Errno::LOOP | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(refusal(&key, errno)),
        };
        let metadata = found.metadata().map_err(|error| TreeError::Io { file: quote(&key), cause: error.kind() })?;
        if metadata.is_dir() {
            let folder = rustix::fs::openat2(top, key.as_str(), FOLDER, Mode::empty(), WITHIN).map_err(|errno| refusal(&key, errno))?;
            return self.walk(top, &folder, &key, above, files);
        }
        if metadata.is_file() {
            files.insert(key, Stamp::of(&metadata));
        }
        if files.len() > MAX_FILES { Err(TreeError::TooMany { tree: self.name.clone() }) } else { Ok(()) }
    }
}

/// What a folder holds, without the machinery of a mounted volume (`..data`, `..2026_01_31_12_00_00.123`), and without names that are no
/// text: they are nobody's keys.
fn names(folder: impl AsFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        match entry.file_name().to_str() {
            Ok(name) if !matches!(name, "." | "..") && !is_machinery(name) => names.push(name.to_owned()),
            _ => {}
        }
    }
    Ok(names)
}

fn is_machinery(name: &str) -> bool {
    name.strip_prefix("..").is_some_and(|rest| rest.starts_with("data") || rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// Whatever stands under the key, without waiting for a pipe's writer.
fn open_file(top: &OwnedFd, key: &str) -> Result<Option<File>, TreeError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    loop {
        let answer = match rustix::fs::openat2(top, key, flags, Mode::empty(), WITHIN) {
            // The kernel asks to try again when a rename came between.
            Err(Errno::AGAIN) => continue,
            Ok(file) => Ok(Some(File::from(file))),
            Err(Errno::NOENT) if is_link(top, key) => Err(TreeError::Dangling { file: quote(key) }),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
            Err(errno) => Err(refusal(key, errno)),
        };
        return answer;
    }
}

fn is_link(top: &OwnedFd, key: &str) -> bool {
    rustix::fs::openat2(top, key, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), WITHIN).is_ok()
}

/// The file as it was at one moment; none when it changed meanwhile.
fn read_whole(file: &File, key: &str) -> Result<Option<SecretValue>, TreeError> {
    let failed = |error: io::Error| TreeError::Io { file: quote(key), cause: error.kind() };
    let before = file.metadata().map_err(failed)?;
    if !before.is_file() {
        return Err(TreeError::NotAFile { file: quote(key) });
    }
    if before.len() > MAX_FILE {
        return Err(TreeError::TooLarge { file: quote(key) });
    }
    let length = usize::try_from(before.len()).unwrap_or_default();
    // One byte more shows a file that grew, and the buffer never moves.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
    file.take(before.len() + 1).read_to_end(&mut bytes).map_err(failed)?;
    let after = file.metadata().map_err(failed)?;
    let is_whole = bytes.len() == length && Stamp::of(&before) == Stamp::of(&after);
    Ok(is_whole.then(|| SecretValue::new(std::mem::take(&mut *bytes))))
}

fn refusal(file: &str, errno: Errno) -> TreeError {
    let file = quote(file);
    match errno {
        Errno::XDEV | Errno::LOOP => TreeError::Escapes { file },
        Errno::ACCESS | Errno::PERM => TreeError::Denied { file },
        Errno::NXIO | Errno::NODEV => TreeError::NotAFile { file },
        other => TreeError::Io { file, cause: io::Error::from(other).kind() },
    }
}
