//! `keyferry store`: the tool for the file of provider `file`. It works on the file itself and needs no cluster.
//!
//! Values come from standard input or a file, never from arguments, where every process of the machine could read them.

mod about;

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use zeroize::Zeroizing;

use self::about::{AboutArgs, Filter, Shown};
use crate::{
    backend::file::{self, MAX_VALUE, MasterKey, Name, Place, Reader, StoreError, Writer},
    name::{ProviderKind, RemoteKey},
    secret::SecretValue,
};

/// Make, fill and read the encrypted file of provider `file`.
#[derive(Debug, Args)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
    /// The store's file.
    #[arg(long, global = true, value_name = "PATH")]
    file: Option<PathBuf>,
    /// The file that holds the master key.
    #[arg(long, global = true, value_name = "PATH")]
    master_key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Make an empty store, and the master key's file if there is none; never replaces either.
    Init,
    /// Write a new version of a key; the value is standard input, byte for byte. Prints the version once it is durable.
    Set {
        key: String,
        /// Take the value from this file instead of standard input.
        #[arg(long, value_name = "PATH")]
        from_file: Option<PathBuf>,
        /// Write only if this is the latest version; 0 means that the key must not exist.
        #[arg(long, value_name = "VERSION")]
        cas: Option<u64>,
        #[command(flatten)]
        about: Box<AboutArgs>,
    },
    /// Change what is known about a key; its values stay what they are. A new type seals every version anew.
    Edit {
        key: String,
        #[command(flatten)]
        about: Box<AboutArgs>,
    },
    /// Show what is known about a key, and no value.
    Describe {
        key: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a value to standard output, byte for byte.
    Get {
        key: String,
        /// This version instead of the latest.
        #[arg(long, value_name = "VERSION")]
        version: Option<u64>,
    },
    /// List the keys whose latest version is not deleted.
    List {
        /// List deleted keys too.
        #[arg(long)]
        all: bool,
        /// Print JSON: key, latest version, whether it is deleted, and what is known about it.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        filter: Box<Filter>,
    },
    /// List the versions of a key.
    Versions { key: String },
    /// Mark a version as deleted; its value is kept and can be brought back.
    Delete {
        key: String,
        /// This version instead of the latest.
        #[arg(long, value_name = "VERSION")]
        version: Option<u64>,
    },
    /// Bring a deleted version back.
    Undelete {
        key: String,
        /// This version instead of the latest.
        #[arg(long, value_name = "VERSION")]
        version: Option<u64>,
    },
    /// Give the store another master key, in one change; a run that was killed is simply run again.
    Rekey {
        /// The file of the new master key; it is made if there is none.
        #[arg(long, value_name = "PATH")]
        new_master_key: PathBuf,
    },
    /// Write a new file with everything that the store holds at this moment, under the same master key. Never replaces a file.
    Backup {
        /// The new file.
        #[arg(value_name = "PATH")]
        to: PathBuf,
    },
    /// Bring back everything that a backup holds.
    Restore {
        /// The backup.
        #[arg(value_name = "PATH")]
        from: PathBuf,
        /// Lose what the store holds, if it holds anything.
        #[arg(long)]
        replace: bool,
    },
}

/// Runs one `keyferry store` command.
///
/// # Errors
/// What kept it from being done, with place and remedy, and without any value.
pub fn run(args: StoreArgs) -> Result<()> {
    let files = Files::of(args.file, args.master_key)?;
    match args.command {
        StoreCommand::Init => init(&files),
        StoreCommand::Set { key, from_file, cas, about } => set(&files, &key, from_file.as_deref(), cas, &about),
        StoreCommand::Edit { key, about } => edit(&files, &key, &about),
        StoreCommand::Describe { key, json } => describe(&files, &key, json),
        StoreCommand::Get { key, version } => get(&files, &key, version),
        StoreCommand::List { all, json, filter } => list(&files, all, json, &filter),
        StoreCommand::Versions { key } => versions(&files, &key),
        StoreCommand::Delete { key, version } => mark(&files, &key, version, true),
        StoreCommand::Undelete { key, version } => mark(&files, &key, version, false),
        StoreCommand::Rekey { new_master_key } => rekey(&files, &new_master_key),
        StoreCommand::Backup { to } => backup(&files, &to),
        StoreCommand::Restore { from, replace } => restore(&files, &from, replace),
    }
}

/// The two files that every command needs.
struct Files {
    store: PathBuf,
    master: PathBuf,
}

impl Files {
    fn of(store: Option<PathBuf>, master: Option<PathBuf>) -> Result<Self> {
        Ok(Self {
            store: store.context("--file PATH is missing: name the store's file")?,
            master: master.context("--master-key PATH is missing: name the file that holds the master key")?,
        })
    }

    fn reader(&self) -> Result<Reader, StoreError> {
        Reader::open(&Place::path(&self.store), &Place::path(&self.master))
    }

    fn writer(&self) -> Result<Writer, StoreError> {
        Writer::open(&Place::path(&self.store), &Place::path(&self.master))
    }
}

fn init(files: &Files) -> Result<()> {
    let master = made_key(&files.master)?;
    file::create(&files.store, &MasterKey::read(&master)?)?;
    say(&format!("made the store {}", files.store.display()))
}

/// Makes the key's file if there is none.
fn made_key(path: &Path) -> Result<Place> {
    if path.symlink_metadata().is_ok() {
        return Ok(Place::path(path));
    }
    match MasterKey::create(path) {
        Ok(()) => say(&format!("made the master key {}: keep a copy in a safe place, nothing opens the store without it", path.display()))?,
        Err(StoreError::Exists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Place::path(path))
}

fn set(files: &Files, key: &str, from_file: Option<&Path>, cas: Option<u64>, about: &AboutArgs) -> Result<()> {
    let key = parse_key(key)?;
    let now = Timestamp::now();
    let changes = about.changes(now)?;
    // Opened before the value is asked for, so that nobody types a secret into a store that does not open.
    let writer = files.writer()?;
    let value = match from_file {
        Some(path) => read_value(File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?)?,
        None => read_value(standard_input())?,
    };
    let version = writer.set_described(key.as_str(), &value, cas, &changes, now)?;
    say(&format!("{key} version {version}"))
}

fn edit(files: &Files, key: &str, about: &AboutArgs) -> Result<()> {
    let key = parse_key(key)?;
    let changes = about.changes(Timestamp::now())?;
    if changes == file::Changes::default() {
        return Err(anyhow!("nothing to change: name what shall be different, as in `--status disabled`"));
    }
    files.writer()?.edit(key.as_str(), &changes)?;
    say(&format!("{key} changed"))
}

fn describe(files: &Files, key: &str, json: bool) -> Result<()> {
    let (name, versions) = files.reader()?.describe(parse_key(key)?.as_str())?;
    let shown = Shown::described(name, &versions, Timestamp::now());
    if json { say(&serde_json::to_string_pretty(&shown)?) } else { shown.lines().iter().try_for_each(|line| say(line)) }
}

fn rekey(files: &Files, new: &Path) -> Result<()> {
    if !files.store.exists() {
        return Err(StoreError::Missing { place: files.store.display().to_string() }.into());
    }
    let fresh = made_key(new)?;
    let (store, shown) = (Place::path(&files.store), files.store.display());
    match file::rekey(&store, &Place::path(&files.master), &fresh)? {
        Some(versions) => {
            say(&format!("{shown}: {versions} versions are under {} now; {} opens it no more", new.display(), files.master.display()))
        }
        None => say(&format!("{shown} is under {} already", new.display())),
    }
}

fn backup(files: &Files, to: &Path) -> Result<()> {
    let versions = file::backup(&Place::path(&files.store), &Place::path(&files.master), to)?;
    say(&format!("{}: {versions} versions, each opened", to.display()))
}

fn restore(files: &Files, from: &Path, replace: bool) -> Result<()> {
    let restored = file::restore(&Place::path(from), &files.store, &Place::path(&files.master), replace)?;
    let what = if restored.replaced { "; what it held is replaced" } else { "" };
    say(&format!("{}: {} versions{what}", files.store.display(), restored.versions))
}

fn get(files: &Files, key: &str, version: Option<u64>) -> Result<()> {
    let key = parse_key(key)?;
    let (value, _) = files.reader()?.get(key.as_str(), version)?;
    let mut output = io::stdout().lock();
    output.write_all(value.expose()).and_then(|()| output.flush()).context("the value could not be written to standard output")
}

fn list(files: &Files, all: bool, json: bool, filter: &Filter) -> Result<()> {
    let now = Timestamp::now();
    let mut names = files.reader()?.names()?;
    names.retain(|name| (all || !name.deleted) && filter.takes(name, now));
    if json {
        let shown: Vec<Shown> = names.into_iter().map(|name| Shown::listed(name, now)).collect();
        return say(&serde_json::to_string_pretty(&shown)?);
    }
    names.iter().try_for_each(|Name { key, deleted, .. }| say(&marked(key, *deleted)))
}

fn versions(files: &Files, key: &str) -> Result<()> {
    let versions = files.reader()?.versions(parse_key(key)?.as_str())?;
    versions.iter().zip(1u64..).try_for_each(|(version, number)| say(&marked(&number.to_string(), version.deleted)))
}

fn mark(files: &Files, key: &str, version: Option<u64>, deleted: bool) -> Result<()> {
    let key = parse_key(key)?;
    let version = files.writer()?.mark_deleted(key.as_str(), version, deleted)?;
    say(&format!("{key} version {version} {}", if deleted { "deleted" } else { "is back" }))
}

fn marked(text: &str, deleted: bool) -> String {
    if deleted { format!("{text}\tdeleted") } else { text.to_owned() }
}

fn parse_key(text: &str) -> Result<RemoteKey> {
    RemoteKey::parse(ProviderKind::File, text).map_err(|error| anyhow!("{error}"))
}

fn say(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}").context("standard output is closed")
}

fn standard_input() -> impl Read {
    let input = io::stdin();
    if input.is_terminal() {
        // Nobody is helped by an error about a closed standard error here.
        let _ = writeln!(io::stderr(), "reading the value from the terminal; end it with Ctrl-D");
    }
    input.lock()
}

/// Reads a value to its end. A buffer that grows leaves its old bytes behind, so each smaller one is overwritten.
fn read_value(mut input: impl Read) -> Result<SecretValue> {
    let mut value = Zeroizing::new(vec![0; 4096]);
    let mut length = 0;
    loop {
        let read = match input.read(&mut value[length..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            answer => answer.context("the value could not be read")?,
        };
        if read == 0 {
            value.truncate(length);
            return Ok(SecretValue::new(std::mem::take(&mut *value)));
        }
        length += read;
        if length > MAX_VALUE {
            return Err(StoreError::TooLong { limit: MAX_VALUE }.into());
        }
        if length == value.len() {
            let mut larger = Zeroizing::new(vec![0; length * 4]);
            larger[..length].copy_from_slice(&value);
            value = larger;
        }
    }
}
