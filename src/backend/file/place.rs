//! Where a store and its master key stand, and the only way in which their files are opened: beneath the admin's root, regular files
//! only, readable by nobody else.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};
use zeroize::Zeroizing;

use super::error::StoreError;

/// What the file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    ReadWrite,
}

/// A file by the path that its owner gave, or by one of a spec that must stay beneath the root.
#[derive(Clone, Debug)]
pub struct Place {
    origin: Origin,
    /// How messages name it.
    name: String,
}

#[derive(Clone, Debug)]
enum Origin {
    Path(PathBuf),
    Beneath { root: PathBuf, namespace: Option<String>, path: String },
}

/// Enough of a file to see that it was written or replaced. Its times alone would not do: two writes within a tick of the kernel's
/// clock have the same; but every commit changes the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    head: [u8; 32],
}

/// The container's head, with the numbers of its commits.
const HEAD: usize = 512;

impl Place {
    /// A path that the person at the command line, or the admin in the operator's settings, gave.
    pub fn path(path: &Path) -> Self {
        Self::named(path, path.display().to_string())
    }

    /// As [`Place::path`], under a name that may stand in a status.
    pub fn named(path: &Path, name: impl Into<String>) -> Self {
        Self { origin: Origin::Path(path.to_owned()), name: name.into() }
    }

    /// A path out of a spec, which was checked to be relative and without `..`.
    pub fn beneath(root: &Path, namespace: Option<&str>, path: &str) -> Self {
        let name = format!("the file store {path:?}");
        Self { origin: Origin::Beneath { root: root.to_owned(), namespace: namespace.map(str::to_owned), path: path.to_owned() }, name }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens the file and judges what was opened, so that nothing can be exchanged in between.
    ///
    /// # Errors
    /// [`StoreError`] when it is missing, out of bounds, no regular file, or open to others.
    pub fn open(&self, access: Access) -> Result<File, StoreError> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        // Without NONBLOCK a named pipe would hold the caller until somebody writes to it.
        let file = self.open_as(flags | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        self.refuse_strange(&file)?;
        Ok(file)
    }

    /// What stands there now; `None` when it cannot be opened.
    pub fn stamp(&self) -> Option<Stamp> {
        let file = self.open(Access::Read).ok()?;
        let metadata = file.metadata().ok()?;
        let mut head = Zeroizing::new([0; HEAD]);
        let mut length = 0;
        let mut file = file.take(HEAD as u64);
        while let Ok(read @ 1..) = file.read(&mut head[length..]) {
            length += read;
        }
        let mut stamp = Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            head: [0; 32],
        };
        stamp.head.copy_from_slice(digest(&SHA256, &head[..length]).as_ref());
        Some(stamp)
    }

    fn open_as(&self, flags: OFlags) -> Result<File, StoreError> {
        let flags = flags | OFlags::CLOEXEC;
        let opened = match &self.origin {
            Origin::Path(path) => rustix::fs::open(path, flags, Mode::empty()),
            Origin::Beneath { root, namespace, path } => open_beneath(root, namespace.as_deref(), path, flags),
        };
        opened.map(File::from).map_err(|errno| self.refusal(errno))
    }

    fn refusal(&self, errno: Errno) -> StoreError {
        let place = self.name.clone();
        match errno {
            Errno::NOENT | Errno::NOTDIR => StoreError::Missing { place },
            Errno::XDEV | Errno::LOOP => StoreError::Escapes { place },
            Errno::ISDIR | Errno::NXIO | Errno::NODEV => StoreError::NotAFile { place },
            other => StoreError::io(&self.name, "opening", &other.into()),
        }
    }

    fn refuse_strange(&self, file: &File) -> Result<(), StoreError> {
        let metadata = file.metadata().map_err(|error| StoreError::io(&self.name, "looking at it", &error))?;
        if !metadata.is_file() {
            return Err(StoreError::NotAFile { place: self.name.clone() });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & forbidden_bits(metadata.uid(), rustix::process::geteuid().as_raw()) != 0 {
            return Err(StoreError::OpenToOthers { place: self.name.clone(), mode });
        }
        Ok(())
    }
}

/// Mode bits that must not be set. Our own file is ours alone. A volume of a cluster belongs to another user and is reached through its
/// group, so there the group may have it.
fn forbidden_bits(owner: u32, user: u32) -> u32 {
    if owner == user || user == 0 { 0o077 } else { 0o007 }
}

/// A mounted Secret is links within its folder: they may be followed, but never out of it, and never out of a tenant's own folder.
fn open_beneath(root: &Path, namespace: Option<&str>, path: &str, flags: OFlags) -> Result<rustix::fd::OwnedFd, Errno> {
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut top = rustix::fs::open(root, folder, Mode::empty())?;
    if let Some(namespace) = namespace {
        top = rustix::fs::openat2(&top, namespace, folder | OFlags::NOFOLLOW, Mode::empty(), within)?;
    }
    loop {
        match rustix::fs::openat2(&top, path, flags, Mode::empty(), within) {
            // The kernel asks to try again when a rename came between.
            Err(Errno::AGAIN) => {}
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, Place, forbidden_bits};
    use crate::backend::file::error::StoreError;
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        path::Path,
    };

    fn private(path: &Path) {
        fs::write(path, b"x").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_link_opens_what_stays_beneath_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("team-a")).unwrap();
        fs::create_dir_all(root.join("team-b")).unwrap();
        for path in [folder.path().join("outside"), root.join("inside"), root.join("team-b/theirs")] {
            private(&path);
        }
        symlink("inside", root.join("link-inside")).unwrap();
        symlink("../outside", root.join("link-up")).unwrap();
        symlink(folder.path().join("outside"), root.join("link-absolute")).unwrap();
        symlink("../team-b", root.join("team-a/neighbour")).unwrap();
        symlink("team-b", root.join("team-c")).unwrap();

        let open = |namespace, path: &str| Place::beneath(&root, namespace, path).open(Access::Read);
        assert!(open(None, "inside").is_ok());
        assert!(open(None, "link-inside").is_ok());
        assert!(open(Some("team-b"), "theirs").is_ok());
        for (namespace, path) in [
            (None, "link-up"),
            (None, "link-absolute"),
            (None, "../outside"),
            (Some("team-a"), "neighbour/theirs"),
            (Some("team-a"), "../inside"),
        ] {
            assert!(matches!(open(namespace, path), Err(StoreError::Escapes { .. })), "{namespace:?} {path}");
        }
        assert!(open(Some("team-c"), "theirs").is_err(), "a namespace's folder may not be a link to another's");
    }

    #[test]
    fn only_regular_files_are_opened_and_a_pipe_does_not_hold_the_reader() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        for path in [pipe.as_path(), folder.path(), Path::new("/dev/null")] {
            for access in [Access::Read, Access::ReadWrite] {
                let refused = Place::path(path).open(access).unwrap_err();
                assert!(matches!(refused, StoreError::NotAFile { .. }), "{}: {refused}", path.display());
            }
        }
    }

    #[test]
    fn a_file_that_others_can_open_is_refused_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        private(&path);
        for mode in [0o644, 0o640, 0o620, 0o604, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = Place::path(&path).open(Access::Read).unwrap_err().to_string();
            assert!(refused.contains(&format!("mode {mode:04o}")) && refused.contains("chmod 600"), "{refused}");
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(Place::path(&path).open(Access::Read).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn the_group_may_have_what_a_volume_owns_and_the_world_never() {
        assert_eq!(forbidden_bits(1000, 1000), 0o077);
        assert_eq!(forbidden_bits(0, 0), 0o077);
        assert_eq!(forbidden_bits(1000, 0), 0o077);
        assert_eq!(forbidden_bits(0, 1000), 0o007);
    }
}
