//! What can go wrong with a store file, in sentences that name place and remedy and never a value; and which fault each of them is.

use std::io;

use jiff::Timestamp;

use super::{
    about::{Status, Unfit},
    kind::Kind,
};
use crate::fault::{Class, Fault, Reason};

/// Why the store could not do what was asked. `place` is a path as the reader of the message knows it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{place} does not exist: create it with `keyferry store init` or correct the path")]
    Missing { place: String },
    #[error("{place} leads out of its folder, through a symbolic link or `..`: put the file itself there")]
    Escapes { place: String },
    #[error("{place} is no regular file: devices, pipes and folders are refused")]
    NotAFile { place: String },
    #[error("{place} can be opened by others (mode {mode:04o}): run `chmod 600` on it")]
    OpenToOthers { place: String, mode: u32 },
    #[error("{place} holds no master key: it must be one line of base64 with 32 bytes")]
    NotAKey { place: String },
    #[error("{place} was made with another master key: use the key file that `keyferry store init` made or used for it")]
    WrongKey { place: String },
    #[error("{place} has store format {found} and this build knows format {known}: use a build of Keyferry that knows it")]
    Format { place: String, found: u32, known: u32 },
    #[error("{place} is damaged or no Keyferry store ({part}): restore it from a backup or correct the path")]
    Damaged { place: String, part: &'static str },
    #[error(
        "{place} was left unfinished by a writer that was killed and cannot be mended from here: run `keyferry store list` on it where it can be written"
    )]
    Unfinished { place: String },
    #[error("{place} is in use by a program that does not share it: end that program")]
    Busy { place: String },
    #[error("{place}: {action} failed: {cause}")]
    Io { place: String, action: &'static str, cause: io::ErrorKind },
    #[error("{place} exists already: it is left as it is; choose another path or remove it yourself")]
    Exists { place: String },
    #[error("the key {key:?} has version {latest} and not {expected}: nothing was written; read it again and decide anew")]
    Conflict { key: String, latest: u64, expected: u64 },
    #[error("the key {key:?} does not exist in {place}: `keyferry store list` shows what does")]
    NoKey { place: String, key: String },
    #[error("the key {key:?} has no version {version}: `keyferry store versions` shows what it has")]
    NoVersion { key: String, version: u64 },
    #[error("version {version} of the key {key:?} is deleted: `keyferry store undelete` brings it back")]
    Deleted { key: String, version: u64 },
    #[error("the key {key:?} is disabled: `keyferry store edit --status active` enables it")]
    Disabled { key: String },
    #[error("the key {key:?} is revoked and must not be used any more: write a new value with `keyferry store set --status active`")]
    Revoked { key: String },
    #[error("the key {key:?} expired at {expires}: write a new value or correct its expiry with `keyferry store set --expires`")]
    Expired { key: String, expires: Timestamp },
    #[error("the key {key:?} expired at {expires} and the new value would never be read: give --expires anew; nothing was written")]
    StillExpired { key: String, expires: Timestamp },
    #[error("the key {key:?} is {status} and the new value would not be read: add --status active; nothing was written")]
    StillWithheld { key: String, status: Status },
    #[error("the value is no {kind}: expected {}; nothing was written. `--type opaque` takes any bytes", kind.expected())]
    WrongForm { kind: Kind },
    #[error("{0}: nothing was written")]
    Unfit(#[from] Unfit),
    #[error("{place} holds keys already: nothing was restored; choose another path, or add --replace to lose what it holds")]
    NotEmpty { place: String },
    #[error("the value is longer than {limit} bytes: nothing was written")]
    TooLong { limit: usize },
}

impl StoreError {
    pub(super) fn io(place: &str, action: &'static str, error: &io::Error) -> Self {
        Self::Io { place: place.to_owned(), action, cause: error.kind() }
    }

    pub(super) fn damaged(place: &str, part: &'static str) -> Self {
        Self::Damaged { place: place.to_owned(), part }
    }

    /// What the container says, in our words; its own texts may quote bytes of the file and are dropped.
    pub(super) fn container(place: &str, error: &redb::Error) -> Self {
        match error {
            redb::Error::Io(cause) if !is_damage(cause.kind()) => Self::io(place, "reading or writing", cause),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch | redb::Error::WouldBlock => {
                Self::Busy { place: place.to_owned() }
            }
            redb::Error::RepairAborted => Self::Unfinished { place: place.to_owned() },
            _ => Self::damaged(place, "container"),
        }
    }
}

/// Whether an I/O error speaks about the file's bytes and not about the machine.
fn is_damage(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput)
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::Missing { .. }
            | StoreError::Escapes { .. }
            | StoreError::NotAFile { .. }
            | StoreError::OpenToOthers { .. }
            | StoreError::NotAKey { .. }
            | StoreError::WrongKey { .. }
            | StoreError::Format { .. }
            | StoreError::Unfinished { .. }
            | StoreError::Exists { .. } => Self::new(Class::Unavailable, Reason::StoreNotReady, detail),
            StoreError::Damaged { .. } | StoreError::Busy { .. } | StoreError::Io { .. } => Self::unavailable(detail),
            StoreError::Deleted { .. } => Self::absent(Reason::Deleted, detail),
            StoreError::Disabled { .. } | StoreError::Revoked { .. } => Self::absent(Reason::Disabled, detail),
            StoreError::Expired { .. } => Self::absent(Reason::Expired, detail),
            StoreError::NoKey { .. } | StoreError::NoVersion { .. } => Self::absent(Reason::NotFound, detail),
            StoreError::Conflict { .. }
            | StoreError::StillExpired { .. }
            | StoreError::StillWithheld { .. }
            | StoreError::WrongForm { .. }
            | StoreError::Unfit(_)
            | StoreError::NotEmpty { .. }
            | StoreError::TooLong { .. } => Self::new(Class::Bug, Reason::InvalidData, detail),
        }
    }
}
